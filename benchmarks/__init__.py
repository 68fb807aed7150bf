"""Benchmarks: ours and a rival in turn, in one run; figures are medians, and ratios count."""
