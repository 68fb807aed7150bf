"""Line charts: where values come to lie, and which of them can't."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.report import chart
from services.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Line


def draw(*values: float | None, **more: object) -> Chart:
    """Draw one line."""
    made = chart.draw("Loss", "it falls", [Line("line", "test", values)], **more)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_values_lie_between_their_ticks() -> None:
    """The first round is at the left, the last at the right; a value lies where the ticks say that it does."""
    made = draw(0.0, 0.5, 1.0)
    (line,) = made.lines
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    assert line.dots == ((left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top))
    assert line.path == f"M{left},{bottom} {(left + right) / 2:g},{(top + bottom) / 2:g} {right},{top}"
    assert [tick.label for tick in made.y] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert (made.y[0].at, made.y[-1].at) == (bottom, top)
    assert [tick.label for tick in made.x] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.9593, 0.9888, ["0.955", "0.960", "0.965", "0.970", "0.975", "0.980", "0.985", "0.990"]),
        (0.03, 0.15, ["0.02", "0.04", "0.06", "0.08", "0.10", "0.12", "0.14", "0.16"]),
        (3.0, 3.0, ["3.0", "3.1"]),
        (0.0, 0.0, ["0.0", "0.2"]),
        (-1.0, 2.0, ["-1.0", "-0.5", "0.0", "0.5", "1.0", "1.5", "2.0"]),
        (1.0, 4.2e7, ["0.0", "1e+07", "2e+07", "3e+07", "4e+07", "5e+07"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, labels: list[str]) -> None:
    """Whatever the range, a few round numbers hold it."""
    found = [tick.label for tick in draw(low, high).y]
    assert [float(label) for label in found] == [float(label) for label in labels]


def test_what_is_no_number_leaves_a_gap() -> None:
    """Rounds that nobody evaluated part the line; a value between two gaps is a dot, in a long run too."""
    made = draw(1.0, math.nan, 2.0, None, math.inf, 3.0, 2.5)
    assert made.lines[0].path.count("M") == 3
    assert len(made.lines[0].dots) == 4
    long = draw(*[1.0] * 70, math.nan, 2.0, math.nan, *[1.5] * 5)
    assert len(long.lines[0].dots) == 1
    assert chart.draw("Loss", "", [Line("line", "test", [math.nan, None, 1e300])]) is None
    assert chart.draw("Loss", "", []) is None


VALUES = st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=12)


@given(VALUES, VALUES, st.integers(0, 20))
def test_every_point_lies_within_the_drawing(one: list[float | None], other: list[float | None], planned: int) -> None:
    """Whatever the values are, each finite one is drawn, inside the edges, on an axis of all planned rounds."""
    made = chart.draw("Loss", "", [Line("a", "validation", one), Line("b", "test", other)], rounds=planned)
    finite = [[value for value in line if value is not None and math.isfinite(value)] for line in (one, other)]
    if made is None:
        assert finite == [[], []]
        return
    for line, values in zip(made.lines, finite, strict=True):
        points = [tuple(map(float, pair.split(","))) for pair in line.path.replace("M", " ").split()]
        assert len(points) == len(values)
        assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in points)
    assert int(made.x[-1].label) <= max(len(one), len(other), planned)


def test_rounds_to_come_have_their_place() -> None:
    """With more rounds planned than done, the line ends before the right edge."""
    made = draw(0.5, 0.25, rounds=5)
    assert [tick.label for tick in made.x] == ["1", "2", "3", "4", "5"]
    assert made.lines[0].dots[-1][0] == made.x[1].at


def test_a_single_round_is_a_dot_in_the_middle() -> None:
    """A run of one round is drawn too."""
    made = draw(0.5)
    assert made.lines[0].dots[0][0] == (LEFT + WIDTH - RIGHT) / 2
    assert [tick.label for tick in made.x] == ["1"]


def test_marks_lie_at_their_rounds() -> None:
    """What did not count is marked at its round, a restart between two, once; what is of no round is left out."""
    made = draw(1.0, 2.0, 3.0, best=(2, 2.0), level=3.0, void=[2, 4], resumed=[1, 1, 3])
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert made.best == made.lines[0].dots[1]
    assert made.level == TOP
    assert made.void == (middle,)
    assert made.resumed == ((LEFT + middle) / 2,)
    assert draw(1.0, best=(2, 1.0)).best is None
    assert draw(1.0, best=(1, math.nan)).best is None


@pytest.mark.parametrize(
    ("rounds", "numbers"),
    [
        (10, list(range(1, 11))),
        (12, [1, 3, 5, 7, 9, 11]),
        (30, [1, 5, 10, 15, 20, 25, 30]),
        (300, [1, 50, 100, 150, 200, 250, 300]),
    ],
)
def test_long_runs_have_few_numbers_at_the_axis(rounds: int, numbers: list[int]) -> None:
    """Each round has its number while there is room, else round numbers have."""
    assert [tick.label for tick in draw(*[1.0, 2.0] * (rounds // 2)).x] == [str(number) for number in numbers]
