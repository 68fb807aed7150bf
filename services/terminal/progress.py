"""How far work of some seconds is: a bar on a terminal, which goes when the work is done; nothing anywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.terminal import live

T = TypeVar("T")


def counted(items: Collection[T], words: str) -> Iterator[T]:
    """Yield `items`, and show meanwhile how many of them are done.

    Args:
        items: to be worked on, one after another.
        words: what is done with them.
    """
    with live.board() as board:
        if board is None:
            yield from items
            return
        bar = Progress(TextColumn(words, markup=False), BarColumn(), MofNCompleteColumn())
        task = bar.add_task("", total=len(items))
        board.show(bar)
        for item in items:
            yield item
            bar.advance(task)


@contextlib.contextmanager
def working(words: str) -> Iterator[None]:
    """Show that work of unknown length goes on.

    Args:
        words: what is done.
    """
    with live.board() as board:
        if board is not None:
            bar = Progress(TextColumn(words, markup=False), BarColumn())
            bar.add_task("", total=None)
            board.show(bar)
        yield
