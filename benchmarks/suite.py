"""All benchmarks that `script/bench` knows, in the order of the page."""

from __future__ import annotations

from benchmarks import coordination
from benchmarks.harness import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (*coordination.BENCHMARKS,)
