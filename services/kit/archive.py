"""A kit as a .tar.gz, of which there is one for the same kit, byte for byte, and that holds nothing else."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Collection, Mapping

from services import certificates

_GZIP_HEAD = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255])
"""Head of an archive (RFC 1952, section 2.3): no name, no time, no system, so that it is always the same."""

_BLOCK = 2**16 - 1
"""Bytes that are stored in a block at most (RFC 1951, section 3.2.4)."""


def unpacked(content: bytes, largest: int) -> dict[str, bytes]:
    """Read an archive as `packed` writes it: one folder with plain files in it.

    Args:
        content: of the archive.
        largest: bytes that it may come to.

    Returns:
        the files, by their path in the folder.

    Raises:
        ValueError: it is none, or is written in any other way.
    """
    files: dict[str, bytes] = {}
    roots = set()
    try:
        plain = zlib.decompressobj(wbits=31).decompress(content, largest)
        if content != gzipped(plain):
            raise ValueError("another form of gzip")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                root, _, name = member.name.partition("/")
                roots.add(root)
                if root in {"", ".", ".."} or ".." in name.split("/") or len(roots) > 1 or member.pax_headers:
                    raise ValueError(member.name)
                if member.type == tarfile.DIRTYPE:
                    continue
                file = archive.extractfile(member) if member.type == tarfile.REGTYPE else None
                if file is None or name in files or member.mode != mode_of(name):
                    raise ValueError(member.name)
                files[name] = file.read()
            if plain[archive.offset :].strip(b"\0"):  # which another tool might go on to read
                raise ValueError("something behind the end")
    except (OSError, OverflowError, tarfile.TarError, zlib.error) as exc:
        raise ValueError(exc) from None
    return files


def packed(root: str, files: Mapping[str, bytes], *, empty: Collection[str] = ()) -> bytes:
    """Write a kit as a .tar.gz: the same bytes for the same kit.

    Args:
        root: name of the folder that it unpacks to.
        files: by path in it; private keys are for their owner alone.
        empty: names of folders in it that are empty.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in ["", *empty]:
            entry = tarfile.TarInfo(f"{root}/{folder}".rstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{root}/{path}")
            entry.size, entry.mode = len(content), mode_of(path)
            archive.addfile(entry, io.BytesIO(content))
    return gzipped(plain.getvalue())


def gzipped(plain: bytes) -> bytes:
    """Write gzip's form, not compressed: of that alone there is one for the same content, by whichever library."""
    starts = range(0, max(len(plain), 1), _BLOCK)
    blocks = [plain[start : start + _BLOCK] for start in starts]
    body = b"".join(
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ _BLOCK) + block
        for number, block in enumerate(blocks, 1)
    )
    return _GZIP_HEAD + body + struct.pack("<II", zlib.crc32(plain), len(plain))


def mode_of(path: str) -> int:
    """Tell the permission bits of a file of a kit."""
    return certificates.KEY_MODE if path.endswith("-pkey.pem") else 0o644
