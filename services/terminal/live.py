"""A view at the foot of a terminal that is drawn again as things go on, with lines above it.

Lines are those of the log, of child processes, and what libraries write to descriptors 1 and 2 without asking anybody:
none of them can break the view. Where a view can't be drawn (a pipe, a file, `TERM=dumb`, `TTY_INTERACTIVE=0`, lines
for programs), there is none, and everything is written as it always is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.text import Text

from services import logs
from services.wording import printable

PERIOD = 0.25
"""Seconds between two pictures."""

LAST_LINES = 2.0
"""Seconds that are waited for the last lines of a child process that has not ended."""


class Terminal(Console):
    """`Console` on one stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(file=stream, highlight=False, markup=False, emoji=False)
        self.fit()

    def fit(self) -> None:
        """Take over the size of the stream's terminal.

        Upstream asks descriptors 0 to 2, which lead elsewhere while a view is shown.
        """
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(self.file.fileno())
            if columns and lines:
                self.size = ConsoleDimensions(columns, lines)

    @property
    def draws(self) -> bool:
        """Whether a view can be drawn here."""
        return self.file.isatty() and self.is_terminal and self.is_interactive and not self.is_dumb_terminal


class Board:
    """What is drawn at the foot of a terminal.

    Args:
        terminal: where.
        stays: leave the last picture there at the end.
    """

    def __init__(self, terminal: Terminal, *, stays: bool) -> None:
        self._terminal = terminal
        self._picture: RenderableType = ""
        self._live = Live(
            console=terminal,
            get_renderable=lambda: self._picture,
            auto_refresh=False,
            transient=not stays,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # upstream's own thread may draw between another's reckoning of where the cursor is and its writing
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._painter = threading.Thread(target=self._paint, daemon=True)

    def show(self, picture: RenderableType) -> None:
        """Draw this from now on; it is asked anew each time, and so may change and fit itself to the terminal."""
        self._picture = picture

    def tell(self, line: str) -> None:
        """Write a line above the picture."""
        with self._lock:
            self._terminal.print(Text(printable(line)), soft_wrap=True)

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw until the block ends."""
        self._live.start()
        self._terminal.show_cursor()  # a process that is killed leaves a terminal that shows its cursor
        self._painter.start()
        try:
            yield
        finally:
            self._over.set()
            self._painter.join()
            with self._lock:
                self._live.stop()

    def _paint(self) -> None:
        while not self._over.wait(PERIOD):
            with self._lock, contextlib.suppress(OSError):  # a terminal that is gone
                self._terminal.fit()
                self._live.refresh()


@contextlib.contextmanager
def board() -> Iterator[Board | None]:
    """Draw at the foot of the terminal that log lines go to, and let all lines of this process go above.

    Yields:
        the board, or None where there is nothing to draw on.
    """
    console = logs.console()
    terminal = None if console is None or not console.chatty else Terminal(cast("TextIO", console.stream))
    if console is None or terminal is None or not terminal.draws:
        yield None
        return
    shown = Board(terminal, stays=False)
    with shown.drawn(), console.diverted(_Lines(shown.tell)), _caught(shown.tell):
        yield shown


class _Lines:
    """A stream of whole lines, as a log handler writes them."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def write(self, text: str) -> None:
        self._tell(text.removesuffix("\n"))

    def flush(self) -> None:
        """Keep nothing back."""


@contextlib.contextmanager
def _caught(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell line by line what is written to descriptors 1 and 2, as far as they are terminals, by whoever has them."""
    reader, writer = os.pipe()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2) if os.isatty(descriptor)}
    _flush()
    for descriptor in kept:
        os.dup2(writer, descriptor)
    os.close(writer)
    thread = threading.Thread(target=_read, args=(reader, tell), daemon=True)
    thread.start()
    try:
        yield
    finally:
        _flush()
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        thread.join(LAST_LINES)


def _read(descriptor: int, tell: Callable[[str], None]) -> None:
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            with contextlib.suppress(OSError):
                tell(line.removesuffix("\n"))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
