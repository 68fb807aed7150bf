"""The real stack, through Docker Compose."""
