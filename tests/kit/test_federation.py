"""A federation's folder: the CA's key and its passphrase, the ledger, and how kits come into their place."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services import certificates
from services.errors import ConflictError, IdentityError, StorageError
from services.kit import federation, main, manifest
from services.kit.federation import CA_KEY, LEDGER, Federation
from tests.kit.conftest import PHRASE, Operator
from tests.support import contents

NOW = datetime.now(UTC).replace(microsecond=0)


def test_the_key_of_the_ca_is_encrypted_and_the_operators_alone(made: Operator) -> None:
    """Its file opens with the passphrase and not without it, and only its owner may read it."""
    path = made.folder / "ca" / CA_KEY
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(TypeError, match="assword was not given"):
        load_pem_private_key(path.read_bytes(), None)
    assert made.federation.unlock(PHRASE.encode()).certificate == made.federation.ca


def test_the_key_of_the_ca_is_in_no_kit(made: Operator) -> None:
    """Neither its file, nor its number in any form, is anywhere but in the folder of the CA."""
    key = made.federation.unlock(PHRASE.encode()).key
    number = key.private_numbers().private_value
    forms = [
        (made.folder / "ca" / CA_KEY).read_bytes(),
        *(key.private_bytes(Encoding.PEM, form, NoEncryption()) for form in (
            PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
        )),
        number.to_bytes(32, "big"),
        b"%064x" % number,
    ]  # fmt: skip
    found = contents(made.folder)
    assert {"sites/north.tar.gz", "sites/north/certs/north-pkey.pem", "server/certs/server-pkey.pem"} < set(found)
    for name, content in found.items():
        assert name == f"ca/{CA_KEY}" or not any(form in content for form in forms), name
        assert PHRASE.encode() not in content, name


@pytest.mark.parametrize("phrase", [b"", b"another passphrase", PHRASE.encode() + b" ", PHRASE.upper().encode()])
def test_a_wrong_passphrase_is_one_line(made: Operator, phrase: bytes) -> None:
    """Any other passphrase is said to be one."""
    with pytest.raises(IdentityError) as caught:
        made.federation.unlock(phrase)
    assert str(caught.value) == (
        f"the CA's key {made.folder / 'ca' / CA_KEY} does not open;"
        " wanted the passphrase that was given to `fed kit init`; try again"
    )


@pytest.mark.parametrize("content", [None, b"", b"rubbish", "half", "another's"])
def test_a_key_that_is_lost_or_damaged_is_one_line(operator: Operator, content: bytes | str | None) -> None:
    """A key that is missing, cut short, or another CA's is one line."""
    path = operator.folder / "ca" / CA_KEY
    other = certificates.new_authority(NOW, 1).key
    if content == "half":
        content = path.read_bytes()[:100]
    elif content == "another's":
        form = BestAvailableEncryption(PHRASE.encode())
        content = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form)
    path.unlink() if content is None else path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(IdentityError) as caught:
        operator.federation.unlock(PHRASE.encode())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_ledger_reads_back(made: Operator) -> None:
    """What was asked for, and each certificate, stands in the ledger."""
    ledger = made.federation.ledger
    assert ledger.server_uri == "wss://localhost:8765"
    assert ledger.hosts == ("localhost", "127.0.0.1", "fl.example.org")
    assert ledger.names() == ["server", "north", "south"]
    assert len({one.serial for one in ledger.issued}) == 3
    assert Federation.open(made.folder).ledger == ledger
    north = ledger.of("north")[0]
    assert ledger.valid("north", north.issued) == [north]
    assert ledger.valid("north", north.expires) == []


def test_a_ledger_may_be_damaged_anywhere(operator: Operator) -> None:
    """Whatever is altered in the ledger, commands read another value or end with one line, and raise nothing else."""
    path = operator.folder / LEDGER
    whole = path.read_bytes()
    read, said = 0, set[str]()
    for position in range(len(whole)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(whole)
            changed[position] ^= bit
            path.write_bytes(bytes(changed))
            try:
                main.listed(operator.folder)
                read += 1
            except IdentityError as exc:
                said.add(str(exc))
    assert said == {f"{path} can't be parsed; wanted what `fed kit` wrote; restore it from a backup"}
    assert 0 < read < 2 * len(whole)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, "naive", "half"])
def test_a_damaged_ledger_is_one_line(operator: Operator, content: bytes | str) -> None:
    """A ledger that is another thing, cut short, or has times of no zone is said to be damaged."""
    path = operator.folder / LEDGER
    if content == "half":
        content = path.read_bytes()[:-5]
    elif content == "naive":
        content = path.read_bytes().replace(b"+00:00", b"")
    path.write_bytes(content)  # type: ignore[arg-type]
    for call in (main.listed, lambda folder: main.site(folder, "west", operator.phrase)):
        with pytest.raises(IdentityError) as caught:
            call(operator.folder)
        assert str(caught.value) == f"{path} can't be parsed; wanted what `fed kit` wrote; restore it from a backup"


def test_a_folder_without_a_federation_is_one_line(tmp_path: Path) -> None:
    """Where nothing is, that is said, and nothing is made there."""
    for call in (
        main.listed,
        lambda folder: main.site(folder, "west", None),
        lambda folder: main.revoke(folder, ["x"]),
    ):
        with pytest.raises(IdentityError) as caught:
            call(tmp_path / "none")
        assert str(caught.value).startswith(f"{tmp_path / 'none'} holds no federation ({LEDGER}: No such file")
    assert not (tmp_path / "none").exists()


