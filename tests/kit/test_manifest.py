"""A kit's manifest: whatever is altered, added or missing is found, in the folder and in the archive."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services import certificates
from services.errors import IdentityError
from services.kit import contents, manifest
from services.kit.federation import Federation
from services.kit.manifest import MANIFEST, SIGNATURE, fingerprint, read_kit, verify
from tests.kit.conftest import PHRASE, Operator

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


def refused(path: Path, *args: Any, **kwargs: Any) -> str:
    """Verify what is no whole kit; gives the one line that says why."""
    with pytest.raises(IdentityError) as caught:
        verify(path, *args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> list[Path]:
    """List the files of a kit."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flips(content: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield `content` with one bit changed, once for each of its bytes, or for each so many of them."""
    for position in range(0, len(content), step):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        yield bytes(changed)


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


def test_one_altered_bit_in_the_archive_is_found(operator: Operator) -> None:
    """Each byte of the archive counts, those of gzip's head too."""
    path = operator.archive("north")
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(whole):
            os.pwrite(file.fileno(), bytes([byte ^ 1 << position % 8]), position)
            assert refused(path)
            os.pwrite(file.fileno(), bytes([byte]), position)
    verify(path)


def test_one_altered_byte_inside_the_archive_is_found(operator: Operator, tmp_path: Path) -> None:
    """Where tar is altered and packed anew, nothing but harmless words of its own heads may differ."""
    plain = gzip.decompress(operator.archive("north").read_bytes())
    path = tmp_path / "north.tar.gz"
    said: list[str] = []
    for changed in flips(plain, 7):
        path.write_bytes(manifest._gzipped(changed))
        try:
            verify(path)
        except IdentityError as exc:
            said.append(str(exc))
        else:
            assert unpacked(changed) == unpacked(plain)
    assert len(said) > 1000
    assert not any("\n" in line for line in said)


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


# -- archives ---------------------------------------------------------------------------------------------------------


def unpacked(plain: bytes) -> dict[str, tuple[bytes, int]]:
    """List the files in a tar, with their permissions."""
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        found = [(entry, archive.extractfile(entry)) for entry in archive if entry.isfile()]
        return {entry.name: (file.read(), entry.mode) for entry, file in found if file is not None}


