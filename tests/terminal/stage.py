"""What these tests play on: a status page that tells what a test says, and a terminal with a program on it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import pyte

from services.server.page import feed
from services.server.status import StatusServer
from tests.server.page.test_render import state
from tests.support import REPOSITORY, deadline

FED = (sys.executable, "-m", "services")

QUIET = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES", "LOG_FORMAT", "PYTHONPATH"}
"""Variables of the tests' own surroundings that programs on the stage do not get."""


def surroundings(**changes: str) -> dict[str, str]:
    """Give the environment of a program on the stage."""
    kept = {key: value for key, value in os.environ.items() if key not in QUIET}
    return kept | {"TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8"} | changes


class Page:
    """A status page on a free port, which tells `state` as it is at the moment."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = state()
        self.url = ""
        self._ready = threading.Event()
        self._end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def change(self, **facts: Any) -> None:
        """Let some facts be others, all at once."""
        self.state = self.state | facts

    async def _serve(self) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(over.set)
        server = StatusServer("127.0.0.1", 0, lambda: copy.deepcopy(self.state))
        self.url = f"http://127.0.0.1:{server._socket.getsockname()[1]}"
        server.start()
        self._ready.set()
        await over.wait()
        await server.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(deadline(30))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End as a server does at the end of its run."""
        if self._thread.is_alive():
            self._end()
            self._thread.join()


@contextlib.contextmanager
def page(period: float = 0.02) -> Iterator[Page]:
    """Serve a page that tells a new state so many seconds after the last."""
    before, feed.PERIOD = feed.PERIOD, period
    try:
        with Page() as served:
            yield served
    finally:
        feed.PERIOD = before


class Screen:
    """A terminal with a program on it, as a person sees it.

    Args:
        words: the program's command.
        columns: width of the terminal.
        lines: its height.
        env: variables of the program, beside the usual ones.

    Attributes:
        raw: all bytes that the terminal was sent so far.
    """

    def __init__(
        self, words: Sequence[str], *, columns: int = 100, lines: int = 30, env: Mapping[str, str] | None = None
    ) -> None:
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._terminal, inner = pty.openpty()
        self.resize(columns, lines)
        modes = termios.tcgetattr(inner)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(inner, termios.TCSANOW, modes)
        environment = surroundings(**(env or {}))
        # a shell starts what runs in its background with Ctrl-C ignored, and pytest may be there
        command = ["env", "--default-signal=INT", *words]
        self._process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
        os.close(inner)

    def resize(self, columns: int, lines: int) -> None:
        """Let the terminal have another size."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    @property
    def text(self) -> str:
        """What is on the screen, without blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def scrolled(self) -> str:
        """What has scrolled off the screen, and what is on it."""
        rows = ["".join(row[column].data for column in range(self._screen.columns)) for row in self._screen.history.top]
        return "\n".join([*(row.rstrip() for row in rows), self.text])

    def until(self, *words: str) -> str:
        """Wait until all these words are on the screen, and give all that is on it then."""
        give_up = time.monotonic() + deadline(60)
        while not all(each in self.text for each in words):
            assert self._read(give_up), f"{words} were never shown:\n{self.text}"
        return self.text

    def end(self) -> int:
        """Wait until the program has ended, and give its exit code."""
        give_up = time.monotonic() + deadline(60)
        while self._read(give_up):
            pass
        return self._process.wait(deadline(10))

    def type(self, keys: str) -> None:
        """Press these keys; nothing is echoed."""
        os.write(self._terminal, keys.encode())

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send the program a signal, Ctrl-C's if no other."""
        self._process.send_signal(number)

    def _read(self, give_up: float) -> bool:
        """Take what the program has written; tells whether there may be more."""
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, give_up - time.monotonic()))
        assert ready, f"nothing new in time:\n{self.text}"
        try:
            content = os.read(self._terminal, 65536)
        except OSError:  # how Linux says that nobody has the other end any more
            return False
        self.raw += content
        self._stream.feed(content)
        return bool(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)
