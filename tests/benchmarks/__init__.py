"""Tests of benchmarks: what is counted is counted right; nothing is timed."""
