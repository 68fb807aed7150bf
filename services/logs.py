"""Log lines of all roles: short ones on standard error, for a person or, as JSON, for a program; full ones in a file.

Ours go to both; those of declearn, TensorFlow and the websocket library go to the file alone, warnings excepted.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from services.errors import StorageError
from services.wording import printable

FULL = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

EVENTS = "fed.server.events"
"""Logger of what happened and a person is told otherwise, or need not be; lines for programs have it."""

FACTS = ("run", "round", "client", "event")
"""What a JSON line is about: null where that is not known, or has no meaning."""

_about: dict[str, Any] = {}


class _Text(logging.Formatter):
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
            return printable(super().format(record))
        finally:
            record.exc_info, record.exc_text = kept, cached


class _Json(logging.Formatter):
    """One JSON object: time (RFC 3339, UTC), level, role, logger, `FACTS` and message."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        told = {fact: getattr(record, fact, _about.get(fact)) for fact in FACTS}
        return as_json(record.created, record.levelname.lower(), self._role, record.name, record.getMessage(), told)


class Lines(Protocol):
    """What a handler writes to, whole lines at a time."""

    def write(self, text: str, /) -> object:
        """Take lines, each with its end."""

    def flush(self) -> object:
        """Keep nothing back."""


class Console(logging.StreamHandler[Lines]):
    """Writes lines to standard error.

    Args:
        role: name at the head of each line.
        form: `text` or `json`.
    """

    def __init__(self, role: str, form: str) -> None:
        # a copy of descriptor 2: `services.engine` turns the original away while TensorFlow loads
        self._own = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        super().__init__(self._own)
        self.role = role
        self.form = form
        self.setFormatter(_Json(role) if form == "json" else _Text(role))
        self.addFilter(_worth_telling if form == "json" else _worth_showing)

    @property
    def chatty(self) -> bool:
        """Whether it tells a person what goes on, and writes itself."""
        return self.form == "text" and self.level <= logging.INFO and self.stream is self._own

    def close(self) -> None:
        super().close()
        self._own.close()

    @contextlib.contextmanager
    def diverted(self, stream: Lines) -> Iterator[None]:
        """Let lines go to `stream` meanwhile."""
        self.setStream(stream)
        try:
            yield
        finally:
            self.setStream(self._own)


def configure(role: str, *, verbose: bool = True, form: str = "text") -> None:
    """Send log lines of `role` to standard error.

    Args:
        role: name at the head of each line.
        verbose: show what goes on, not only warnings.
        form: `text`, or `json` for an object a line.
    """
    logging.captureWarnings(capture=True)
    _about.clear()
    root = logging.getLogger()
    before = console()
    root.handlers.clear()
    if before is not None:
        before.close()
    root.setLevel(logging.INFO)
    handler = Console(role, form)
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    root.addHandler(handler)


def console() -> Console | None:
    """Give what writes lines to standard error, once that is configured."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, Console)), None)


def about(**facts: Any) -> None:
    """Tell what the lines of this process are about from now on; what a line says of itself wins.

    Args:
        facts: any of `FACTS`; a process has one role, and works on one run at a time.
    """
    _about.update(facts)


def as_json(created: float, level: str, role: str, logger: str, message: str, facts: dict[str, Any]) -> str:
    """Word one line as a JSON object.

    Args:
        created: seconds since the epoch.
        level: `info`, `warning`, `error`.
        role: the command that tells it, as `server`.
        logger: the part of it.
        message: for a person.
        facts: values of `FACTS`; what is missing is null.
    """
    time = datetime.datetime.fromtimestamp(created, datetime.UTC).isoformat(timespec="milliseconds")
    told = {"time": time, "level": level, "role": role, "logger": logger}
    return json.dumps(told | {fact: facts.get(fact) for fact in FACTS} | {"message": message})


def last_words(command: str, level: str, message: str) -> None:
    """Say on standard error how a command ended, in the form that its lines have; `critical` is a bug."""
    handler = console()
    if handler is not None and handler.form == "json":
        now = datetime.datetime.now(datetime.UTC).timestamp()
        message = as_json(now, level, handler.role, "fed", message, _about)
    else:
        message = f"{command}: {'error: ' if level == 'error' else ''}{printable(message)}"
    sys.stderr.write(f"{message}\n")


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


def _worth_telling(record: logging.LogRecord) -> bool:
    ours = record.name == "fed" or record.name.startswith("fed.")
    library = record.name.endswith(".websockets") or record.name == "py.warnings"
    return (ours and not library) or (record.levelno >= logging.ERROR and not library)


def _worth_showing(record: logging.LogRecord) -> bool:
    return record.name != EVENTS and _worth_telling(record)
