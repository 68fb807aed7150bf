"""Every shared path, who writes it and who reads it; the same layout on a host and in the containers.

data/mnist_raw/     the four IDX files, or elsewhere: DATA   read by init
data/shards/        training images and index sets         written by init, read by clients
data/test/          the 10,000 held-out test images        written by init, read by the server
certs/              CA certificate, server certificate     written by init, read by the server
certs/clients/      CA certificate, client identities      written by init, read by clients
results/            one folder a run                       written by the server, read by people
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.errors import StorageError

CA_CERTIFICATE = "ca-cert.pem"
SERVER_CERTIFICATE = "server-cert.pem"
SERVER_KEY = "server-pkey.pem"
MANIFEST = "manifest.json"
SECAGG = "secagg"
"""In a site's kit: its keys for secure aggregation, and its peers' public ones."""


@dataclass(frozen=True)
class Paths:
    """The folders of one federation below one root.

    Attributes:
        root: the folder that holds `data/`, `certs/` and `results/`.
        data: the folder that holds the data set, or None for the data set's own place.
    """

    root: Path
    data: Path | None = None

    @property
    def raw(self) -> Path:
        return self.root / "data" / "mnist_raw"

    @property
    def shards(self) -> Path:
        return self.root / "data" / "shards"

    @property
    def test(self) -> Path:
        return self.root / "data" / "test"

    @property
    def certs(self) -> Path:
        return self.root / "certs"

    @property
    def client_certs(self) -> Path:
        return self.root / "certs" / "clients"

    @property
    def results(self) -> Path:
        return self.root / "results"


def client_certificate(name: str) -> str:
    """Name the certificate file of the client called `name`."""
    return f"{name}-cert.pem"


def client_key(name: str) -> str:
    """Name the private key file of the client called `name`."""
    return f"{name}-pkey.pem"


def secagg_key(name: str) -> str:
    """Name the private key file for secure aggregation of the client called `name`."""
    return f"{name}-secagg.pem"


def secagg_public_key(name: str) -> str:
    """Name the public key file for secure aggregation of the client called `name`."""
    return f"{name}-secagg-public.pem"


@contextlib.contextmanager
def writing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write `path` whole or not at all: into a neighbour, then synced and renamed over it.

    Args:
        path: the file to write; its folder is made when missing.
        mode: permission bits of the file.

    Raises:
        StorageError: the folder can't be written, or the disk is full.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            yield file
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
        temporary = None
    except OSError as exc:
        raise StorageError(
            f"{path} can't be written ({exc.strerror or exc})",
            f"a writable folder {path.parent} with space left",
            "mend its permissions or free some space, then start again",
        ) from exc
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write `content` to `path` whole or not at all; see `writing`."""
    with writing(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sweep(folder: Path) -> None:
    """Remove what `writing` leaves in `folder`, and in the folders in it, when it is killed; nobody may write there."""
    for left in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        with contextlib.suppress(OSError):
            left.unlink()
