"""Pictures of a run, each a PNG: how it learned, who trained when, what it confuses, what privacy was spent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from services.report.findings import Mistake
from services.report.timeline import ABSENT, STATES, Timeline
from services.tables import Round

mpl.use("Agg")

VALIDATION, TEST = "#0072b2", "#d55e00"
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008)."""


STATE_COLOURS = {
    "trained": "#4b93c4",
    "idle": "#c9d1d8",
    "late": "#e0a100",
    "gone": "#d4541a",
    "error": "#9b4f96",
    "refused": "#16202a",
    ABSENT: "#ffffff",
}
"""Of a client's states, in the order of `STATES`."""


def curves(rounds: Sequence[Round], best: int | None = None) -> bytes:
    """Draw loss and accuracy against the round, as a PNG.

    Args:
        rounds: of the run.
        best: the round whose model is kept, which is marked.
    """
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
        if best is not None and best in numbers:
            place = numbers.index(best)
            axes.plot(
                [best], [test[place]], "o", markersize=12, fillstyle="none", color="black", label=f"kept: round {best}"
            )
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


def clients(timeline: Timeline) -> bytes:
    """Draw who did what in which round, as a PNG: a column a round, a row a client.

    Args:
        timeline: of a round and a client at least.
    """
    states = list(STATES)
    columns, rows = timeline.columns, len(timeline.clients)
    cells = np.full((rows, columns), states.index(ABSENT))
    for row, client in enumerate(timeline.clients):
        for span in client.spans:
            state = span.state if span.state in states else "error"
            cells[row, span.first - 1 : span.last] = states.index(state)
    figure = Figure(figsize=(9, min(40, 1.5 + 0.22 * rows)), layout="constrained")
    axes = figure.subplots()
    palette = ListedColormap([STATE_COLOURS[state] for state in states])
    extent = (0.5, columns + 0.5, rows - 0.5, -0.5)
    axes.imshow(cells, palette, vmin=0, vmax=len(states) - 1, aspect="auto", interpolation="nearest", extent=extent)
    axes.set(xlabel="round")
    axes.set_autoscale_on(False)
    axes.set_yticks(range(rows), [client.name[:40] for client in timeline.clients], fontsize=8, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for row in range(1, rows):
        axes.axhline(row - 0.5, color="white", linewidth=1.5)
    for after, _ in timeline.dealt[1:]:
        axes.axvline(after + 0.5, color="black", linewidth=1, label="dealt anew")
    for after in timeline.resumed:
        axes.axvline(after + 0.5, color="black", linewidth=1, linestyle=":", label="server went on")
    if timeline.void:
        tried = sorted(timeline.tries)
        axes.plot(tried, [-0.66] * len(tried), "v", color="#b3261e", clip_on=False, markersize=5, label="did not count")
    there = np.unique(cells)
    patches = [
        Patch(fc=STATE_COLOURS[s], ec="#999999", label=w) for i, (s, w) in enumerate(STATES.items()) if i in there
    ]
    lines = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    figure.legend(handles=[*patches, *lines.values()], loc="outside lower center", ncols=4, fontsize="small")
    return _png(figure)


ACROSS = 8
"""Mistakes in a row of the picture."""


def mistakes(found: Sequence[Mistake], names: Sequence[str]) -> bytes:
    """Draw the worst mistakes, each with what it is and what it is taken for, as a PNG.

    Args:
        found: with a picture each, one at least.
        names: of the classes.
    """
    down = -(-len(found) // ACROSS)
    figure = Figure(figsize=(9, 1.45 * down))
    places = figure.subplots(
        down,
        ACROSS,
        squeeze=False,
        gridspec_kw={
            "left": 0.01,
            "right": 0.99,
            "bottom": 0.02,
            "top": 1 - 0.28 / down,
            "wspace": 0.08,
            "hspace": 0.42,
        },
    ).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, each in zip(places, found, strict=False):
        assert each.picture is not None  # noqa: S101 - the caller chose those
        pixels = matplotlib.image.imread(io.BytesIO(each.picture), format="png")
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        sure = "" if each.confidence is None else f"\n{each.confidence:.1%}"
        title = f"{_name(names, each.true)} → {_name(names, each.predicted)}{sure}"
        axes.set_title(title, fontsize=8, parse_math=False)
    return _png(figure)


def _name(names: Sequence[str], number: int) -> str:
    return names[number][:12] if number < len(names) else str(number)


def privacy(rounds: Sequence[Round], budget: float) -> bytes:
    """Draw the privacy spent against the round, and the budget, as a PNG."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    spent = [float("nan") if each.epsilon is None else each.epsilon for each in rounds]
    axes.plot([each.round for each in rounds], spent, marker="o", color=TEST, label="spent so far")
    axes.axhline(budget, color="#b3261e", linestyle="--", label="budget")
    axes.set(xlabel="round", title="epsilon", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
