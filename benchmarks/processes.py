"""Whole runs as processes on this machine: `fed demo` and what is timed beside it, each ended with its block."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import REPOSITORY, BenchmarkError

RAW = REPOSITORY / "data" / "mnist_raw"

LONGEST = 1800.0
"""Seconds that a run may take."""

SURROUNDINGS = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "TF_CPP_MIN_LOG_LEVEL")
"""Variables that a run is given; those that change a run of ours, or the threads of TensorFlow, are not among them."""


@dataclass(frozen=True)
class Finished:
    """A run of ours.

    Attributes:
        wall: seconds from its first process to its last one's end, when results are there.
        history: rows of its history.csv.
        summary: its summary.json.
    """

    wall: float
    history: list[dict[str, str]]
    summary: dict[str, Any]


def surroundings(**changes: str) -> dict[str, str]:
    """Give the environment of a process that is measured."""
    kept = {name: os.environ[name] for name in SURROUNDINGS if name in os.environ}
    return kept | {"PYTHONPATH": str(REPOSITORY)} | changes


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder that holds the data set where `fed` looks for it, and goes away with the block."""
    with tempfile.TemporaryDirectory(prefix="fed-bench-", ignore_cleanup_errors=True) as folder:
        raw = Path(folder) / "data" / "mnist_raw"
        raw.parent.mkdir()
        raw.symlink_to(RAW)
        yield Path(folder)


def timed(folder: Path, *words: str, environment: Mapping[str, str]) -> float:
    """Run a program to its end and give the seconds that it took.

    Raises:
        BenchmarkError: it failed, or took too long.
    """
    began = time.monotonic()
    process = subprocess.Popen(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{words[1]} took more than {LONGEST:.0f} s") from None
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        raise BenchmarkError(f"{' '.join(words[1:3])} ended with code {code}")
    return time.monotonic() - began


def demo(experiment: Path, *words: str, clients: int = 3) -> Finished:
    """Run `fed demo` with an experiment file, as a person would, but for the status page."""
    with workplace() as folder:
        command = [sys.executable, "-m", "services", "demo", "--experiment", str(experiment)]
        command += ["--clients", str(clients), *words]
        wall = timed(folder, *command, environment=surroundings(FED_ROOT=str(folder), STATUS_PORT="0"))
        results = folder / "results" / "latest"
        with (results / "history.csv").open(newline="", encoding="utf-8") as file:
            history = list(csv.DictReader(file))
        summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    return Finished(wall, history, summary)


@dataclass(frozen=True)
class Known:
    """A process, as it was seen; its number may be another's later.

    Attributes:
        pid: its number.
        started: ticks at which it was started, as /proc tells.
    """

    pid: int
    started: int


def descendants(pid: int) -> list[Known]:
    """List what a process has started, and what those have, while all of them are there."""
    children: dict[int, list[Known]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if (found := _look(int(folder.name))) is not None:
            parent, known = found
            children.setdefault(parent, []).append(known)
    below, next_ones = [], [pid]
    while next_ones:
        ones = children.get(next_ones.pop(), [])
        below += ones
        next_ones += [one.pid for one in ones]
    return below


def end(known: Known, number: int) -> None:
    """Send a signal to a process that was seen, if it is still the same."""
    found = _look(known.pid)
    if found is not None and found[1] == known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(known.pid, number)


def _look(pid: int) -> tuple[int, Known] | None:
    """Give a process's parent and the process, or None where there is none."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(words[1]), Known(pid, int(words[19]))
