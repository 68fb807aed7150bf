"""How states, times and figures are worded for people: on the page and in terminals."""

from __future__ import annotations

import datetime
import math

WORDS = {
    "gathering": "Waiting for clients",
    "preparing": "Preparing a round",
    "training": "Training",
    "evaluating": "Evaluating",
    "waiting": "Too few clients: waiting for them to return",
    "completed": "Completed",
    "stopped": "Stopped",
    "failed": "Failed",
}
"""Of each phase, and of how a run ended."""

OVER = ("completed", "stopped", "failed")
"""Phases after which nothing changes any more."""

NONE = "\N{EN DASH}"
"""In place of a figure that is not there."""


def number(value: float | None, digits: int = 4) -> str:
    """Write a figure; a dash where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def share(value: float | None, digits: int = 2) -> str:
    """Write a share in [0, 1] in per cent."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    """Write a whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def size(value: float) -> str:
    """Write a number of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} bytes"


def span(seconds: float | None, digits: int = 0) -> str:
    """Write a time as a person would: seconds, minutes, hours; fewer than ten seconds with so many digits."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.{digits}f} s" if seconds < 10 else f"{whole} s"  # noqa: PLR2004
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ago(seconds: float | None) -> str:
    """Write how long ago something was."""
    return NONE if seconds is None else "now" if seconds < 2 else f"{span(seconds)} ago"  # noqa: PLR2004


def clock(time: str) -> str:
    """Write the hour of a time in ISO 8601 as this machine's clock shows it."""
    return f"{datetime.datetime.fromisoformat(time).astimezone():%H:%M:%S}"


def printable(text: object) -> str:
    """Word what may come from a peer so that a terminal takes none of it for a command, on one line.

    What is no character to be seen, as the escape that begins a command (ECMA-48), the end of a line, or a mark that
    turns the direction of writing, is a blank instead.
    """
    return "".join(character if character.isprintable() else " " for character in str(text))
