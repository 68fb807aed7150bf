"""Giving up root: a process that was started as root goes on as somebody else."""

from __future__ import annotations

import os
from pathlib import Path

from services.errors import StorageError


def become(uid: int, gid: int) -> None:
    """Go on as this user and group, and in no other group."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def become_owner(path: Path) -> None:
    """As root, go on as the user whom `path` belongs to; anybody else stays who it is.

    So a container may be given files of a user that its image does not know, and read no more than that user.

    Raises:
        StorageError: `path` can't be looked at.
    """
    if os.geteuid() != 0:
        return
    try:
        found = path.stat()
    except OSError as exc:
        raise StorageError(f"{path} can't be read ({exc.strerror or exc})", "a folder that is there") from exc
    if found.st_uid != 0:
        become(found.st_uid, found.st_gid)
