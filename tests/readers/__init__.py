"""A person's own data, read by what it is kept in."""
