"""A kit's manifest: whatever is altered, added or missing is found, in the folder and in the archive."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services import certificates
from services.errors import IdentityError
from services.kit import contents, manifest
from services.kit.federation import Federation
from services.kit.manifest import MANIFEST, SIGNATURE, fingerprint, read_kit, verify
from tests.kit.conftest import PHRASE, Operator, files, flips, refused

SIGNED = {
    ".env",
    "README.md",
    "certs/ca-cert.pem",
    "certs/north-cert.pem",
    "certs/north-pkey.pem",
    "docker-compose.yml",
}
"""Files of the kit of `north` that its manifest lists."""

AT_A_SITE = ("docker-compose.yml", ".env", "README.md", MANIFEST, SIGNATURE)


def test_a_kit_states_what_it_is(made: Operator) -> None:
    """A whole kit verifies as folder and as archive, and tells whose it is, and the CA that signed it."""
    for path in (made.kit("north"), made.archive("north")):
        facts, told = verify(path)
        assert (facts.name, facts.role, facts.server_uri) == ("north", "client", "wss://localhost:8765")
        assert facts.serial == made.serials("north")[0]
        assert set(facts.files) == SIGNED
        assert told == fingerprint(made.federation.ca)
        assert verify(path, told) == verify(path, told.replace(":", "").lower()) == (facts, told)
    facts, _ = verify(made.server)
    assert (facts.name, facts.role) == ("server", "server")
    assert read_kit(made.server) == facts


@pytest.mark.parametrize("name", sorted({*SIGNED, MANIFEST, SIGNATURE}))
def test_one_altered_bit_in_any_file_is_found(operator: Operator, name: str) -> None:
    """Each byte of each file of a folder counts: with one bit of it changed, the kit is refused by one line."""
    path = operator.kit("north") / name
    whole = path.read_bytes()
    for changed in flips(whole):
        path.write_bytes(changed)
        assert refused(operator.kit("north"))
    path.write_bytes(whole)
    verify(operator.kit("north"))


@pytest.mark.parametrize("name", sorted({*SIGNED, MANIFEST, SIGNATURE}))
@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff" * 40, b"[" * 100_000, b"x" * (manifest.LARGEST + 1)])
def test_a_file_that_is_replaced_or_missing_is_found(operator: Operator, name: str, content: bytes | None) -> None:
    """A file may be missing, empty, rubbish, nested or large beyond reason: the kit is refused by one line."""
    path = operator.kit("north") / name
    path.unlink() if content is None else path.write_bytes(content)
    assert refused(operator.kit("north"))


@pytest.mark.parametrize("name", sorted({*SIGNED, MANIFEST, SIGNATURE}))
@pytest.mark.parametrize("tail", [b"\n", b" ", b"\0"])
def test_a_file_that_has_grown_is_found(operator: Operator, name: str, tail: bytes) -> None:
    """A byte more, at the end of any file, is found too."""
    path = operator.kit("north") / name
    path.write_bytes(path.read_bytes() + tail)
    assert refused(operator.kit("north"))


@pytest.mark.parametrize("name", ["docker-compose.override.yml", "certs/other.pem", ".envrc", "new/file", "Data/x"])
def test_an_added_file_is_found(operator: Operator, name: str) -> None:
    """What was not issued is refused, a Compose file that overrides most of all."""
    kit = operator.kit("north")
    (kit / name).parent.mkdir(exist_ok=True)
    (kit / name).write_text("services: {}\n")
    assert refused(kit).startswith(f"{kit} holds {name}, which was not in it when it was issued; wanted nothing else;")


def test_an_added_crowd_of_files_is_found(operator: Operator) -> None:
    """No more files are read than a kit may have."""
    for number in range(manifest.MOST_FILES + 1):
        (operator.kit("north") / f"x{number}").touch()
    assert f"holds more than {manifest.MOST_FILES} files" in refused(operator.kit("north"))


@pytest.mark.parametrize("name", sorted({*SIGNED, MANIFEST, SIGNATURE}))
def test_a_link_is_no_file(operator: Operator, tmp_path: Path, name: str) -> None:
    """A link in a file's place is refused though it leads to the same bytes: later it may lead to others."""
    path = operator.kit("north") / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{name} is no file that can be read" in refused(operator.kit("north"))
    verified = read_kit(operator.kit("north"))
    assert verified.name == "north"  # a cluster mounts secrets as links


