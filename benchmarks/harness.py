"""One harness for all benchmarks: ours and each rival in turn, each in fresh processes; medians, spread and ratios.

A benchmark says what it measures and how each side is run. What comes out is a JSON file a benchmark, with every sample
and the facts of the machine; tables and docs/performance.md are made from those. Ratios carry over to other machines,
seconds do not: so it is ratios that `check` holds against the committed baseline.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
BASELINE = Path(__file__).parent / "baseline.json"

FLOWER = REPOSITORY / ".cache" / "bench-flower"
"""Flower's environment, which `script/bench` makes."""

OURS = "ours"
"""Name of our side; the rivals' are theirs."""

PAIRS, SHORT_PAIRS = 5, 3
"""How often each side is run: at least, and in the short form."""

MARGIN = 0.25
"""How far above its baseline a ratio may be, as a share of it, where the baseline does not say."""

TAIL = 25
"""Lines of a side's log that are shown where it fails."""

Form = Literal["full", "short"]
"""How much a side does in one run."""

Measure = Callable[[Form], Mapping[str, Sequence[float]]]
"""Runs one side once, in that form, and gives the samples of each figure."""


class BenchmarkError(Exception):
    """A benchmark could not be run, or its files do not fit; says so in one line."""


@dataclass(frozen=True)
class Target:
    """What a figure should come to, at most.

    Attributes:
        most: the number.
        rival: what it is a multiple of: that rival's median; or None where it is in the figure's own unit.
    """

    most: float
    rival: str | None = None


@dataclass(frozen=True)
class Figure:
    """One number that a benchmark measures; lower is better.

    Attributes:
        name: in one word.
        what: what is measured, from where to where.
        unit: of its samples.
        target: what ours should come to, or None where nothing is promised.
        places: digits after the point when it is written.
    """

    name: str
    what: str
    unit: str = "s"
    target: Target | None = None
    places: int = 2


