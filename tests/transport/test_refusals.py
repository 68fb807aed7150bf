"""Refusals: each peer once, then a count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.transport import refusals
from services.transport.refusals import Refusals, one_line


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the log lines so far."""
    return [record.getMessage() for record in caplog.records]


def test_the_first_of_each_peer_and_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A peer is named once for each reason, and every refusal is counted."""
    book = Refusals(clock=lambda: 0.0)
    for peer, reason in [("a", "x"), ("a", "y"), ("b", "x")]:
        book.note(peer, reason)
    assert lines(caplog) == ["refused a: x", "refused a: y", "refused b: x"]
    assert book.totals == {"x": 2, "y": 1}


def test_repeated_ones_are_told_as_a_number_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A flood is one line a minute, and the rest is told at the end."""
    now = 0.0
    book = Refusals(clock=lambda: now)
    for second in range(1, 121):
        now = float(second)
        book.note("a", "x")
    assert lines(caplog) == ["refused a: x", "refused 61 more times: x"]
    book.tell()
    assert lines(caplog)[2:] == ["refused 58 more times: x"]
    assert book.totals == {"x": 120}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million peers do not take a million entries."""
    monkeypatch.setattr(refusals, "MOST_PEERS", 10)
    book = Refusals()
    for number in range(100):
        book.note(str(number), "x")
    assert len(book._known) == 10
    assert book.totals == {"x": 100}


@given(st.text())
def test_any_text_becomes_one_short_line(text: str) -> None:
    """What a peer sent can't begin a new log line, nor fill one."""
    line = one_line(text)
    assert len(line) <= 120
    assert line.isprintable()
