"""docs/performance.md, made from what has been measured: the files in benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import OURS, RESULTS, Benchmark, Figure

PAGE = harness.REPOSITORY / "docs" / "performance.md"

NOT_MEASURED = "not measured"

INTRODUCTION = f"""# Performance

This page is made from the files in `benchmarks/results` by `script/bench --page`.

TensorFlow's own compute is the floor, and what comes on top of it is ours. Each benchmark runs ours and its rivals in
turn, each in fresh processes, at least {harness.PAIRS} times. Figures are medians, with the least and the most beside
them, and lower is better. Seconds are those of one machine. Ratios, ours as a multiple of the rival's median, carry
over to others: `script/bench --check` holds them against `benchmarks/baseline.json`.

```sh
script/bench --list             # what there is, and how long each takes
script/bench coordination       # all whose names begin so; with no name all
script/bench --check            # the short form against the baseline
```
"""


def page(benchmarks: Sequence[Benchmark], folder: Path = RESULTS) -> str:
    """Write the whole page."""
    results = {benchmark.name: harness.load(benchmark.name, folder) for benchmark in benchmarks}
    lines = [
        _row(benchmark, figure, results[benchmark.name]) for benchmark in benchmarks for figure in benchmark.figures
    ]
    head = ["Benchmark", "Figure", "Ours", "Ours / rival", "Target", "Met"]
    parts = [INTRODUCTION, "\n## Overview\n\n", _table(head, lines)]
    parts += [_section(benchmark, results[benchmark.name]) for benchmark in benchmarks]
    return "".join(parts)


def _row(benchmark: Benchmark, figure: Figure, result: Mapping[str, Any] | None) -> list[str]:
    first = [f"`{benchmark.name}`", figure.name]
    content = None if result is None else result["figures"].get(figure.name)
    if content is None:
        return [*first, NOT_MEASURED, "", harness.target_words(figure), ""]
    ours = f"{harness.number(content['sides'][OURS]['median'], figure)} {figure.unit}"
    ratios = ", ".join(f"{ratio:.3f} of {rival}" for rival, ratio in content["ratios"].items())
    verdict = {True: "yes", False: "no", None: ""}[harness.met(figure, content)]
    return [*first, ours, ratios, harness.target_words(figure), verdict]


def _section(benchmark: Benchmark, result: Mapping[str, Any] | None) -> str:
    sides = "".join(f"- **{side.name}**: {side.what}\n" for side in benchmark.sides)
    figures = "".join(f"- {figure.name}: {figure.what}, in {figure.unit}\n" for figure in benchmark.figures)
    text = f"\n## {benchmark.name}\n\n{benchmark.what}\n\n{sides}\n{figures}\n"
    if result is None:
        return f"{text}{NOT_MEASURED.capitalize()}.\n"
    facts = result["facts"]
    versions = f"Python {facts['python']}, TensorFlow {facts['tensorflow']}, declearn {facts['declearn']}"
    if any(side.name == "flower" for side in benchmark.rivals):
        versions += f", Flower {facts['flower']}"
    table = [[cell.replace("|", "\\|") for cell in row] for row in harness.rows(benchmark, result)]
    return (
        f"{text}{_table([word.capitalize() for word in harness.HEAD], table)}\n"
        f"{result['pairs']} runs of each on {facts['date']}, of commit {facts['commit']}, on {facts['cores']} cores "
        f"({facts['machine']}) with {facts['memory_gb']} GB and a load of {facts['load']} before: {versions}.\n"
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *lines])
