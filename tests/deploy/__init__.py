"""What `deploy/` holds: stacks beside the default one, as far as they can be looked at without a cluster or a GPU."""
