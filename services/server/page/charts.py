"""Line charts as SVG, small enough to be drawn anew each second; colours and fonts are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 240
"""Of the drawing, in its own units; it scales with the page."""

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 30
"""Room around the lines for the numbers at the axes."""

TICKS = 5
"""Numbers at an axis, about."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: of the class in the style sheet.
        label: what it shows.
        values: one a round, from the first; NaN and None are gaps.
    """

    name: str
    label: str
    values: Sequence[float | None]

    def points(self) -> list[tuple[int, float]]:
        """List round and value where there is one."""
        pairs = enumerate(self.values, start=1)
        return [(number, value) for number, value in pairs if value is not None and math.isfinite(value)]


def chart(title: str, lines: Sequence[Line], rounds: int) -> Markup:
    """Draw lines against the round.

    Args:
        title: what a screen reader says of it; with the last value of each line.
        lines: what to draw; none of them may have a point yet.
        rounds: that the axis is made for, >= 1.
    """
    found = [value for line in lines for _, value in line.points()]
    steps = ticks(min(found), max(found)) if found else [0.0, 1.0]
    low, high = min([steps[0], *found]), max([steps[-1], *found])

    def x(number: float) -> float:
        return LEFT + (number - 1) / max(1, rounds - 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    grid = '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/><text x="{}" y="{:.1f}">{:.4g}</text>'
    parts = [
        Markup(grid).format(LEFT, WIDTH - RIGHT, LEFT - 6, y(step) + 4, step, y=y(step))  # noqa: S704 - a literal
        for step in steps
    ]
    whole = sorted({round(step) for step in ticks(1, max(2, rounds)) if 1 <= round(step) <= rounds} | {1, rounds})
    parts += [
        Markup('<text class="round" x="{:.1f}" y="{}">{}</text>').format(x(number), HEIGHT - 8, number)
        for number in whole
    ]
    if not found:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(Markup('<text class="none" x="{}" y="{}">no round yet</text>').format(middle, HEIGHT / 2))
    for line in lines:
        points = line.points()
        if len(points) == 1:
            parts.append(
                Markup('<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                    line.name, x(points[0][0]), y(points[0][1])
                )
            )
        drawn = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in points)
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(line.name, drawn))
    told = "; ".join(f"{line.label} {line.points()[-1][1]:.4f}" for line in lines if line.points()) or "no round yet"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg>').format(
        WIDTH, HEIGHT, title, told, Markup("").join(parts)
    )


def ticks(low: float, high: float) -> list[float]:
    """Choose round numbers, about `TICKS` of them, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / (TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.15g}") for number in range(first, max(last, first + 1) + 1)]