@dataclass(frozen=True)
class Side:
    """One of those that are measured.

    Attributes:
        name: of a rival in one word, or `ours`.
        what: what is run.
        measure: runs it once; can be pickled, as a fresh process calls it.
        gives: names of the figures that it has samples of, or None for all.
    """

    name: str
    what: str
    measure: Measure
    gives: frozenset[str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and who is.

    Attributes:
        name: on the command line and of its file.
        what: one sentence: what it shows and how.
        figures: what each run gives.
        ours: our side.
        rivals: who is run in turn with it.
        minutes: that the whole takes, about, on two cores.
        guarded: it is a part of the short form, whose ratios are held against the baseline.
    """

    name: str
    what: str
    figures: tuple[Figure, ...]
    ours: Side
    rivals: tuple[Side, ...] = ()
    minutes: float = 1
    guarded: bool = False

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.ours, *self.rivals)


# -- running ----------------------------------------------------------------------------------------------------------


def run(
    benchmark: Benchmark,
    pairs: int,
    *,
    form: Form = "full",
    call: Callable[[Measure, Form], Mapping[str, Sequence[float]]] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run each side `pairs` times, in turn, and give what its file holds.

    Args:
        benchmark: what to run.
        pairs: how often each side is run.
        form: of each run.
        call: runs one side once; in a fresh process, unless given.
        tell: is told after each run how it went.

    Raises:
        BenchmarkError: a side failed, or gave other figures than it should.
    """
    call = call or fresh
    found = facts()  # before it loads the machine itself
    samples: dict[str, dict[str, list[list[float]]]] = {
        figure.name: {side.name: [] for side in benchmark.sides if gives(side, figure)} for figure in benchmark.figures
    }
    for pair in range(1, pairs + 1):
        for side in benchmark.sides:
            try:
                given = call(side.measure, form)
            except BenchmarkError as exc:
                raise BenchmarkError(f"{benchmark.name}: {side.name}: {exc}") from exc
            wanted = {figure.name for figure in benchmark.figures if gives(side, figure)}
            if given.keys() != wanted or not all(given.values()):
                raise BenchmarkError(
                    f"{benchmark.name}: {side.name} gave samples of {sorted(name for name in given if given[name])}; "
                    f"wanted {sorted(wanted)}"
                )
            for name, values in given.items():
                samples[name][side.name].append([round(float(value), 6) for value in values])
            words = ", ".join(f"{name} {statistics.median(values):.3f}" for name, values in given.items())
            tell(f"{benchmark.name} {pair}/{pairs}: {side.name}: {words}")
    figures = {name: _figure(sides) for name, sides in samples.items()}
    return {
        "benchmark": benchmark.name,
        "form": form,
        "pairs": pairs,
        "facts": found,
        "units": {figure.name: figure.unit for figure in benchmark.figures},
        "figures": figures,
    }


def gives(side: Side, figure: Figure) -> bool:
    """Tell whether a side has samples of a figure."""
    return side.gives is None or figure.name in side.gives


def _figure(sides: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """Give samples, median, least and most of each side, and ours as a multiple of each rival's median."""
    summed: dict[str, dict[str, Any]] = {
        name: {
            "median": statistics.median(flat),
            "min": min(flat),
            "max": max(flat),
            "samples": runs,
        }
        for name, runs in sides.items()
        for flat in [[value for run in runs for value in run]]
    }
    ratios = {
        name: round(summed[OURS]["median"] / figures["median"], 4)
        for name, figures in summed.items()
        if OURS in summed and name != OURS
    }
    return {"sides": summed, "ratios": ratios}


def fresh(measure: Measure, form: Form) -> Mapping[str, Sequence[float]]:
    """Run one side once in a process of its own, started anew and not forked; what it says goes to a log.

    Raises:
        BenchmarkError: it failed; the last lines of the log have been shown by then.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fed-bench-") as folder:
        log = Path(folder) / "log"
        ends, end = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(end, measure, form, str(log)))
        process.start()
        end.close()
        given: Mapping[str, Sequence[float]] | None = None
        try:
            given = ends.recv()
        except EOFError:
            process.join()
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            sys.stderr.write("".join(f"    {line}\n" for line in said.splitlines()[-TAIL:]))
            raise BenchmarkError(f"its process ended with code {process.exitcode}") from None
        finally:
            if given is None:
                process.terminate()
            process.join()
    return given or {}


def stop(number: int, _: object) -> None:
    """Answer SIGTERM as an exception would be, so that what was started is ended."""
    sys.exit(128 + number)


def _send(end: Connection, measure: Measure, form: Form, log: str) -> None:
    signal.signal(signal.SIGTERM, stop)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):  # what it starts says it there too
        os.dup2(said, stream)
    end.send(dict(measure(form)))


def facts() -> dict[str, Any]:
    """Tell of the machine, the versions and the time what a figure depends on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "tensorflow": _version("tensorflow-cpu", "tensorflow"),
        "declearn": _version("declearn"),
        "flower": _flower(),
    }


def _version(*packages: str) -> str | None:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _flower() -> str | None:
    """Give the version of Flower in the environment of its own, or None where there is none."""
    found = sorted(FLOWER.glob("lib/python*/site-packages/flwr-*.dist-info"))
    return found[0].name.removeprefix("flwr-").removesuffix(".dist-info") if found else None


def commit(folder: Path = REPOSITORY) -> str | None:
    """Name the commit that is measured; None where there is no repository.

    A + behind it says that files differ from it, but for those that measuring itself writes.
    """
    written = [f":!{path}" for path in ("benchmarks/results", "benchmarks/baseline.json", "docs/performance.md")]
    try:
        name = _git(folder, "rev-parse", "--short", "HEAD")
        return name + (
            "+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *written) else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()


# -- files ------------------------------------------------------------------------------------------------------------


def save(result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write what `run` gave into its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def load(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """Read a benchmark's file, or give None where it has not been measured yet."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """Read ratio and margin of each guarded benchmark, by `benchmark/figure/rival`."""
    baseline: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return baseline


def write_baseline(results: Sequence[Mapping[str, Any]], path: Path = BASELINE) -> None:
    """Put the ratios of these results into the baseline; margins that are there stay."""
    baseline = read_baseline(path)
    for key, ratio in ratios(results):
        baseline[key] = {"ratio": ratio, "margin": baseline.get(key, {}).get("margin", MARGIN)}
    path.write_text(json.dumps(dict(sorted(baseline.items())), indent=1) + "\n", encoding="utf-8")


# -- judging ----------------------------------------------------------------------------------------------------------


def ratios(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Give each ratio of some results, by `benchmark/figure/rival`."""
    for result in results:
        for figure, content in result["figures"].items():
            for rival, ratio in content["ratios"].items():
                yield f"{result['benchmark']}/{figure}/{rival}", ratio


def check(results: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]) -> list[str]:
    """Hold fresh ratios against the baseline; gives a line for each that is beyond its margin or has no baseline."""
    lines = []
    for key, ratio in ratios(results):
        if key not in baseline:
            lines.append(f"{key}: ratio {ratio:.3f} has no baseline; measure one with `script/bench --baseline`")
            continue
        known, margin = baseline[key]["ratio"], baseline[key]["margin"]
        if ratio > known * (1 + margin):
            lines.append(f"{key}: ratio {ratio:.3f} is beyond the baseline {known:.3f} and its margin of {margin:.0%}")
    return lines


def met(figure: Figure, content: Mapping[str, Any]) -> bool | None:
    """Tell whether a figure's target is met; None where there is none, or its rival was not measured."""
    if figure.target is None:
        return None
    if figure.target.rival is None:
        median: float = content["sides"][OURS]["median"]
        return median <= figure.target.most
    ratio: float | None = content["ratios"].get(figure.target.rival)
    return None if ratio is None else ratio <= figure.target.most


# -- showing ----------------------------------------------------------------------------------------------------------


def number(value: float, figure: Figure) -> str:
    """Write a value of a figure without its unit."""
    return f"{value:,.{figure.places}f}"


def target_words(figure: Figure) -> str:
    """Write a figure's target."""
    if figure.target is None:
        return ""
    if figure.target.rival is None:
        return f"≤ {figure.target.most:g} {figure.unit}"
    return f"≤ {figure.target.most:g} of {figure.target.rival}"


def rows(benchmark: Benchmark, result: Mapping[str, Any]) -> list[list[str]]:
    """Lay out a result, a row a figure and side: median, least and most, ours as a multiple of it, and the target."""
    table = []
    for figure in benchmark.figures:
        content = result["figures"].get(figure.name)
        if content is None:
            continue
        for side, values in content["sides"].items():
            spread = f"{number(values['min'], figure)} … {number(values['max'], figure)}"
            verdict = ""
            if side == OURS and figure.target is not None:
                verdict = {True: ", met", False: ", missed", None: ""}[met(figure, content)]
                verdict = target_words(figure) + verdict
            ratio = f"{content['ratios'][side]:.3f}" if side in content["ratios"] else ""
            median = f"{number(values['median'], figure)} {figure.unit}"
            table.append([figure.name, side, median, spread, ratio, verdict])
    return table


HEAD = ["figure", "side", "median", "least … most", "ours / it", "target"]
"""Of the columns of `rows`."""


def text(benchmark: Benchmark, result: Mapping[str, Any]) -> str:
    """Write a result as a table for a terminal."""
    lines = [HEAD, *rows(benchmark, result)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    title = f"{benchmark.name}: {benchmark.what}\n"
    return title + "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
