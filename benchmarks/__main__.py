"""Run benchmarks, ours and rivals in turn, and keep what was measured.

python -m benchmarks [NAME …]         all whose names begin so, or all; writes benchmarks/results/NAME.json
python -m benchmarks --list           what there is
python -m benchmarks --short          few and short runs of the guarded ones; nothing is written
python -m benchmarks --check          the same, and their ratios held against benchmarks/baseline.json
python -m benchmarks --baseline       the same, and their ratios become the baseline
python -m benchmarks --page           docs/performance.md anew from benchmarks/results
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, performance, suite
from benchmarks.harness import PAIRS, SHORT_PAIRS, Benchmark, BenchmarkError


def main(
    argv: list[str] | None = None,
    benchmarks: Sequence[Benchmark] = suite.BENCHMARKS,
    results: Path = harness.RESULTS,
    baseline: Path = harness.BASELINE,
    page: Path = performance.PAGE,
) -> int:
    """Do what the command line says; 1 where a benchmark fails or a ratio is beyond its margin.

    Args:
        argv: the command line.
        benchmarks: what there is.
        results: folder of the files that are written.
        baseline: file of the ratios to hold.
        page: file of the page.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.list:
        for benchmark in benchmarks:
            print(f"{benchmark.name:20} {benchmark.minutes:4g} min  {benchmark.what}")
        return 0
    if options.page:
        page.write_text(performance.page(benchmarks, results), encoding="utf-8")
        return 0
    short: bool = options.short or options.check or options.baseline
    pairs: int = options.pairs or (SHORT_PAIRS if short else PAIRS)
    if pairs < (1 if short else PAIRS):
        parser.error(f"--pairs is {pairs}; wanted at least {1 if short else PAIRS}")
    try:
        chosen = choose(benchmarks, options.names, short=short)
    except BenchmarkError as exc:
        parser.error(str(exc))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        found = measure(chosen, pairs, None if short else results)
    except BenchmarkError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    if options.baseline:
        harness.write_baseline(found, baseline)
    beyond = harness.check(found, harness.read_baseline(baseline)) if options.check else []
    for line in beyond:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if beyond else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a benchmark, or what names begin with")
    parser.add_argument("--pairs", type=int, help=f"runs of each side (default: {PAIRS}; short: {SHORT_PAIRS})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--list", action="store_true", help="name all benchmarks and end")
    form.add_argument("--short", action="store_true", help="the short form of those whose ratios are guarded")
    form.add_argument("--check", action="store_true", help="the short form, against the baseline")
    form.add_argument("--baseline", action="store_true", help="the short form, as the baseline from now on")
    form.add_argument("--page", action="store_true", help="write docs/performance.md and end")
    return parser


def choose(benchmarks: Sequence[Benchmark], names: Sequence[str], *, short: bool) -> list[Benchmark]:
    """List the benchmarks whose names begin with one of `names`, or all; in the short form the guarded ones alone.

    Raises:
        BenchmarkError: there is none for a name, or none that has a short form.
    """
    for name in names:
        if not any(each.name.startswith(name) for each in benchmarks):
            known = ", ".join(each.name for each in benchmarks)
            raise BenchmarkError(f"no benchmark begins with '{name}'; wanted some of {known}")
    named = [each for each in benchmarks if not names or each.name.startswith(tuple(names))]
    chosen = [each for each in named if each.guarded or not short]
    if not chosen:
        raise BenchmarkError(f"{', '.join(each.name for each in named)}: not guarded, so without a short form")
    return chosen


def measure(benchmarks: Sequence[Benchmark], pairs: int, keep: Path | None) -> list[dict[str, Any]]:
    """Run benchmarks, in full where their files are to be kept, else in short; print a table for each.

    Args:
        benchmarks: what to run.
        pairs: how often each side is run.
        keep: folder for a file each, or None.

    Raises:
        BenchmarkError: a side failed.
    """
    found = []
    for benchmark in benchmarks:
        result = harness.run(benchmark, pairs, form="short" if keep is None else "full", tell=_tell)
        print(harness.text(benchmark, result), flush=True)
        found.append(result)
        if keep is not None:
            harness.save(result, keep)
    return found


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, harness.stop)
    sys.exit(main())
