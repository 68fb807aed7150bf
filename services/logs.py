"""Log lines of all roles: short ones for a person on standard error, full ones in a file.

Ours go to both; those of declearn, TensorFlow and the websocket library go to the file alone, warnings excepted.
"""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from services.errors import StorageError

FULL = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _Console(logging.Formatter):
    """`HH:MM:SS role: message`, with the level where it is a warning or worse; never a traceback."""

    def __init__(self, role: str) -> None:
        super().__init__("%(asctime)s %(role)s: %(mark)s%(message)s", "%H:%M:%S")
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        record.role = self._role
        record.mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        kept, record.exc_info = record.exc_info, None
        cached, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_info, record.exc_text = kept, cached


def configure(role: str, *, verbose: bool = True) -> None:
    """Send log lines of `role` to standard error.

    Args:
        role: name at the head of each line.
        verbose: show what goes on, not only warnings.
    """
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.INFO)
    # a copy of descriptor 2: `services.engine` turns the original away while TensorFlow loads
    console = logging.StreamHandler(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace"))
    console.setFormatter(_Console(role))
    console.setLevel(logging.INFO if verbose else logging.WARNING)
    console.addFilter(_worth_showing)
    root.addHandler(console)


def to_file(path: Path) -> None:
    """Write every log line to `path` too.

    Raises:
        StorageError: the file can't be written.
    """
    try:
        handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    except OSError as exc:
        raise StorageError(
            f"{path} can't be written ({exc.strerror})", "a writable results folder", "mend its permissions"
        ) from exc
    handler.setFormatter(logging.Formatter(FULL))
    logging.getLogger().addHandler(handler)


def unforeseen(error: BaseException) -> str:
    """Keep the traceback of a bug in the log file and word it as one line."""
    bugs = logging.getLogger("fed.bug")
    bugs.setLevel(logging.DEBUG)  # below what the console shows, and above what the root would drop
    bugs.debug("unforeseen error", exc_info=error)
    return word(error)


def word(error: BaseException) -> str:
    """Word a bug as one line: what it is, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    where = f" at {Path(frame.filename).name}:{frame.lineno}" if frame else ""
    return f"unforeseen {type(error).__name__}{where}: {error}"


def _worth_showing(record: logging.LogRecord) -> bool:
    ours = record.name == "fed" or record.name.startswith("fed.")
    library = record.name.endswith(".websockets") or record.name == "py.warnings"
    return (ours and not library) or (record.levelno >= logging.ERROR and not library)