def test_a_link_is_no_folder(operator: Operator, tmp_path: Path) -> None:
    """A link in the place of a folder of the kit is refused."""
    (operator.kit("north") / "certs").rename(tmp_path / "certs")
    (operator.kit("north") / "certs").symlink_to(tmp_path / "certs")
    assert refused(operator.kit("north"))


@pytest.mark.parametrize("name", [*sorted({*SIGNED, MANIFEST, SIGNATURE}), "new"])
def test_a_pipe_is_no_file(operator: Operator, name: str) -> None:
    """What would never end to be read is refused, not waited for."""
    path = operator.kit("north") / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert refused(operator.kit("north"))


def test_what_its_holder_fills_may_change(operator: Operator, tmp_path: Path) -> None:
    """A site's data and its keys for secure aggregation are its own; links among its data too."""
    kit = operator.kit("north")
    (kit / "data" / "labels.csv").write_text("1\n")
    (kit / "data" / "away").symlink_to(tmp_path)
    (kit / "secagg").mkdir()
    (kit / "secagg" / "south-secagg-public.pem").write_text("x")
    assert verify(kit)[0].name == "north"
    shutil.rmtree(kit / "data")
    assert verify(kit)[0].name == "north"


def test_what_the_operator_changes_at_the_server_may_change(operator: Operator) -> None:
    """The server's `.env`, plan and denylist are the operator's; its Compose file and identity are as issued."""
    for name in (".env", "experiment.yml", "denylist/denied.txt"):
        (operator.server / name).write_text("# changed\n")
    (operator.server / "results" / "latest").mkdir()
    verify(operator.server)
    (operator.server / "docker-compose.yml").write_text("services: {}\n")
    assert "docker-compose.yml is not as it was issued" in refused(operator.server)
    assert read_kit(operator.server).name == "server"


# -- identities -------------------------------------------------------------------------------------------------------


def test_another_ca_has_another_fingerprint(made: Operator, tmp_path: Path) -> None:
    """A kit of another federation verifies, and shows another fingerprint; against the right one it is refused."""
    other = Operator(tmp_path / "other")
    other.init()
    other.site("north")
    mine, told = fingerprint(made.federation.ca), fingerprint(other.federation.ca)
    assert mine != told
    for path in (other.kit("north"), other.archive("north")):
        assert verify(path)[1] == told
        assert refused(path, mine).startswith(f"{path} is signed by the CA {told}; wanted the CA {mine};")


def test_a_kit_that_is_signed_anew_has_another_fingerprint(operator: Operator) -> None:
    """Who puts his own CA into a kit can sign anything, and can't hide that it is his."""
    kit = operator.kit("north")
    facts = read_kit(kit)
    now = datetime.now(UTC)
    forger = certificates.new_authority(now, 100)
    issued = forger.issue("north", now=now, days=10)
    altered = {path.relative_to(kit).as_posix(): path.read_bytes() for path in files(kit)}
    altered |= {
        "certs/ca-cert.pem": forger.pem,
        facts.certificate: issued.pem,
        facts.key: issued.key_pem,
        "docker-compose.yml": b"services: {client: {privileged: true}}\n",
    }
    signed = manifest.sealed(
        manifest.Facts(**{**vars(facts), "serial": f"{issued.certificate.serial_number:X}"}),
        {name: content for name, content in altered.items() if name not in {MANIFEST, SIGNATURE}},
        forger,
    )
    for name, content in signed.items():
        (kit / name).write_bytes(content)
    assert verify(kit)[1] == fingerprint(forger.certificate)
    assert "is signed by the CA" in refused(kit, fingerprint(operator.federation.ca))


def test_an_expected_fingerprint_is_no_wish(made: Operator) -> None:
    """Whatever is expected and is not the fingerprint is refused, an empty text and a part of it too."""
    told = fingerprint(made.federation.ca)
    for expected in ("", "00", told[:-3], told + ":00", told.replace("A", "B").replace("0", "1"), "é"):
        assert "wanted the CA" in refused(made.kit("north"), expected)


