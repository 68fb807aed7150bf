"""How states, times and figures are worded for people: on the page and in terminals."""

from __future__ import annotations

import datetime

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
    return NONE if value is None or value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - NaN


def share(value: float | None) -> str:
    """Write a share in per cent."""
    return NONE if value is None else f"{100 * value:.2f} %"


def span(seconds: float | None) -> str:
    """Write a time as a person would: seconds, minutes, hours."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
