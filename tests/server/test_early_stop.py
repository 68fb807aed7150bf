"""Ending a run before its last round."""

from __future__ import annotations

from typing import Any

import pytest

from services.experiment.methods import EarlyStop
from services.paths import Paths
from services.server.early_stop import reason_to_stop
from services.tables import Round
from tests.federation import Federation, plan, run

NAN = float("nan")


def stops_at(values: list[float], **spec: Any) -> int | None:
    """Tell the round in which a run with these figures ends early, if it does."""
    found = EarlyStop(**{"patience": 1, **spec})
    rows = [
        Round(number, 0.0, 0.0, 0.0, 0, 0, value, value, value, value, 0, 0, 0)
        for number, value in enumerate(values, start=1)
    ]
    reasons = [reason_to_stop(found, rows[:count]) for count in range(len(rows) + 1)]
    return next((number for number, reason in enumerate(reasons) if reason), None)


@pytest.mark.parametrize(
    ("values", "spec", "round_"),
    [
        ([3, 2, 1], {}, None),
        ([3, 2, 2, 1], {}, 3),
        ([3, 2, 2, 1, 1, 1], {"patience": 2}, 6),
        ([3, 2, 2, 2], {"patience": None}, None),
        ([1, 2, 3], {"metric": "test_accuracy"}, None),
        ([1, 2, 2], {"metric": "accuracy"}, 3),
        ([1, 2, 3], {"decrease": False}, None),
        ([3.0, 2.9, 2.0], {"tolerance": 0.5}, 2),
        ([3.0, 3.2, 2.0], {"tolerance": -0.5}, None),
        ([100.0, 99.0, 98.5], {"tolerance": 0.009, "relative": True}, 3),
        ([1.0, 0.0, 0.0], {"relative": True}, 3),
        ([NAN, 3, NAN, 2, NAN, NAN, 1], {}, None),
        ([3, NAN, 3], {}, 3),
    ],
)
def test_a_run_ends_when_it_no_longer_improves(values: list[float], spec: dict[str, Any], round_: int | None) -> None:
    """By tolerance and patience, up or down, in shares or not; a round without a figure does not count."""
    assert stops_at(values, **spec) == round_


def test_a_run_that_ends_early_is_completed_with_the_reason(small: Paths) -> None:
    """The summary says which round, which figure and how long; a resumed run ends at the same round."""
    for stop_before in (None, 2):
        federation = Federation(small, plan(rounds=9, early_stop={"patience": 3, "tolerance": 100.0}))
        run(federation.play(stop_before=stop_before))
        summary = federation.summary
        assert (summary["status"], summary["rounds"], summary["rounds_planned"]) == ("completed", 4, 9)
        assert summary["reason"] == "early stop at round 4: loss did not improve by more than 100 in 3 rounds"
