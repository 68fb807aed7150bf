"""What is shown in a terminal: a live view of a run, and how far set-up is; plain lines where nobody looks."""
