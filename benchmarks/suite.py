"""All benchmarks that `script/bench` knows, in the order of the page."""

from __future__ import annotations

from benchmarks import accuracy, coordination, example, floor, flower, scale_up
from benchmarks.harness import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (
    *example.BENCHMARKS,
    *floor.BENCHMARKS,
    *coordination.BENCHMARKS,
    *flower.BENCHMARKS,
    *scale_up.BENCHMARKS,
    *accuracy.BENCHMARKS,
)
