"""Roles as processes of their own, as a person starts them, for tests of whole runs."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path
from typing import Self

import pytest

from tests.support import deadline
from tests.terminal.stage import surroundings

PATIENCE = 120.0
"""Seconds until a line or an end that is waited for; several processes import TensorFlow first."""


class Role:
    """A process whose lines are read as they come; it is ended with the block.

    Attributes:
        lines: what it has said so far.
    """

    def __init__(self, folder: Path, *words: str, **settings: str) -> None:
        self.lines: list[str] = []
        self._silent = False
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            words,
            cwd=folder,
            env=surroundings(**{"FED_ROOT": str(folder), "TF_CPP_MIN_LOG_LEVEL": "2", **settings}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._more:
                    self.lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._silent = True
            self._more.notify_all()

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        with self._more:
            self._more.wait_for(lambda: found() or self._silent, deadline(PATIENCE))
            match = found()
        assert match is not None, "\n".join(self.lines)
        return match

    def ends(self) -> int:
        """Wait for its end, and give its code."""
        try:
            return self._process.wait(deadline(PATIENCE))
        except subprocess.TimeoutExpired:
            pytest.fail("\n".join(["a process did not end:", *self.lines]))
