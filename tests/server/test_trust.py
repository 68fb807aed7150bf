"""Whom the server lets in, while files change under it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.init import identities
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate, client_key
from services.server.trust import DENIED, Trust
from services.transport import tls


def make(folder: Path) -> Trust:
    """Take the identities in `folder`, and its denylist."""
    return Trust(folder / SERVER_CERTIFICATE, folder / SERVER_KEY, folder / CA_CERTIFICATE, folder / "denylist")


def issue(folder: Path, *, days_ago: int = 0) -> None:
    """Issue identities, as if it were `days_ago`."""
    now = datetime.now(UTC) - timedelta(days=days_ago)
    identities.ensure(folder, folder / "clients", identities.client_names(2), now=now)


def handshake(trust: Trust, folder: Path, name: str) -> str | None:
    """Let a client connect in memory, and give the name that the server reads in its certificate."""
    clients = folder / "clients"
    context = tls.client_context(
        folder / CA_CERTIFICATE, clients / client_certificate(name), clients / client_key(name)
    )
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = trust.context.wrap_bio(to_server, to_client, server_side=True)
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return tls.peer_name(server)


def test_names_are_read_one_a_line(tmp_path: Path) -> None:
    """Blank lines, blanks and comments are no names; the list is read anew when it changes, and once."""
    issue(tmp_path)
    trust = make(tmp_path)
    assert trust.denied == frozenset()
    folder = tmp_path / "denylist"
    folder.mkdir()
    (folder / DENIED).write_text("# lost laptops\n client_0 \n\nclient_7 # since May\n")
    assert trust.look()
    assert trust.denied == {"client_0", "client_7"}
    assert not trust.look()
    (folder / DENIED).unlink()
    assert trust.look()
    assert trust.denied == frozenset()


def test_a_serial_number_is_written_in_any_way(tmp_path: Path) -> None:
    """A certificate's number counts with colons, in small letters and with leading noughts, as tools print it."""
    issue(tmp_path)
    folder = tmp_path / "denylist"
    folder.mkdir()
    (folder / DENIED).write_text("serial: 0a:1b:2C  # hospital-a\nSerial:3d\nserial\n")
    assert make(tmp_path).denied == {"serial:A1B2C", "serial:3D", "serial"}


def test_an_unreadable_denylist_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A list that can't be read leaves those denied who are, and says so."""
    issue(tmp_path)
    folder = tmp_path / "denylist"
    folder.mkdir()
    (folder / DENIED).write_text("client_0\n")
    trust = make(tmp_path)
    (folder / DENIED).write_bytes(b"\xff\xfe\x00client_1")
    assert not trust.look()
    assert trust.denied == {"client_0"}
    assert "the denylist in use is kept" in caplog.text


def test_renewed_identities_are_taken_up(tmp_path: Path) -> None:
    """After `init` has renewed what expires, a server that runs lets the holders of the new identities in."""
    issue(tmp_path, days_ago=25)
    trust = make(tmp_path)
    assert handshake(trust, tmp_path, "client_0") == "client_0"
    issue(tmp_path)
    assert handshake_fails(trust, tmp_path, "client_0")
    trust.look()
    assert handshake(trust, tmp_path, "client_0") == "client_0"


def handshake_fails(trust: Trust, folder: Path, name: str) -> bool:
    """Tell whether the server, or the client, does not accept the other."""
    try:
        handshake(trust, folder, name)
    except ssl.SSLError:
        return True
    return False


def test_a_pair_that_does_not_fit_leaves_the_old_one_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While a certificate and its key are being written one after the other, the old identity serves, told once."""
    issue(tmp_path, days_ago=25)
    trust = make(tmp_path)
    kept = (tmp_path / SERVER_KEY).read_bytes()
    issue(tmp_path)
    renewed = (tmp_path / SERVER_KEY).read_bytes()
    (tmp_path / SERVER_KEY).write_bytes(kept)
    trust.look()
    trust.look()
    assert caplog.text.count("the identity in use is kept") == 1
    (tmp_path / SERVER_KEY).write_bytes(renewed)
    trust.look()
    assert handshake(trust, tmp_path, "client_1") == "client_1"
