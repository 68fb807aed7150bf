"""What has changed between two states of a run, as plain lines: for a pipe, or a file.

The words are those of the server's own log and of `events.csv`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.terminal.picture import State, happened
from services.wording import OVER, WORDS, number, span


@dataclass(frozen=True)
class Change:
    """One thing that happened.

    Attributes:
        message: for a person.
        facts: run, round, client and event, as far as they are known.
        time: seconds since the epoch, or None for just now.
    """

    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: float | None = None


def summary(state: State) -> Change:
    """Tell of a run as it is found."""
    done, planned, there = len(state["history"]["round"]), state["rounds_planned"], len(state["clients"])
    words = f"run {state['run_id']}: {_phase(state)}, {done} of {planned} rounds done"
    words += f", {there} of {state['clients_wanted']} clients, {span(state['seconds'])}"
    if done:
        words += f", test accuracy {number(state['test_accuracy'])}"
    return Change(words, {"run": state["run_id"], "round": state["round"]})


def between(before: State, after: State) -> Iterator[Change]:
    """Tell what happened from one state of a run to the next: events, rounds, then its end."""
    for row in _new(before["events"], after["events"]):
        time, round_, event, client, _ = row
        facts = {"run": after["run_id"], "round": round_, "event": event, "client": client or None}
        yield Change(happened(row), facts, datetime.datetime.fromisoformat(time).timestamp())
    history = after["history"]
    known = before["history"]["round"]
    for place, round_ in enumerate(history["round"]):
        if not known or round_ > known[-1]:
            words = (
                f"round {round_}/{after['rounds_planned']}: {history['seconds'][place]:.1f} s,"
                f" {history['clients'][place]} clients, loss {number(history['loss'][place])},"
                f" accuracy {number(history['accuracy'][place])},"
                f" test accuracy {number(history['test_accuracy'][place])}"
            )
            yield Change(words, {"run": after["run_id"], "round": round_, "event": "round"})
    if after["phase"] != before["phase"] and after["phase"] in {*OVER, "waiting"}:
        words = _phase(after) + (f": {after['reason']}" if after["reason"] else "")
        if after["phase"] == "completed":
            words += f" in {span(after['seconds'])}, test accuracy {number(after['test_accuracy'])}"
        facts = {"run": after["run_id"], "round": after["round"], "event": after["phase"]}
        yield Change(words, facts)


def _phase(state: State) -> str:
    words: str = WORDS.get(state["phase"]) or state["phase"]
    return words[:1].lower() + words[1:]


def _new(before: Sequence[Any], after: Sequence[Any]) -> Sequence[Any]:
    """Give the events that are new; a server that was started anew tells of its own alone."""
    for place in range(len(after), 0, -1):
        if before and after[place - 1] == before[-1]:
            return after[place:]
    return after
