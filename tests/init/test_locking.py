"""One init at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from pathlib import Path

import pytest

from services.errors import StorageError
from services.init.locking import exclusive
from tests.support import deadline


def test_second_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    """While a folder is held, another init says that it waits, and goes on once the folder is free."""
    waits, entered = threading.Event(), threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.getMessage() == f"{tmp_path}: another init is at work here; waiting for it"
            waits.set()

    def second() -> None:
        with exclusive(tmp_path):
            entered.set()

    logger = logging.getLogger("fed.init")
    listener, level = Listener(), logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    thread = threading.Thread(target=second)
    try:
        with exclusive(tmp_path):
            thread.start()
            assert waits.wait(deadline(10))
            assert not entered.is_set()
        assert entered.wait(deadline(10))
    finally:
        thread.join(deadline(10))
        logger.removeHandler(listener)
        logger.setLevel(level)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Temporary files of a writer that was killed are gone, everything else stays."""
    (tmp_path / "3").mkdir()
    left = [tmp_path / ".manifest.json.abc.tmp", tmp_path / "3" / ".0.npz.abc.tmp"]
    kept = [tmp_path / "manifest.json", tmp_path / "3" / "0.npz", tmp_path / "notes.tmp"]
    for path in left + kept:
        path.touch()
    with exclusive(tmp_path):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_folder_is_free_after_a_failure(tmp_path: Path) -> None:
    """An error inside frees the folder."""
    with pytest.raises(RuntimeError), exclusive(tmp_path):
        raise RuntimeError
    with exclusive(tmp_path):
        pass


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A folder below a file is refused with the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught, exclusive(tmp_path / "file" / "folder"):
        pass
    assert str(caught.value) == (
        f"{tmp_path}/file/folder can't be written (Not a directory);"
        " wanted a writable folder on a file system with locks; mend its permissions, or use another folder"
    )


def test_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can't lock, nothing is written."""

    def refuse(handle: int, operation: int) -> None:
        del handle, operation
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"can't be written \(No locks available\)"), exclusive(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    """A folder that may not be written is refused."""
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied"), exclusive(tmp_path):
        pass
