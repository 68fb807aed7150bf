"""Pictures of a run: they are PNGs, and they show the run's figures."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from services.server import plots
from services.tables import Round

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
