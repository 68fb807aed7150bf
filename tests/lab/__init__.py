"""Docker engines in network namespaces of one machine: hosts of their own, for tests and for whoever wants to look."""