@pytest.mark.parametrize("which", ["certificate", "key", "both"])
def test_the_identity_of_another_site_is_found(operator: Operator, which: str) -> None:
    """The certificate or key of another site of the same federation makes no kit."""
    north, south = operator.kit("north"), operator.kit("south")
    kinds = {"certificate": ("cert",), "key": ("pkey",), "both": ("cert", "pkey")}[which]
    for kind in kinds:
        shutil.copy(south / "certs" / f"south-{kind}.pem", north / "certs" / f"north-{kind}.pem")
    assert "is not as it was issued" in refused(north)
    with pytest.raises(IdentityError, match="is not as it was issued"):
        read_kit(north)


@pytest.mark.parametrize("which", ["name", "serial", "key", "ca", "rubbish"])
def test_an_identity_that_does_not_fit_is_found_though_it_is_signed(operator: Operator, which: str) -> None:
    """Certificate, name, number, key and CA belong together; a manifest that says otherwise is refused."""
    kit, now = operator.kit("north"), datetime.now(UTC).replace(microsecond=0)
    authority = operator.federation.unlock(PHRASE.encode())
    foreign = certificates.new_authority(now, 10)
    issued = (foreign if which == "ca" else authority).issue("other" if which == "name" else "north", now=now, days=9)
    other = authority.issue("north", now=now, days=9)
    facts = manifest.Facts(**{
        **vars(read_kit(kit)),
        "serial": "ABC" if which == "serial" else f"{issued.certificate.serial_number:X}",
    })  # fmt: skip
    signed = manifest.sealed(
        facts,
        {
            "certs/ca-cert.pem": authority.pem,
            facts.certificate: b"rubbish" if which == "rubbish" else issued.pem,
            facts.key: other.key_pem if which == "key" else issued.key_pem,
        },
        authority,
    )
    for path in files(kit):
        path.unlink()
    for name, content in signed.items():
        (kit / name).write_bytes(content)
    for look in (verify, read_kit):
        with pytest.raises(IdentityError) as caught:
            look(kit)
        found = "the identity can't be read" if which == "rubbish" else "the certificate is not that of north"
        assert str(caught.value).startswith(f"{kit}: {found}")


def test_a_signed_manifest_of_another_form_is_said_to_be_one(operator: Operator) -> None:
    """What a later version of `fed` might sign is refused as that, not as an alteration."""
    kit = operator.kit("north")
    authority = operator.federation.unlock(PHRASE.encode())
    for content in (b"{}", b"[]", b"null", b"{", b'{"role": 1}', b"[" * 100_000):
        signature = authority.key.sign(content, ec.ECDSA(hashes.SHA256()))
        (kit / MANIFEST).write_bytes(content)
        (kit / SIGNATURE).write_bytes(signature.hex().encode() + b"\n")
        assert f"{MANIFEST} is signed, and of another form" in refused(kit)


def test_an_identity_has_its_time(made: Operator) -> None:
    """A kit counts from its issue, an hour of another clock's lag included, until its certificate expires."""
    kit, facts = made.kit("north"), read_kit(made.kit("north"))
    assert facts.expires - facts.issued == timedelta(days=365)
    second = timedelta(seconds=1)
    for now in (facts.issued - certificates.SKEW, facts.expires - second):
        assert verify(kit, now=now)[0] == read_kit(kit, now=now) == facts
    assert refused(kit, now=facts.expires) == (
        f"{kit}: the certificate expired on {facts.expires:%Y-%m-%d %H:%M} UTC; wanted one that is valid;"
        " ask the operator of the federation to renew this kit (`fed kit renew`)"
    )
    early = facts.issued - certificates.SKEW - second
    assert "the certificate is not valid before" in refused(kit, now=early)
    assert refused(kit, now=early).endswith("set this machine's clock")


def test_a_kit_is_read_for_use_though_its_settings_were_changed(operator: Operator) -> None:
    """A client takes its identity from a kit whose Compose file its site has changed; `verify` tells of the change."""
    kit = operator.kit("north")
    for name in ("docker-compose.yml", ".env", "README.md"):
        (kit / name).write_text("changed\n")
    (kit / "docker-compose.override.yml").write_text("services: {}\n")
    assert read_kit(kit).name == "north"
    assert refused(kit)


def test_contents_are_what_the_manifest_lists(made: Operator) -> None:
    """All that a site runs is signed; what is not signed is what it fills."""
    facts = read_kit(made.kit("north"))
    assert facts.yours == contents.SITE_OWN
    assert set(AT_A_SITE) - {MANIFEST, SIGNATURE} <= set(facts.files)
    assert isinstance(made.federation, Federation)
