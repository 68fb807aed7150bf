"""The time to a test accuracy, out of a run's history."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import seconds_to
from benchmarks.harness import BenchmarkError

HISTORY = [{"seconds": str(n), "test_accuracy": accuracy} for n, accuracy in enumerate(("0.90", "0.97", "0.96"), 1)]


def test_seconds_of_rounds_are_added_up() -> None:
    """All rounds up to the first that comes to the goal count, that one included."""
    assert seconds_to(0.9, HISTORY) == 1
    assert seconds_to(0.95, HISTORY) == 3


def test_a_goal_that_is_not_reached_is_refused() -> None:
    """A run that is too short has no such time."""
    with pytest.raises(BenchmarkError, match=r"^test accuracy 0\.99 is not reached in 3 rounds$"):
        seconds_to(0.99, HISTORY)
