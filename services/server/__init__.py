"""The role `server`: membership, rounds and results."""
