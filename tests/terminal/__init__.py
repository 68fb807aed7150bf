"""The live view and plain lines, without and with a pseudo-terminal."""
