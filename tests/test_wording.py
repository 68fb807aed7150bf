"""How states, times and figures are worded, and that a terminal obeys nothing of what a peer says."""

from __future__ import annotations

import pytest

from services.wording import NONE, ago, count, number, printable, share, size, span


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (number(None), NONE),
        (number(float("nan")), NONE),
        (number(0.12345), "0.1235"),
        (share(0.98765), "98.77 %"),
        (share(float("inf")), NONE),
        (share(0.98765, 1), "98.8 %"),
        (count(None), NONE),
        (count(60_000), "60,000"),
        (size(0), "0 bytes"),
        (size(999), "999 bytes"),
        (size(1000), "1.0 kB"),
        (size(1_500_000), "1.5 MB"),
        (size(7e9), "7.0 GB"),
        (size(2_500_000_000_000), "2500.0 GB"),
        (span(None), NONE),
        (span(3.4), "3 s"),
        (span(0.04, 1), "0.0 s"),
        (span(9.94, 1), "9.9 s"),
        (span(33.6, 1), "34 s"),
        (span(59.4), "59 s"),
        (span(60.2), "1 min 0 s"),
        (span(61), "1 min 1 s"),
        (span(7260), "2 h 1 min"),
        (ago(None), NONE),
        (ago(1), "now"),
        (ago(90), "1 min 30 s ago"),
    ],
)
def test_figures_are_written_as_a_person_would(found: str, words: str) -> None:
    """Shares, sizes and times have units, and what is not there is a dash."""
    assert found == words


@pytest.mark.parametrize(
    "character",
    ["\x1b", "\x07", "\r", "\n", "\t", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\u200b", "\x00", "\ud800"],
    ids=ascii,
)
def test_no_command_to_a_terminal_is_printable(character: str) -> None:
    """What begins a command, ends a line or turns the direction of writing is a blank; letters of all scripts stay."""
    assert printable(f"клиент_0{character}[31m 客户") == "клиент_0 [31m 客户"
    assert printable(3) == "3"
