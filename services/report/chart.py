"""Line charts as coordinates: what a template needs to draw them in SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
"""Pixels of a chart, and of its margins."""

MOST = 1e100
"""Larger numbers leave a gap, as those do that are none; nobody learns from them."""

MOST_DOTS = 60
"""Rounds of which each has a dot; more would run into one another."""


@dataclass(frozen=True)
class Line:
    """What is to be drawn.

    Attributes:
        name: in the legend.
        style: class in the style sheet.
        values: a number a round, from round 1 on; None, or a number that is not finite, leaves a gap.
    """

    name: str
    style: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Drawn:
    """A line in coordinates.

    Attributes:
        name, style: of the line.
        path: of SVG.
        dots: (x, y) of each value that is to be seen by itself.
    """

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything in coordinates.

    Attributes:
        title: what is shown.
        told: the same in a sentence, for those who don't see it.
        lines: to draw.
        x, y: ticks.
        best: (x, y) of the round that is marked, or None.
        level: y of a line across, or None.
        void, resumed: x of rounds that did not count at first, and of places where the server went on.
    """

    title: str
    told: str
    lines: tuple[Drawn, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    best: tuple[float, float] | None
    level: float | None
    void: tuple[float, ...]
    resumed: tuple[float, ...]


def draw(
    title: str,
    told: str,
    lines: Sequence[Line],
    *,
    rounds: int = 0,
    best: tuple[int, float | None] | None = None,
    level: float | None = None,
    void: Sequence[int] = (),
    resumed: Sequence[int] = (),
) -> Chart | None:
    """Lay out a chart; None where there is no value to show.

    Args:
        title: what is shown.
        told: the same in a sentence.
        lines: to draw.
        rounds: that the axis is made for, where there may be more to come.
        best: a round, and the value at which it is marked.
        level: a value to draw a line across at.
        void: rounds that are marked.
        resumed: rounds after which a line is drawn.
    """
    values = [value for line in lines for value in line.values if _is_number(value)]
    if not values:
        return None
    rounds = max(rounds, *(len(line.values) for line in lines))
    low, high, step = _range(min(values), max([*values, *([level] if level is not None else [])]))

    def x(number: float) -> float:
        share = 0.5 if rounds == 1 else (number - 1) / (rounds - 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    drawn = []
    for line in lines:
        runs: list[list[tuple[float, float]]] = [[]]
        for number, value in enumerate(line.values, 1):
            if _is_number(value):
                runs[-1].append((x(number), y(value)))
            elif runs[-1]:
                runs.append([])
        path = "".join(f"M{' '.join(f'{a:g},{b:g}' for a, b in run)}" for run in runs if run)
        alone = [run[0] for run in runs if len(run) == 1]
        dots = [point for run in runs for point in run] if rounds <= MOST_DOTS else alone
        drawn.append(Drawn(line.name, line.style, path, tuple(dots)))
    count = round((high - low) / step)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Chart(
        title=title,
        told=told,
        lines=tuple(drawn),
        x=tuple(Tick(x(number), f"{number}") for number in _numbers(rounds)),
        y=tuple(Tick(y(at), _written(at, digits)) for at in (low + index * step for index in range(count + 1))),
        best=(x(best[0]), y(best[1])) if best and 1 <= best[0] <= rounds and _is_number(best[1]) else None,
        level=None if level is None else y(level),
        void=tuple(x(number) for number in void if 1 <= number <= rounds),
        resumed=tuple(x(number + 0.5) for number in dict.fromkeys(resumed) if 1 <= number < rounds),
    )


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < MOST  # so NaN is none


def _written(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if digits < 7 and abs(value) < 1e6 else f"{value:.2g}"  # noqa: PLR2004 - no longer


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Widen a range to whole steps of 1, 2 or 5 times a power of ten, about five of them."""
    spread = high - low or abs(high) * 0.1 or 1.0
    magnitude = 10.0 ** math.floor(math.log10(spread / 5))
    step = next(magnitude * factor for factor in (1, 2, 5, 10, 20) if spread / (magnitude * factor) <= 6)  # noqa: PLR2004 - ticks
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return bottom, top if top > bottom else bottom + step, step


def _numbers(rounds: int) -> list[int]:
    """Choose rounds to write at the axis: the first, and round numbers, about six."""
    step = max(1, round(_range(0, rounds)[2])) if rounds > 10 else 1  # noqa: PLR2004 - so many have room
    return ticks(rounds, step)


def ticks(last: int, step: int) -> list[int]:
    """List the numbers that are written at an axis from 1 to `last`: the first, and each multiple that has room."""
    return list(range(1, last + 1, step)) if step <= 2 else [1, *range(step, last + 1, step)]  # noqa: PLR2004 - 2 touches 1
