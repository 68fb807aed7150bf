"""Charts: what is drawn where, whatever the values are."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.server.page.charts import HEIGHT, WIDTH, Line, chart, ticks

VALUES = st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=12)


@given(VALUES, VALUES, st.integers(1, 20))
def test_every_point_lies_within_the_drawing(one: list[float | None], other: list[float | None], more: int) -> None:
    """Whatever the values are, the chart is well-formed, and has each finite one, inside its edges."""
    rounds = max(len(one), len(other), more)
    drawn = chart("Loss", [Line("valid", "theirs", one), Line("test", "ours", other)], rounds)
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    for line, found in zip((one, other), root.findall("polyline"), strict=True):
        points = [tuple(map(float, pair.split(","))) for pair in found.attrib["points"].split()]
        assert len(points) == sum(value is not None and math.isfinite(value) for value in line)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_a_screen_reader_is_told_the_last_values() -> None:
    """The label has the title and each line's last value; markup in a title is text."""
    drawn = chart("<Loss>", [Line("valid", "theirs", [0.5, 0.25, None]), Line("test", "ours", [])], 3)
    assert 'aria-label="&lt;Loss&gt;: theirs 0.2500"' in drawn


def test_before_the_first_round_the_chart_says_so() -> None:
    """A chart without a point says that there is no round yet."""
    drawn = chart("Loss", [Line("valid", "theirs", [])], 5)
    assert re.search(r'aria-label="Loss: no round yet"', drawn)
    assert ">no round yet</text>" in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.95, 0.99, [0.95, 0.96, 0.97, 0.98, 0.99]),
        (0, 1, [0, 0.25, 0.5, 0.75, 1.0]),
        (1, 6, [0, 2, 4, 6]),
        (0.5, 0.5, [0.4, 0.6]),
        (0, 0, [0, 0.25]),
    ],
)
def test_numbers_at_an_axis_are_round(low: float, high: float, expected: list[float]) -> None:
    """They are a few multiples of 1, 2, 2.5 or 5 that enclose the values."""
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert found[: len(expected)] == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e9))
def test_there_are_never_many_numbers_at_an_axis(low: float, span: float) -> None:
    """Any two values are enclosed, but for what the eye can't see, by at most a handful of numbers."""
    found = ticks(low, low + span)
    assert len(found) <= 7
    assert found[0] <= low + span * 1e-6
    assert found[-1] >= low + span * (1 - 1e-6)
