"""How long the default experiment takes to a test accuracy: seconds of its rounds, as its history.csv has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import processes
from benchmarks.harness import OURS, REPOSITORY, Benchmark, BenchmarkError, Figure, Form, Side

GOALS = {"97 %": 0.97, "98 %": 0.98, "99 %": 0.99}

ROUNDS = 9
"""More than the default plan has, so that the last goal is reached."""


def measure(_: Form) -> dict[str, list[float]]:
    """Run the default experiment for more rounds than it has, and give the seconds to each goal."""
    run = processes.demo(REPOSITORY / "experiment.yml", "--rounds", str(ROUNDS))
    return {name: [seconds_to(goal, run.history)] for name, goal in GOALS.items()}


def seconds_to(goal: float, history: Sequence[Mapping[str, str]]) -> float:
    """Add up the seconds of rounds up to the first whose model comes to `goal` on the test images.

    Raises:
        BenchmarkError: none does.
    """
    seconds = 0.0
    for row in history:
        seconds += float(row["seconds"])
        if float(row["test_accuracy"]) >= goal:
            return seconds
    raise BenchmarkError(f"test accuracy {goal:.2f} is not reached in {len(history)} rounds")


BENCHMARKS = (
    Benchmark(
        "accuracy",
        "The default experiment, 3 clients as processes on this machine, until its model comes to a test accuracy.",
        tuple(Figure(name, f"seconds of all rounds up to the first at {name}", places=1) for name in GOALS),
        Side(OURS, f"`fed demo` with experiment.yml and {ROUNDS} rounds", measure),
        minutes=7,
    ),
)
