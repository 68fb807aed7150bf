"""Claiming an identity: one holder each, across processes, freed by death."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.client.claim import Identity, claim
from services.errors import IdentityError
from services.paths import CA_CERTIFICATE, client_certificate, client_key, write_atomic
from tests.support import deadline

PROGRAM = """
import sys
from pathlib import Path
from services.client.claim import claim
held = claim(Path(sys.argv[1]))
print(held.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that claims an identity, and give it with the name it got; it is ended with the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of identities client_0 … client_2, beside other files."""
    for name in ("client_0", "client_1", "client_2", "hospital"):
        (tmp_path / client_certificate(name)).write_text(f"certificate of {name}")
        (tmp_path / client_key(name)).write_text(f"key of {name}")
    (tmp_path / CA_CERTIFICATE).touch()
    (tmp_path / "client_x-cert.pem").touch()
    (tmp_path / ".client_9-cert.pem.abc.tmp").touch()
    return tmp_path


def test_the_lowest_free_identity_is_claimed(folder: Path) -> None:
    """Each claim gets the lowest number nobody holds; one that is let go is the next to be claimed."""
    first, second, third = claim(folder), claim(folder), claim(folder)
    assert [held.name for held in (first, second, third)] == ["client_0", "client_1", "client_2"]
    second.lock.close()
    again = claim(folder)
    assert again.name == "client_1"
    for held in (first, third, again):
        held.lock.close()


def test_an_identity_leads_to_its_files(folder: Path) -> None:
    """A claim tells the certificate, the key and the CA that belong to its name."""
    held = claim(folder)
    assert held == Identity(
        "client_0", folder / "client_0-cert.pem", folder / "client_0-pkey.pem", folder / "ca-cert.pem", held.lock
    )
    held.lock.close()


def test_numbers_count_as_numbers(folder: Path) -> None:
    """client_10 comes after client_2."""
    (folder / client_certificate("client_10")).touch()
    held = [claim(folder) for _ in range(4)]
    assert [identity.name for identity in held] == ["client_0", "client_1", "client_2", "client_10"]
    for identity in held:
        identity.lock.close()


def test_processes_never_share_an_identity(folder: Path) -> None:
    """Processes that claim at the same time get different identities, and this one gets what they leave."""
    with process(folder) as (_, first), process(folder) as (_, second):
        held = claim(folder)
        held.lock.close()
        assert {first, second, held.name} == {"client_0", "client_1", "client_2"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_death_frees_an_identity(folder: Path, number: signal.Signals) -> None:
    """However its holder dies, an identity is free again at once."""
    with process(folder) as (child, name):
        assert name == "client_0"
        os.kill(child.pid, number)
        child.wait(deadline(10))
        held = claim(folder)
        held.lock.close()
        assert held.name == "client_0"


def test_a_child_that_runs_on_does_not_hold_it(folder: Path) -> None:
    """A program that the holder started, and that outlives it, keeps no identity from being claimed."""
    held = claim(folder)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held.lock.close()
        again = claim(folder)
        again.lock.close()
        child.communicate(b"\n")
    assert again.name == "client_0"


def test_read_only_files_can_be_claimed(folder: Path) -> None:
    """A lock needs no right to write, so that identities may lie in a read-only volume."""
    for path in folder.iterdir():
        path.chmod(0o444)
    held = claim(folder)
    assert not held.lock.writable()
    held.lock.close()


def test_a_name_is_claimed_as_asked(folder: Path) -> None:
    """A name that is given is claimed, numbered or not, whatever is free below it."""
    for name in ("client_2", "hospital"):
        held = claim(folder, name)
        assert held.name == name
        held.lock.close()


def test_a_name_that_is_held_is_refused(folder: Path) -> None:
    """The line names the identity and both ways out."""
    with process(folder), pytest.raises(IdentityError) as caught:
        claim(folder, "client_0")
    assert str(caught.value) == (
        f"identity client_0 in {folder} is held by another process; wanted one that is free;"
        " end that process, or drop CLIENT_NAME"
    )


def test_none_left_is_one_line(folder: Path) -> None:
    """Where all are held the line tells how many there are, and how to have more."""
    held = [claim(folder) for _ in range(3)]
    with pytest.raises(IdentityError) as caught:
        claim(folder)
    assert str(caught.value) == (
        f"{folder} holds 3 client identities, none of them free; wanted a free one;"
        " raise MAX_CLIENTS in .env and run `fed init` again"
    )
    for identity in held:
        identity.lock.close()


def test_none_at_all_is_one_line(tmp_path: Path) -> None:
    """A folder without identities tells to make some."""
    with pytest.raises(IdentityError) as caught:
        claim(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds 0 client identities, none of them free; wanted a free one;"
        " run `fed init` or `fed certs` first"
    )


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """The line names the folder and the system's reason."""
    with pytest.raises(IdentityError) as caught:
        claim(tmp_path / "none")
    assert str(caught.value) == (
        f"client identities in {tmp_path}/none can't be read (No such file or directory);"
        " wanted a folder of certificates; run `fed init` or `fed certs` first"
    )


def test_an_unknown_name_is_one_line(folder: Path) -> None:
    """The line names the file that is missing."""
    with pytest.raises(IdentityError) as caught:
        claim(folder, "school")
    assert str(caught.value) == (
        f"certificate {folder}/school-cert.pem can't be read (No such file or directory); wanted a readable PEM file;"
        " run `fed init` or `fed certs` first"
    )


def test_a_renewal_under_our_feet_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When init replaces a certificate between our opening and locking it, the new file is the one that is held."""
    path = folder / client_certificate("client_0")
    lock = fcntl.flock
    renewals = [b"renewed", b"renewed again"]

    def renew_first(file: Any, operation: int) -> None:
        if renewals:
            write_atomic(path, renewals.pop(0))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", renew_first)
    held = claim(folder)
    monkeypatch.undo()
    assert held.name == "client_0"
    assert os.fstat(held.lock.fileno()).st_ino == path.stat().st_ino
    assert held.lock.read() == b"renewed again"
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.lock.close()


def test_a_removal_under_our_feet_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is gone once it is locked is as one that never was."""
    path = folder / client_certificate("client_0")
    lock = fcntl.flock

    def remove_first(file: Any, operation: int) -> None:
        path.unlink(missing_ok=True)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(IdentityError) as caught:
        claim(folder, "client_0")
    assert str(caught.value) == (
        f"certificate {path} can't be read (No such file or directory); wanted a readable PEM file;"
        " run `fed init` or `fed certs` first"
    )
