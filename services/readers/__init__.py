"""A person's own data, whatever it is kept in: arrays, tables, IDX files or images by class."""