def rewritten(path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> None:
    """Write an archive anew, after `change` was let at its entries."""
    with tarfile.open(path) as archive:
        entries = [
            (entry, file.read() if (file := archive.extractfile(entry)) is not None else b"") for entry in archive
        ]
    change(entries)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(manifest._gzipped(plain.getvalue()))


def entry(name: str, content: bytes = b"", **kwargs: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Make one entry of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in kwargs.items():
        setattr(info, key, value)
    return info, content


def test_an_archive_has_one_form(operator: Operator) -> None:
    """The helper above changes nothing by itself; the same archive that another program has compressed is refused."""
    path = operator.archive("north")
    rewritten(path, list)
    assert verify(path)[0].name == "north"
    plain = gzip.decompress(path.read_bytes())
    for level in (0, 1, 9):
        path.write_bytes(gzip.compress(plain, level, mtime=0))
        assert "is no kit's archive, or was altered" in refused(path)


@pytest.mark.parametrize("length", [0, 1, 2**16 - 1, 2**16, 2**17])
def test_what_is_packed_is_gzip(length: int) -> None:
    """Any program unpacks it, however long it is."""
    plain = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    assert gzip.decompress(manifest._gzipped(plain)) == plain


@pytest.mark.parametrize(
    "added",
    [
        entry("north/added", b"x"),
        entry("north/data/labels.csv", b"1"),
        entry("north/secagg/south-secagg-public.pem", b"a key of somebody else"),
        entry("north/.env", b"SERVER_URI="),
        entry("south/file", b"x"),
        entry("south", type=tarfile.DIRTYPE),
        entry("..", type=tarfile.DIRTYPE),
        entry("north/../../up", b"x"),
        entry("north/..", type=tarfile.DIRTYPE),
        entry("/etc/passwd", b"x"),
        entry("file", b"x"),
        entry("north/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("north/disk", type=tarfile.BLKTYPE),
        entry("north/pipe", type=tarfile.FIFOTYPE),
        entry("north/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("north/hard", type=tarfile.LNKTYPE, linkname="north/.env"),
        entry("north/sparse", type=tarfile.GNUTYPE_SPARSE),
        entry("north/added", b"x", pax_headers={"path": "north/.env"}),
    ],
    ids=lambda added: f"{added[0].name} {added[0].type.decode()}",
)
def test_an_archive_holds_nothing_else(operator: Operator, added: tuple[tarfile.TarInfo, bytes]) -> None:
    """A file more, another root, a way out, a device, a link: an archive with it is refused."""
    rewritten(operator.archive("north"), lambda entries: entries.append(added))
    assert refused(operator.archive("north"))


def test_an_archive_has_one_root_below_the_folder_it_is_unpacked_in(operator: Operator, tmp_path: Path) -> None:
    """A root that leads out of that folder is refused, though all files in it are as they were issued."""
    for root in ("", ".", ".."):
        path = tmp_path / "kit.tar.gz"
        shutil.copy(operator.archive("north"), path)

        def move(entries: list[tuple[tarfile.TarInfo, bytes]], root: str = root) -> None:
            for info, _ in entries:
                info.name = info.name.replace("north", root, 1)

        rewritten(path, move)
        assert "is no kit's archive, or was altered" in refused(path)


def test_an_archive_has_the_permissions_of_a_kit(operator: Operator) -> None:
    """A key that everybody could read once it is unpacked is refused."""

    def widen(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        for info, _ in entries:
            info.mode = 0o777

    rewritten(operator.archive("north"), widen)
    assert refused(operator.archive("north"))


def test_an_archive_may_be_cut_anywhere(operator: Operator) -> None:
    """An archive that ends early, or late, is refused."""
    path = operator.archive("north")
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 7), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert refused(path)
    for tail in (b"\0", b"\n", b"x" * 1000, whole):
        path.write_bytes(whole + tail)
        assert refused(path)


def test_nothing_hides_behind_the_end_of_an_archive(operator: Operator) -> None:
    """What stands behind tar's end, where some tools read on, is refused."""
    path = operator.archive("north")
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(manifest._gzipped(plain + plain))
    assert refused(path)


@pytest.mark.parametrize("size", [manifest.LARGEST + 1, 100 * manifest.LARGEST])
def test_an_archive_that_swells_is_refused(tmp_path: Path, size: int) -> None:
    """No more is unpacked than a kit may have."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(b"\0" * size, mtime=0))
    assert "is no kit's archive, or was altered" in refused(path)


def test_what_is_no_kit_is_said_to_be_none(tmp_path: Path) -> None:
    """An empty folder, one that is not there, and any file are refused by one line."""
    (tmp_path / "file").write_text("x")
    wanted = f"holds no {MANIFEST}; wanted a kit, as `fed kit site` makes it;"
    assert refused(tmp_path / "none").startswith(f"{tmp_path / 'none'} {wanted}")
    assert refused(tmp_path).startswith(f"{tmp_path} {wanted}")
    assert refused(tmp_path / "file").startswith(f"{tmp_path / 'file'} is no kit's archive, or was altered;")


def test_the_archive_unpacks_to_the_folder(operator: Operator, tmp_path: Path) -> None:
    """`tar -xzf` makes of the archive what stands beside it: the same files, modes and empty folder; it verifies."""
    subprocess.run(["tar", "-xzf", operator.archive("north"), "-C", tmp_path], check=True, umask=0o022)

    def listed(folder: Path) -> dict[str, Any]:
        return {
            path.relative_to(folder).as_posix(): (
                path.is_dir() or (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
            )
            for path in folder.rglob("*")
        }

    assert listed(tmp_path / "north") == listed(operator.kit("north"))
    assert (tmp_path / "north" / "data").is_dir()
    assert verify(tmp_path / "north") == verify(operator.kit("north"))
    keys = [path for path in files(tmp_path / "north") if stat.S_IMODE(path.stat().st_mode) != 0o644]
    assert [path.name for path in keys] == ["north-pkey.pem"]
    assert stat.S_IMODE(keys[0].stat().st_mode) == certificates.KEY_MODE


def test_the_archive_is_the_same_for_the_same_kit(made: Operator) -> None:
    """No clock, no user and no order of files leaves a trace in an archive."""
    read = {path.relative_to(made.kit("north")).as_posix(): path.read_bytes() for path in files(made.kit("north"))}
    for order in (read, dict(reversed(read.items()))):
        assert manifest.packed("north", order, empty=("data",)) == made.archive("north").read_bytes()


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
