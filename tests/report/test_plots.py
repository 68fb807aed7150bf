"""Pictures of a run: they are PNGs, and they show the run's figures."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from services.report import plots
from services.report.findings import Mistake
from services.report.timeline import STATES, Attempt, Client, Span, Timeline
from services.tables import Round
from tests.report import made

ROUND = Round(1, 10.0, 7.5, 2.0, 2, 1, 0.25, 0.9, 0.2, 0.95, 1, 1, 2)
ROUNDS = [ROUND, dataclasses.replace(ROUND, round=2, loss=0.1, accuracy=0.97, test_loss=0.09, test_accuracy=0.98765)]
COUNTS = np.array([[8, 2], [0, 10]])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep each figure that is drawn."""
    drawn: list[Figure] = []
    draw = plots._png

    def keep(figure: Figure) -> bytes:
        drawn.append(figure)
        return draw(figure)

    monkeypatch.setattr(plots, "_png", keep)
    return drawn


def image(content: bytes) -> Any:
    """Decode a PNG into (height, width, 4)."""
    return matplotlib.image.imread(io.BytesIO(content), format="png")


def test_curves_show_each_round(figures: list[Figure]) -> None:
    """Accuracy and loss have both lines, by round, each named, and the last test accuracy is written out."""
    assert image(plots.curves(ROUNDS)).shape == (396, 990, 4)
    accuracy, loss = figures[0].axes
    assert (accuracy.get_title(), loss.get_title()) == ("accuracy", "loss")
    lines = [[np.asarray(line.get_ydata()).tolist() for line in axes.lines] for axes in (accuracy, loss)]
    assert lines == [[[0.9, 0.97], [0.95, 0.98765]], [[0.25, 0.1], [0.2, 0.09]]]
    assert all(np.asarray(line.get_xdata()).tolist() == [1, 2] for line in [*accuracy.lines, *loss.lines])
    legend = accuracy.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["clients' validation images", "held-out test images"]
    assert [text.get_text() for text in accuracy.texts] == ["0.9877"]


@pytest.mark.parametrize(
    "rounds", [[], ROUNDS[:1], [dataclasses.replace(ROUND, loss=float("nan"), accuracy=float("nan"))]]
)
def test_curves_bear_a_run_that_ended_early(rounds: list[Round]) -> None:
    """No round, a single one, and one that nobody evaluated are drawn too."""
    assert image(plots.curves(rounds)).shape == (396, 990, 4)


def test_confusion_shows_counts_and_mistakes(figures: list[Figure]) -> None:
    """Each count that is not zero stands in its cell, the title counts what is right, colours show mistakes."""
    assert image(plots.confusion(COUNTS)).shape == (594, 660, 4)
    axes = figures[0].axes[0]
    assert axes.get_title() == "18 of 20 test images right"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    cells = {(text.get_position()[::-1]): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (0, 1): "2", (1, 1): "10"}
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0, 2], [0, 0]])
    assert COUNTS[0, 0] == 8  # the counts themselves are left as they were


def test_confusion_bears_a_model_without_mistakes() -> None:
    """A model that is always right is drawn too."""
    assert image(plots.confusion(np.diag([3, 4]))).shape == (594, 660, 4)


def test_curves_mark_the_round_whose_model_is_kept(figures: list[Figure]) -> None:
    """A ring lies at the test figures of that round, and the legend says what it is."""
    plots.curves(ROUNDS, 1)
    accuracy, loss = figures[0].axes
    rings = [axes.lines[-1] for axes in (accuracy, loss)]
    assert [np.asarray(ring.get_xydata()).tolist() for ring in rings] == [[[1, 0.95]], [[1, 0.2]]]
    legend = accuracy.get_legend()
    assert legend is not None
    assert legend.get_texts()[-1].get_text() == "kept: round 1"


def test_the_timeline_has_a_cell_for_each_client_and_round(figures: list[Figure]) -> None:
    """Each cell has the number of its state, each row its client's name, and lines are where data were dealt anew."""
    states = list(STATES)
    spans = (Span(1, 2, "trained", ""), Span(3, 3, "gone", "x"), Span(4, 4, "of its own", "y"))
    clients = [
        Client(name, told, (), 0, 0, 0, 0, None, None, None, 0, 0, None, None)
        for name, told in (("a_$b$", spans), ("b", (Span(1, 4, "idle", ""),)))
    ]
    told = Timeline(4, tuple(clients), (Attempt(3, "", ()),), (), (2,), ((0, "2 clients"), (1, "3 clients")))
    assert image(plots.clients(told)).shape[1] == 990
    axes = figures[0].axes[0]
    cells = [[states[number] for number in line] for line in np.asarray(axes.images[0].get_array()).tolist()]
    assert cells == [["trained", "trained", "gone", "error"], ["idle"] * 4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a_$b$", "b"]
    named = {str(line.get_label()): np.asarray(line.get_xdata()).tolist() for line in axes.lines}
    assert named["dealt anew"] == [1.5, 1.5]
    assert named["server went on"] == [2.5, 2.5]
    assert named["did not count"] == [3]


@pytest.mark.parametrize("count", [1, 8, 9, 24])
def test_mistakes_are_shown_with_what_they_are(figures: list[Figure], count: int) -> None:
    """Each picture has its title: what it is, what it is taken for, and how surely."""
    plots.mistakes(made.wrong(count), ("cat", "$dog$"))
    titles = [axes.get_title() for axes in figures[0].axes if axes.images]
    assert titles == ["cat → $dog$\n80.0%"] * count


def test_mistakes_of_unknown_classes_are_shown_too(figures: list[Figure]) -> None:
    """Where there is no name there is a number, and no confidence where there is none."""
    picture = made.wrong(1)[0].picture
    plots.mistakes([Mistake(0, 3, 1, None, picture)], ("cat", "dog"))
    assert figures[0].axes[0].get_title() == "3 → dog"


def test_privacy_is_drawn_against_its_budget(figures: list[Figure]) -> None:
    """What was spent by round, a gap where it was not told, and the budget."""
    rounds = [dataclasses.replace(ROUND, epsilon=1.5), dataclasses.replace(ROUND, round=2)]
    assert image(plots.privacy(rounds, 3.0)).ndim == 3
    spent, budget = figures[0].axes[0].lines
    np.testing.assert_array_equal(np.asarray(spent.get_ydata()), [1.5, np.nan])
    assert np.asarray(budget.get_ydata()).tolist() == [3.0, 3.0]


def test_each_state_has_a_colour() -> None:
    """The picture knows the states that the timeline has, in their order."""
    assert list(plots.STATE_COLOURS) == list(STATES)
