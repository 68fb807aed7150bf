"""`fed report`, and what the server does at the end of each run: the page and its pictures, from a run's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from services import distribution, runs
from services.paths import write_atomic
from services.report import facts, page, timeline
from services.report.facts import Facts
from services.report.timeline import Timeline

CURVES, CONFUSION, CLIENTS, MISTAKES, PRIVACY = (
    "curves.png",
    "confusion.png",
    "clients.png",
    "mistakes.png",
    "privacy.png",
)


def run(word: str, results: Path, output: Path | None) -> Path:
    """Make the report of a run.

    Args:
        word: its id or folder, or `latest`.
        results: folder of the runs that are named by their id.
        output: folder that receives page and pictures; None for the run's own.

    Returns:
        The page.

    Raises:
        UsageError: the word is no run, or a sweep of several.
        DataError: a file of the run is missing or damaged.
        StorageError: the folder can't be written.
    """
    return write(runs.find_one(word, results), output)


def write(folder: Path, output: Path | None = None) -> Path:
    """Write page and pictures of the run in `folder`; the same files give the same page, to the last byte.

    Args:
        folder: of the run.
        output: folder that receives them; None for the run's own.

    Raises:
        DataError: a file of the run is missing or damaged.
        StorageError: the folder can't be written.
    """
    output = output or folder
    found = facts.read(folder)
    told = timeline.tell(found)
    pictures = dict(_pictures(found, told))
    text = page.render(found, told, pictures)
    for name, content in pictures.items():
        write_atomic(output / name, content)
    write_atomic(output / page.FILE, text)
    return output / page.FILE


def _pictures(found: Facts, told: Timeline) -> Iterator[tuple[str, bytes]]:
    """Draw each picture that there is something to show in."""
    from services.report import plots  # noqa: PLC0415 - takes half a second, and a damaged file is told before

    rounds, summary = found.rounds, found.summary
    names = max([summary.classes, () if found.confusion is None else tuple(found.confusion[1])], key=len)
    shown = [each for each in found.mistakes if each.picture is not None]
    seats = found.deals.get(rounds[-1].size, ()) if rounds else ()
    drawers: list[tuple[str, bool, Callable[[], bytes]]] = [
        (CURVES, bool(rounds), lambda: plots.curves(rounds, summary.model_round)),
        (CLIENTS, bool(told.columns and told.clients), lambda: plots.clients(told)),
        (distribution.FILE, bool(seats), lambda: distribution.draw(seats, found.deal_classes)),
        (CONFUSION, found.confusion is not None, lambda: plots.confusion(*found.confusion)),  # type: ignore[misc]
        (MISTAKES, bool(shown), lambda: plots.mistakes(shown, names)),
        (PRIVACY, bool(rounds and summary.privacy), lambda: plots.privacy(rounds, summary.privacy.epsilon)),  # type: ignore[union-attr]
    ]
    for name, wanted, draw in drawers:
        if wanted:
            yield name, draw()
