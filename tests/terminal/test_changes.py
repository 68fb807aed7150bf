"""Lines of what has changed between two states of a run."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from services.tables import HISTORY_COLUMNS
from services.terminal.changes import Change, between, summary
from services.wording import NONE
from tests.server.page.test_render import state

RUN = "20261124-064015"
FIRST = ["2026-11-24T06:40:20.000+00:00", 0, "joined", "client_0", ""]
SECOND = ["2026-11-24T06:40:21.000+00:00", 1, "lost", "client_1", "connection lost"]
THIRD = ["2026-11-24T06:40:22.000+00:00", 1, "dealt", "", "2 clients"]


def words(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Give the lines between two states."""
    return [change.message for change in between(before, after)]


def test_a_run_is_told_of_as_it_is_found() -> None:
    """One line says what it is at, how far, with whom, and how good; no figures before there are any."""
    assert summary(state()) == Change(
        f"run {RUN}: training, 1 of 5 rounds done, 1 of 3 clients, 1 min 15 s, test accuracy 0.9631",
        {"run": RUN, "round": 1},
    )
    found = state(phase="gathering", round=0, clients={}, history={column: [] for column in HISTORY_COLUMNS})
    assert summary(found).message == (f"run {RUN}: waiting for clients, 0 of 5 rounds done, 0 of 3 clients, 1 min 15 s")


def test_nothing_new_is_no_line() -> None:
    """Seconds that pass and steps that are taken are no news in a pipe."""
    assert words(state(), state(seconds=80.0, phase="evaluating")) == []


def test_each_event_is_told_once_with_its_time() -> None:
    """Events that have come since are told, in order, with what programs want to know of them."""
    changes = list(between(state(events=[FIRST]), state(events=[FIRST, SECOND, THIRD])))
    assert [change.message for change in changes] == ["lost client_1: connection lost", "dealt: 2 clients"]
    assert changes[0].facts == {"run": RUN, "round": 1, "event": "lost", "client": "client_1"}
    assert changes[0].time == datetime.datetime(2026, 11, 24, 6, 40, 21, tzinfo=datetime.UTC).timestamp()
    assert changes[1].facts["client"] is None


@pytest.mark.parametrize("before", [[], [FIRST]], ids=["none", "those of another process"])
def test_all_events_are_new_where_none_is_known(before: list[Any]) -> None:
    """A server that was started anew tells of its own events alone, and all of them are news."""
    assert words(state(events=before), state(events=[SECOND, THIRD])) == [
        "lost client_1: connection lost",
        "dealt: 2 clients",
    ]


def test_events_beyond_the_latest_are_not_told_twice() -> None:
    """Of events of which the first have been forgotten, those that follow the last known are new."""
    assert words(state(events=[FIRST, SECOND]), state(events=[SECOND, THIRD])) == ["dealt: 2 clients"]


def test_each_round_is_told_once_in_the_servers_words() -> None:
    """Rounds that are complete since are told with their figures; what is no number is a dash."""
    rows = {column: [1, 2, 3] for column in HISTORY_COLUMNS} | {
        "seconds": [5.5, 4.96, 5.0],
        "clients": [3, 3, 2],
        "loss": [0.1, 0.05, None],
        "accuracy": [0.96, 0.98, None],
        "test_accuracy": [0.96, 0.98, 0.985],
    }
    changes = list(between(state(), state(history=rows, round=3)))
    assert [change.message for change in changes] == [
        "round 2/5: 5.0 s, 3 clients, loss 0.0500, accuracy 0.9800, test accuracy 0.9800",
        f"round 3/5: 5.0 s, 2 clients, loss {NONE}, accuracy {NONE}, test accuracy 0.9850",
    ]
    assert changes[1].facts == {"run": RUN, "round": 3, "event": "round"}


@pytest.mark.parametrize(
    ("phase", "reason", "line"),
    [
        ("completed", "", "completed in 1 min 15 s, test accuracy 0.9631"),
        ("completed", "it is good enough", "completed: it is good enough in 1 min 15 s, test accuracy 0.9631"),
        ("stopped", "stopped by a signal", "stopped: stopped by a signal"),
        ("failed", "the loss is nan", "failed: the loss is nan"),
        ("waiting", "", "too few clients: waiting for them to return"),
    ],
)
def test_how_it_ends_is_told_once(phase: str, reason: str, line: str) -> None:
    """The end, or a halt, is a line with its reason when it comes, and none afterwards."""
    after = state(phase=phase, reason=reason)
    changes = list(between(state(), after))
    assert [change.message for change in changes] == [line]
    assert changes[0].facts["event"] == phase
    assert words(after, after) == []
