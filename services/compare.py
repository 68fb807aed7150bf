"""`fed compare`: runs side by side, as a table of what differs and how they ended, and as curves drawn together."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import tables
from services.experiment.flat import flat, told
from services.paths import write_atomic
from services.runs import SUMMARY, find

PICTURE = "compare.png"

FIGURES = ("status", "clients", "rounds", "test_accuracy", "test_loss", "wall_s", "MB_sent", "MB_received")
"""Columns of the table beside a run's name and what differs between the plans."""


@dataclass(frozen=True)
class Run:
    """One run, as its folder tells of it.

    Attributes:
        name: its id.
        summary: what `summary.json` holds.
        history: each column of `history.csv`, a number a round; NaN where a cell is empty.
    """

    name: str
    summary: Mapping[str, Any]
    history: Mapping[str, Sequence[float]]

    @property
    def settings(self) -> dict[str, str]:
        """The values of its plan, by dotted key, as a person would write them."""
        return {key: told(value) for key, value in flat(self.summary.get("experiment") or {})}

    @property
    def figures(self) -> dict[str, str]:
        """How it ended; empty where it did not come to that."""

        def megabytes(column: str) -> str:
            return f"{sum(self.history.get(column, ())) / 1e6:.1f}"

        def number(key: str, form: str) -> str:
            value = self.summary.get(key)
            return "" if value is None else format(value, form)

        return {
            "status": str(self.summary.get("status", "")),
            "clients": number("clients", "d"),
            "rounds": number("rounds", "d"),
            "test_accuracy": number("test_accuracy", ".4f"),
            "test_loss": number("test_loss", ".4f"),
            "wall_s": number("wall_s", ".0f"),
            "MB_sent": megabytes("bytes_sent"),
            "MB_received": megabytes("bytes_received"),
        }


def run(words: Sequence[str], results: Path, output: Path) -> str:
    """Compare runs: write their curves to `output`, and give the table.

    Args:
        words: runs, as an id, a folder or `latest`; or sweeps, as a name or a folder.
        results: folder of the runs that are named by their id.
        output: PNG to write.

    Raises:
        UsageError: a word names no run and no sweep.
        DataError: what a run's folder holds can't be read.
        StorageError: `output` can't be written.
    """
    folders = dict.fromkeys(folder for word in words for folder in find(word, results))
    runs = [read(folder) for folder in folders]
    write_atomic(output, draw(runs))
    return table(runs)


def read(folder: Path) -> Run:
    """Read one run.

    Raises:
        DataError: a file is missing or damaged; a run without a complete round has no history, which is no damage.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        path = folder / tables.HISTORY
        rows = tables.read(path)
        columns = rows[0] if rows else {}
        history = {column: [float(row[column] or "nan") for row in rows] for column in columns}
        return Run(folder.name, dict(summary), history)
    except (OSError, ValueError, TypeError) as exc:
        raise tables.damaged(path, exc) from None


def differing(runs: Sequence[Run]) -> list[str]:
    """List the keys in which the plans differ, in their order."""
    keys = dict.fromkeys(key for each in runs for key in each.settings)
    return [key for key in keys if len({each.settings.get(key) for each in runs}) > 1]


def table(runs: Sequence[Run]) -> str:
    """Give a table of text: a line a run, with what differs between their plans and how each ended."""
    keys = differing(runs)
    rows = [["run", *_shortest(keys), *FIGURES]]
    for each in runs:
        settings, figures = each.settings, each.figures
        rows.append([each.name, *(settings.get(key, "") for key in keys), *(figures[name] for name in FIGURES)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = 1 + len(keys)  # texts stand at the left, and so does the status; numbers at the right
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if number <= words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def draw(runs: Sequence[Run]) -> bytes:
    """Draw accuracy and loss on the test images against the round, a line a run, as a PNG."""
    buffer = io.BytesIO()
    figure(runs).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def figure(runs: Sequence[Run]) -> Any:
    """Make the figure of `draw`."""
    # takes half a second, and a mistake in a run's name is told before
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    keys = differing(runs)
    short = dict(zip(keys, _shortest(keys), strict=True))
    made = Figure(figsize=(10, 4 + 0.2 * len(runs)), layout="constrained")
    FigureCanvasAgg(made)
    both = made.subplots(1, 2)
    for axes, column, title in zip(both, ("test_accuracy", "test_loss"), ("test accuracy", "test loss"), strict=True):
        for number, each in enumerate(runs):
            told = ", ".join(f"{short[key]}={each.settings[key]}" for key in keys if key in each.settings)
            # few lines differ by colour, many by their place in a scale
            colour = colormaps["tab10"](number) if len(runs) <= 10 else colormaps["viridis"](number / (len(runs) - 1))  # noqa: PLR2004 - colours of tab10
            rounds = each.history.get("round", ())
            points = [(x, y) for x, y in zip(rounds, each.history.get(column, ()), strict=False) if math.isfinite(y)]
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()), marker=".", color=colour, label=told or each.name
            )
        axes.set(xlabel="round", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, labels = both[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", fontsize="small")
    return made


def _shortest(keys: Sequence[str]) -> list[str]:
    """Shorten each key to as many of its last parts as tell it from the others."""
    shortened = []
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        unique = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in keys) == 1)
        shortened.append(next(unique, key))
    return shortened
