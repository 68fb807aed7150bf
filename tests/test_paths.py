"""Shared paths: the layout, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services import paths
from services.errors import StorageError
from services.paths import Paths, write_atomic, writing


def names(folder: Path) -> list[str]:
    """List what is in `folder`, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_the_layout_is_the_one_that_the_module_draws() -> None:
    """Each folder in the picture at the head of the module is a property of `Paths`, and the other way round."""
    drawn = {Path("/r") / name for name in re.findall(r"^(\S+)/ {2,}", paths.__doc__ or "", re.MULTILINE)}
    properties = [name for name, value in vars(Paths).items() if isinstance(value, property)]
    assert {getattr(Paths(Path("/r")), name) for name in properties} == drawn


def test_a_client_has_two_files_of_its_name() -> None:
    """Certificate and key of a client stand beside one another under its name."""
    assert (paths.client_certificate("client_3"), paths.client_key("client_3")) == (
        "client_3-cert.pem",
        "client_3-pkey.pem",
    )


@pytest.mark.parametrize("content", [b"\x00\xff", "a text: é\n", b""])
def test_content_is_written_with_its_folder(tmp_path: Path, content: bytes | str) -> None:
    """Bytes as they are, texts as UTF-8, in a folder that is made when missing, and nothing beside."""
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int, umask: int) -> None:
    """The mode is right whatever the umask, and also where a file of another mode is replaced."""
    path = tmp_path / "file"
    path.touch(0o666)
    kept = os.umask(umask)
    try:
        write_atomic(path, "new", mode=mode)
    finally:
        os.umask(kept)
    assert path.stat().st_mode & 0o7777 == mode


def test_a_secret_is_never_readable_by_others_meanwhile(tmp_path: Path) -> None:
    """The neighbour that is written first has the final mode before it has any content."""
    with writing(tmp_path / "key", mode=0o600) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """Whoever reads while a file is being written reads the old one, whole."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    with writing(path) as file:
        file.write(b"half of the ")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"new")
    assert path.read_text() == "half of the new"


def test_an_error_midway_leaves_the_old_file(tmp_path: Path) -> None:
    """An error of the writer's leaves the old file and no trace of the new one, and goes on as it is."""
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail() -> None:
        with writing(path) as file:
            file.write(b"half")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_death_midway_leaves_the_old_file(tmp_path: Path) -> None:
    """A writer that is killed before it is done leaves the old file, and next to it what `sweep` removes."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    program = (
        "import os, signal, sys; from pathlib import Path; from services.paths import writing\n"
        "with writing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = set(names(tmp_path)) - {"file"}
    assert re.fullmatch(r"\.file\..+\.tmp", left)
    paths.sweep(tmp_path.parent)
    assert names(tmp_path) == ["file"]


def test_content_is_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename: after a power cut the name leads to all of it."""
    path = tmp_path / "file"
    synced = []

    def sync(handle: int) -> None:
        synced.append((os.pread(handle, 10, 0), path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomic(path, "content")
    assert synced == [(b"content", False)]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left is a StorageError that names the file and its folder; the old file stays, alone."""
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_atomic(path, "new")
    assert str(caught.value) == (
        f"{path} can't be written (No space left on device); wanted a writable folder {tmp_path} with space left;"
        " mend its permissions or free some space, then start again"
    )
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A folder below a file can't be made, and the line says so."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "folder" / "new"
    with pytest.raises(StorageError) as caught:
        write_atomic(path, "new")
    assert str(caught.value) == (
        f"{path} can't be written (Not a directory); wanted a writable folder {path.parent} with space left;"
        " mend its permissions or free some space, then start again"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """A folder that may not be written is refused with the system's reason."""
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match=r"can't be written \(Permission denied\)"):
        write_atomic(tmp_path / "file", "new")
