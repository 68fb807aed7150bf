"""Giving up root: who was root goes on as the owner of what it was given, and can't go back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services import privileges
from services.errors import StorageError
from tests.support import REPOSITORY

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Recorder:
    """Stands for the system calls, and keeps what they were asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, user: int) -> None:
        self.calls: list[tuple[str, Any]] = []
        monkeypatch.setattr(os, "geteuid", lambda: user)
        for name in ("setgroups", "setgid", "setuid"):
            monkeypatch.setattr(os, name, lambda value, name=name: self.calls.append((name, value)))


def test_groups_go_before_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's groups are given up first: nobody but root could do it afterwards."""
    recorder = Recorder(monkeypatch, 0)
    privileges.become(1000, 2000)
    assert recorder.calls == [("setgroups", []), ("setgid", 2000), ("setuid", 1000)]


def test_root_becomes_the_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As root, a process goes on as the owner of the path, with its group."""
    found = os.stat_result((0o40755, 1, 1, 1, 1234, 5678, 0, 0, 0, 0))
    recorder = Recorder(monkeypatch, 0)
    monkeypatch.setattr(Path, "stat", lambda _: found)
    privileges.become_owner(tmp_path)
    assert recorder.calls == [("setgroups", []), ("setgid", 5678), ("setuid", 1234)]


def test_anybody_else_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who is not root changes nothing, and does not even look."""
    recorder = Recorder(monkeypatch, 1000)
    privileges.become_owner(tmp_path / "none")
    assert recorder.calls == []


def test_root_stays_where_the_path_is_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What belongs to root is read as root."""
    recorder = Recorder(monkeypatch, 0)
    monkeypatch.setattr(Path, "stat", lambda _: os.stat_result((0o40755, 1, 1, 1, 0, 0, 0, 0, 0, 0)))
    privileges.become_owner(tmp_path)
    assert recorder.calls == []


def test_a_path_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root does not go on as root because a folder is missing."""
    Recorder(monkeypatch, 0)
    with pytest.raises(StorageError) as caught:
        privileges.become_owner(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} can't be read (No such file or directory); wanted a folder that is there"
    )


@ROOT_ONLY
def test_there_is_no_way_back(tmp_path: Path) -> None:
    """A process that has become somebody else is that in every respect, and can't be root again."""
    os.chown(tmp_path, 1234, 5678)
    program = f"""
import os, pathlib
from services import privileges
privileges.become_owner(pathlib.Path({str(tmp_path)!r}))
print(os.getresuid(), os.getresgid(), os.getgroups())
os.setuid(0)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.stdout == "(1234, 1234, 1234) (5678, 5678, 5678) []\n"
    assert ended.stderr.rstrip().endswith("PermissionError: [Errno 1] Operation not permitted")
