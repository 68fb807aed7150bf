"""A kit's archive: one form, nothing in it but the kit, and whatever is altered is found."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services import certificates
from services.errors import IdentityError
from services.kit import archive
from services.kit.archive import gzipped
from services.kit.manifest import LARGEST, MANIFEST, verify
from tests.kit.conftest import Operator, files, flips, refused


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
    path.write_bytes(gzipped(plain.getvalue()))


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
    assert gzip.decompress(gzipped(plain)) == plain


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
    path.write_bytes(gzipped(plain + plain))
    assert refused(path)


@pytest.mark.parametrize("size", [LARGEST + 1, 100 * LARGEST])
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
        assert archive.packed("north", order, empty=("data",)) == made.archive("north").read_bytes()


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
        path.write_bytes(gzipped(changed))
        try:
            verify(path)
        except IdentityError as exc:
            said.append(str(exc))
        else:
            assert unpacked(changed) == unpacked(plain)
    assert len(said) > 1000
    assert not any("\n" in line for line in said)
