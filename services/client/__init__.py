"""The role `client`: an identity, its data, and local training."""
