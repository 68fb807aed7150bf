"""One framework each."""
