"""A few thousand changed messages of each kind, the same each time; `python -m tests.fuzz` goes on for longer."""

from __future__ import annotations

import random

import pytest
from declearn.communication.api.backend.actions import ActionMessage

from tests import fuzz

CASES = {"request": 2000, "hub": 1000, "reply": 8000, "sealed": 1500, "answer": 3000, "order": 1500}


def test_each_reader_is_tried() -> None:
    """No target is left out here."""
    assert CASES.keys() == fuzz.targets().keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", CASES)
def test_no_message_does_what_it_should_not(target: str) -> None:
    """What reads messages of peers raises but its own error, and lets pass only what can be reckoned with."""
    outcome = fuzz.fuzz(2026, cases=CASES[target], only=[target])
    assert outcome.found == []
    assert outcome.cases == {target: CASES[target]}


def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises, as upstream's would, is found out, with the bytes that show it."""
    monkeypatch.setattr(fuzz, "read_answer", ActionMessage.deserialize)
    (first, *_) = fuzz.fuzz(0, cases=200, only=["answer"]).found
    assert first.startswith("answer ")
    assert "Traceback" in first


def test_changes_are_drawn_by_their_seed() -> None:
    """The same seed changes a message in the same way, another one in another way."""
    content = fuzz.REPLIES[0].serialize()
    drawn = [fuzz.changed(content, [content], random.Random(seed)) for seed in (1, 1, 2)]  # noqa: S311 - chance
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]
