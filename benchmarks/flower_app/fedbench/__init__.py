"""A Flower app that does what the other sides of `benchmarks.coordination` do; runs in Flower's own environment."""
