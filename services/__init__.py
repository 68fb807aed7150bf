"""Federated learning that starts with one command: the roles `init`, `server` and `client` over declearn."""

__version__ = "0.1.0"
