"""Refusals: each peer once, then a count."""

from __future__ import annotations

import tracemalloc

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


def test_many_addresses_get_no_more_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with a new address each time fills no log: so many are named a minute, the others are a number."""
    monkeypatch.setattr(refusals, "MOST_LINES", 3)
    now = 0.0
    book = Refusals(clock=lambda: now)
    for number in range(10):
        book.note(str(number), "x")
    now = 61.0
    book.note("10", "x")
    book.tell()
    assert lines(caplog) == [f"refused {number}: x" for number in (0, 1, 2, 10)] + ["refused 7 more times: x"]
    assert book.totals == {"x": 11}


def test_megabytes_are_cut_before_they_are_looked_at() -> None:
    """Wording a message of megabytes takes no more memory than its beginning does."""
    text = "\u4e2d" * 4_000_000
    tracemalloc.start()
    line = one_line(text)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert line == "\u4e2d" * 119 + "…"


@given(st.text())
def test_any_text_becomes_one_short_line(text: str) -> None:
    """What a peer sent can't begin a new log line, nor fill one."""
    line = one_line(text)
    assert len(line) <= 120
    assert line.isprintable()
