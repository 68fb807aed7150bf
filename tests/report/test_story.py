"""How a run went, in sentences, whatever went wrong in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.report import facts, story, timeline
from services.tables import ClientRound, Event
from tests.report import made
from tests.report.made import event, row
from tests.test_docs import OPERATING, section, words


def happenings(
    folder: Path, events: Sequence[Event] = (), rows: Sequence[ClientRound] | None = None, rounds: int = 2
) -> list[str]:
    """Write a run and tell what happened in it."""
    history = [made.round_(number) for number in range(1, rounds + 1)]
    found = facts.read(made.write(folder / "run", history=history, events=events, rows=rows))
    return story.happenings(found, timeline.tell(found))


@pytest.mark.parametrize(
    ("changes", "done", "told"),
    [
        ({}, 2, "All 2 rounds are done."),
        ({"rounds_planned": 1}, 1, "Its one round is done."),
        (
            {"reason": "early stop at round 2: no better", "rounds_planned": 9},
            2,
            "It ended as planned after 2 of 9 rounds: early stop at round 2: no better.",
        ),
        (
            {"status": "stopped", "reason": "stopped by a signal"},
            1,
            (
                "It was stopped after 1 of 2 rounds: stopped by a signal. Started again with the same plan, the run"
                " goes on."
            ),
        ),
        ({"status": "failed", "reason": "a bug!"}, 0, "It failed after 0 of 2 rounds: a bug!"),
        (
            {"status": "running"},
            1,
            "1 of 2 rounds are done. The server was at work on it when this was written, or has died since.",
        ),
    ],
)
def test_how_it_ended_is_one_sentence(changes: dict[str, Any], done: int, told: str) -> None:
    """Each status is told with its reason, and how far the run came."""
    assert story.ending(facts.Summary.model_validate(made.SUMMARY | changes), done) == told


def test_a_run_without_trouble_says_so(tmp_path: Path) -> None:
    """Nobody dropped out, and nothing was done twice; of a run without a round that is not told."""
    events = [event(0, "joined", "client_0"), event(0, "dealt", "", "2 clients")]
    assert happenings(tmp_path, events) == [
        "No client dropped out of a round, and each round counted at the first try."
    ]
    assert happenings(tmp_path / "none", rounds=0) == []


def test_each_kind_of_trouble_is_told(tmp_path: Path) -> None:
    """Drop-outs, tries, restarts, deals and refusals are told by name and round, with their reasons."""
    events = [
        event(0, "dealt", "", "2 clients"),
        event(0, "refused", "client_2", "no space left"),
        event(1, "void", "", "1 of 2 clients finished it"),
        event(1, "void", "", "0 of 2 clients finished it"),
        event(1, "dropped", "client_0", "connection lost"),
        event(1, "resumed"),
        event(1, "dealt", "", "3 clients"),
        event(2, "spent", "client_0", "the privacy budget is spent"),
        event(3, "void", "", "0 of 3 clients finished it"),
    ]
    rows = [row(1, "client_0"), row(1, "client_1", "late", "no reply in 60 s"), row(2, "client_0"), row(2, "client_1")]
    assert happenings(tmp_path, events, rows) == [
        "client_2 could not take part from round 1 on: no space left.",
        "client_0 left the rounds from round 2 on: the privacy budget is spent.",
        "client_1 dropped out of 1 round: 1 (late, no reply in 60 s).",
        "client_0 trained in round 1, and was lost before it had evaluated (connection lost).",
        "Round 1 had to be run again, 2 times (0 of 2 clients finished it).",
        "Round 3 did not count (0 of 3 clients finished it).",
        "The server ended and was started again 1 time: after round 1.",
        "The data set was dealt anew: to 3 clients after round 1.",
    ]


def test_much_trouble_is_told_in_numbers(tmp_path: Path) -> None:
    """Where many drop out, or much is done again, the page still begins with a few lines."""
    rows = [row(1, f"client_{number}", "gone" if number < 5 else "late", "x") for number in range(8)]
    rows += [row(2, f"client_{number}", "gone", "x") for number in range(3)]
    events = [event(number, "void", "", "1 of 8") for number in range(1, 4)]
    events += [event(1, "resumed"), event(1, "resumed"), event(2, "resumed")]
    assert happenings(tmp_path, events, rows) == [
        (
            "8 clients dropped out of rounds, 11 times in all (gone 8, late 3); most often client_0 (2), client_1 (2),"
            " client_2 (2), client_3 (1)."
        ),
        "Round 1 had to be run again (1 of 8).",
        "Round 2 had to be run again (1 of 8).",
        "Round 3 did not count (1 of 8).",
        "The server ended and was started again 3 times: after round 1 (2 times), 2.",
    ]
    many = [event(1 + number // 2, "void" if number % 2 else "dropped", "client_0") for number in range(14)]
    again = happenings(tmp_path / "many", many, rounds=7)
    assert again[-1] == "So had 3 more rounds."


def test_every_event_has_its_words() -> None:
    """Each event that the documentation names is told in words."""
    documented = words(section(OPERATING, "Results").split("`events.csv` has")[1])
    assert set(story.EVENTS) == set(documented) - {"time", "round", "event", "client", "detail"}
