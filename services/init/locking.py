"""One `init` at a time: a folder is locked while it is written."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from services.errors import StorageError
from services.paths import sweep

LOCK = ".lock"

logger = logging.getLogger("fed.init")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` (made when missing) for this process alone; wait while another one holds it.

    The kernel frees the lock when its holder dies, so there is no stale one to clear away. What a process that was
    killed left half-written in the folder is removed.

    Raises:
        StorageError: the folder can't be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # flock needs no write access, and so works on a lock file that another user made.
            handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, handle)
            _lock(handle, folder)
        except OSError as exc:
            raise StorageError(
                f"{folder} can't be written ({exc.strerror or exc})",
                "a writable folder on a file system with locks",
                "mend its permissions, or use another folder",
            ) from exc
        sweep(folder)
        yield


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("%s: another init is at work here; waiting for it", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
