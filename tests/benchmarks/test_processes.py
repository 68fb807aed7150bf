"""Programs that are timed: what they are given, and what it takes for one to count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import example, processes
from benchmarks.harness import BenchmarkError
from tests import upstream
from tests.support import REPOSITORY


def test_settings_of_a_persons_own_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would change a run of ours does not reach it; what is said for that run does."""
    monkeypatch.setenv("ROUNDS", "1")
    given = processes.surroundings(FED_ROOT="somewhere")
    assert "ROUNDS" not in given
    assert (given["FED_ROOT"], given["PYTHONPATH"]) == ("somewhere", str(REPOSITORY))


def test_a_program_that_fails_does_not_count(tmp_path: Path) -> None:
    """A program that ends with another code than 0 has no time."""
    with pytest.raises(BenchmarkError, match=r"^-c import sys; sys\.exit\(3\) ended with code 3$"):
        processes.timed(tmp_path, sys.executable, "-c", "import sys; sys.exit(3)", environment=processes.surroundings())


def test_what_a_program_started_is_found_and_ended() -> None:
    """Processes below a process are found while it is there, in whatever session, and can be ended when it is gone."""
    parent = "import subprocess; subprocess.Popen(['cat'], start_new_session=True); print('begun', flush=True); input()"
    words = [sys.executable, "-c", parent]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        (below,) = processes.descendants(process.pid)
        process.kill()
        process.wait()
        processes.end(processes.Known(below.pid, below.started - 1), signal.SIGKILL)  # another of that number
        os.kill(below.pid, 0)
        processes.end(below, signal.SIGKILL)
        assert process.stdout.read() == ""  # held open until the last has gone


def test_the_data_set_is_where_both_look_for_it() -> None:
    """A workplace has MNIST's own four files in `data/mnist_raw`, and goes away with the block."""
    with processes.workplace() as folder:
        assert len(list((folder / "data" / "mnist_raw").glob("*.gz"))) == 4
    assert not folder.exists()


def test_an_example_that_ends_early_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `run_demo.py` that leaves no figures of its five rounds is refused, however it ended."""
    stock = tmp_path / "stock"
    stock.mkdir()
    (stock / "run_demo.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(upstream, "example", lambda: stock)
    monkeypatch.setattr(example, "PORT", 0)
    with pytest.raises(BenchmarkError, match=r"^run_demo\.py has figures of 0 rounds$"):
        example.measure_stock("full")
