"""Claiming an identity: the lowest free `client_<i>` whose certificate file nobody has locked.

The lock is `flock` on the certificate file (flock(2)): it works through a read-only volume, holds across containers of
one host, and the kernel frees it when its holder dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.errors import IdentityError
from services.paths import CA_CERTIFICATE, client_certificate, client_key

_NUMBERED = re.compile(r"client_(\d+)-cert\.pem")


@dataclass(frozen=True)
class Identity:
    """A claimed identity; it stays claimed for as long as `lock` is open.

    Attributes:
        name: the name in the certificate.
        certificate: PEM certificate.
        key: PEM private key.
        ca: PEM bundle of the CAs that sign server certificates.
        lock: the open, locked certificate file.
    """

    name: str
    certificate: Path
    key: Path
    ca: Path
    lock: BinaryIO


def claim(folder: Path, name: str | None = None) -> Identity:
    """Claim `name`, or the lowest free of the numbered identities in `folder`.

    Raises:
        IdentityError: there is no such identity, or none is free.
    """
    if name is not None:
        identity = _try(folder, name)
        if identity is None:
            raise IdentityError(
                f"identity {name} in {folder} is held by another process",
                "one that is free",
                "end that process, or drop CLIENT_NAME",
            )
        return identity
    names = _numbered(folder)
    for candidate in names:
        identity = _try(folder, candidate)
        if identity is not None:
            return identity
    raise IdentityError(
        f"{folder} holds {len(names)} client identities, none of them free",
        "a free one",
        "raise MAX_CLIENTS in .env and run `fed init` again" if names else "run `fed init` or `fed certs` first",
    )


def _numbered(folder: Path) -> list[str]:
    try:
        found = [match for path in folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
    except OSError as exc:
        raise IdentityError(
            f"client identities in {folder} can't be read ({exc.strerror})",
            "a folder of certificates",
            "run `fed init` or `fed certs` first",
        ) from exc
    return [f"client_{number}" for number in sorted(int(match[1]) for match in found)]


def _try(folder: Path, name: str) -> Identity | None:
    path = folder / client_certificate(name)
    try:
        file = path.open("rb")
    except OSError as exc:
        raise IdentityError(
            f"certificate {path} can't be read ({exc.strerror})",
            "a readable PEM file",
            "run `fed init` or `fed certs` first",
        ) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
        # `init` renewed it between our opening and locking it: what we hold is the file it replaced
        file.close()
        return _try(folder, name)
    return Identity(name, path, folder / client_key(name), folder / CA_CERTIFICATE, file)