def test_a_lost_ca_certificate_is_one_line(operator: Operator) -> None:
    """The CA's certificate is missed by name."""
    path = operator.folder / "ca" / "ca-cert.pem"
    path.write_text("rubbish")
    with pytest.raises(IdentityError, match="is missing or damaged; wanted a PEM certificate"):
        Federation.open(operator.folder)


def test_a_federation_is_not_made_over_another(operator: Operator) -> None:
    """A second `init` in a folder changes nothing, and neither does one where the ledger alone was lost."""
    before = contents(operator.folder)
    for _ in range(2):
        with pytest.raises(ConflictError, match="holds a federation already"):
            operator.init()
        assert contents(operator.folder) == before
        (operator.folder / LEDGER).unlink(missing_ok=True)
        before.pop(LEDGER, None)


def test_what_is_issued_is_noted_before_anybody_has_it(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a kit can't be published, its certificate stands in the ledger all the same, and can be revoked."""

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "publish", fail)
        with pytest.raises(StorageError):
            operator.site("west")
    assert not operator.kit("west").exists()
    (serial,) = operator.valid("west")
    operator.revoke("west")
    assert operator.denied() == [f"serial:{serial}"]
    operator.site("west")
    assert manifest.verify(operator.kit("west"))[0].serial != serial


def test_nothing_is_issued_that_can_t_be_noted(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger can't be written, no kit comes into being."""

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(federation, "write_atomic", fail)
    with pytest.raises(StorageError):
        operator.site("west")
    assert not operator.kit("west").exists()
    assert not operator.archive("west").exists()


def test_publishing_again_replaces_the_folder_whole(operator: Operator) -> None:
    """What is no part of a kit is gone, and what a killed command has left aside; what a site has filled stays."""
    kit = operator.kit("north")
    (kit / "docker-compose.override.yml").write_text("services: {}\n")
    (kit / "data" / "labels.npy").write_bytes(b"kept")
    (kit / "secagg").mkdir()
    (kit / "secagg" / "north-secagg.pem").write_bytes(b"kept")
    (kit.parent / ".north.new" / "half").mkdir(parents=True)
    operator.renew("north")
    assert sorted(path.name for path in kit.iterdir()) == [
        ".env", "README.md", "certs", "data", "docker-compose.yml", "manifest.json", "manifest.sig", "secagg"
    ]  # fmt: skip
    assert [path.read_bytes() for path in (kit / "data" / "labels.npy", kit / "secagg" / "north-secagg.pem")] == [
        b"kept"
    ] * 2
    assert sorted(path.name for path in kit.parent.iterdir()) == ["north", "north.tar.gz", "south", "south.tar.gz"]
    assert manifest.verify(kit) == manifest.verify(operator.archive("north"))


@pytest.mark.parametrize("place", ["sites", "sites/west.tar.gz/x"])
def test_a_place_that_can_t_be_written_is_one_line(operator: Operator, place: str) -> None:
    """What stands in a kit's way is named."""
    if place == "sites":
        (operator.folder / "sites").rename(operator.root / "elsewhere")
        (operator.folder / "sites").write_text("a file")
    else:
        (operator.folder / place).mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        operator.site("west")
    assert "can't be written" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_its_owner_may_read_what_has_a_key_in_it(made: Operator) -> None:
    """Keys and archives are for their owner alone; nothing else in a kit is."""
    for path in made.folder.rglob("*"):
        if path.is_file():
            secret = path.name.endswith(("key.pem", ".tar.gz"))
            assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644), path


def test_revoking_ends_what_counted(operator: Operator) -> None:
    """The certificates that are named are ended; others of the name, others', and what has expired, are not."""
    made = operator.federation
    authority = made.unlock(PHRASE.encode())
    kept = f"{made.issue('north', authority, NOW).certificate.serial_number:X}"
    first = made.ledger.of("north")[0].serial
    made.revoke([one for one in made.ledger.valid("north", NOW) if one.serial == first], NOW)
    assert [one.serial for one in made.ledger.valid("north", NOW)] == [kept]
    assert made.ledger.valid("north", NOW + timedelta(days=400)) == []
    made.revoke(made.ledger.valid("north", NOW), NOW)
    assert made.ledger.valid("north", NOW) == []
    assert len(made.ledger.valid("south", NOW)) == 1
    assert [one["revoked"] for one in json.loads((operator.folder / LEDGER).read_text())["issued"]] == [
        None, NOW.isoformat(), None, NOW.isoformat()
    ]  # fmt: skip


def test_no_certificate_outlives_its_ca(operator: Operator) -> None:
    """Near the CA's end certificates end with it, and after it none is issued."""
    made = operator.federation
    authority = made.unlock(PHRASE.encode())
    ends = made.ca.not_valid_after_utc
    late = made.issue("north", authority, ends - timedelta(days=10))
    assert late.certificate.not_valid_after_utc == ends
    assert made.issue("north", authority, NOW).certificate.not_valid_after_utc == NOW + timedelta(days=365)
    noted = made.ledger
    with pytest.raises(IdentityError) as caught:
        made.issue("north", authority, ends)
    assert str(caught.value) == (
        f"the CA expired on {ends:%Y-%m-%d}; wanted one that is valid;"
        " make a new federation with `fed kit init`, and give each site a new kit"
    )
    assert made.ledger == noted
