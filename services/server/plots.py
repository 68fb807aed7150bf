"""Pictures of a run: how it learned, and what it confuses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from services.tables import Round

mpl.use("Agg")

VALIDATION, TEST = "#0072b2", "#d55e00"
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008)."""


def curves(rounds: Sequence[Round]) -> bytes:
    """Draw loss and accuracy against the round, as a PNG."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    numbers = [round_.round for round_ in rounds]
    for axes, title, validation, test in (
        (accuracy, "accuracy", [r.accuracy for r in rounds], [r.test_accuracy for r in rounds]),
        (loss, "loss", [r.loss for r in rounds], [r.test_loss for r in rounds]),
    ):
        axes.plot(numbers, validation, marker="o", color=VALIDATION, label="clients' validation images")
        axes.plot(numbers, test, marker="s", linestyle="--", color=TEST, label="held-out test images")
        axes.set(xlabel="round", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    accuracy.legend(loc="lower right")
    if rounds:
        accuracy.annotate(
            f"{rounds[-1].test_accuracy:.4f}",
            (numbers[-1], rounds[-1].test_accuracy),
            textcoords="offset points",
            xytext=(-8, 2),
            ha="right",
            color=TEST,
        )
    return _png(figure)


MOST_COUNTED = 20
"""More classes than this have cells too small for a number, and no room for every name."""


def confusion(counts: NDArray[np.int64], names: Sequence[str] = ()) -> bytes:
    """Draw a confusion matrix, as a PNG; the diagonal is left pale so that mistakes stand out.

    Args:
        counts: (classes, classes); row: true class, column: predicted one.
        names: of the classes; none stands for their numbers.
    """
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    mistakes = counts.astype(float)
    np.fill_diagonal(mistakes, 0)
    image = axes.imshow(mistakes, cmap="Oranges")
    figure.colorbar(image, ax=axes, label="mistakes")
    classes = range(len(counts))
    axes.set(xlabel="predicted", ylabel="true")
    if len(counts) <= MOST_COUNTED:
        labels = list(names or map(str, classes))
        axes.set_xticks(list(classes), labels, rotation=90 if max(map(len, labels)) > 2 else 0)  # noqa: PLR2004 - digits
        axes.set_yticks(list(classes), labels)
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} test images right")
    for row in classes:
        for column in classes:
            if counts[row, column] and len(counts) <= MOST_COUNTED:
                dark = mistakes[row, column] > mistakes.max() * 0.6
                colour = "white" if dark else ("grey" if row == column else "black")
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
