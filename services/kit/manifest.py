"""A kit's signed manifest: what is in it, whose it is, and whether it is as it was issued.

The federation's CA signs `manifest.json` (ECDSA on P-256 with SHA-256), and `manifest.sig` holds the signature. Whoever
replaces the CA certificate in a kit can sign anything; so its fingerprint is told by another way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from services import certificates
from services.errors import IdentityError
from services.kit.archive import unpacked
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate, client_key
from services.readers.site import Terms

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CERTS = "certs"

LARGEST = 2**20
"""Bytes that a file of a kit may have."""

MOST_FILES = 100

_NEW = "ask the operator of the federation for a new kit, and do not use this one"


@dataclass(frozen=True)
class Facts:
    """What a manifest states.

    Attributes:
        role: `client` for a site's kit, `server` for the server's.
        name: of the site, as in its certificate; `server`.
        server_uri: where the server is reached.
        server_name: name in its certificate, where another one is dialled, or None.
        server_headers: of the websocket's handshake.
        terms: what the site's data must be, or None where the operator does not say.
        issued: when the kit was made.
        expires: when its certificate does.
        serial: of its certificate, in hexadecimal digits.
        yours: names in the kit's folder that its holder fills or changes, and that are not signed.
        files: SHA-256 of every other file, by its path.
    """

    role: str
    name: str
    server_uri: str
    server_name: str | None
    server_headers: Mapping[str, str]
    terms: Terms | None
    issued: datetime
    expires: datetime
    serial: str
    yours: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Write it as JSON."""
        content = {
            "role": self.role,
            "name": self.name,
            "server_uri": self.server_uri,
            "server_name": self.server_name,
            "server_headers": dict(self.server_headers),
            "terms": None if self.terms is None else self.terms.as_json(),
            "issued": self.issued.isoformat(),
            "expires": self.expires.isoformat(),
            "serial": self.serial,
            "yours": list(self.yours),
            "files": dict(sorted(self.files.items())),
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes) -> Facts:
        """Read it.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is none.
        """
        read: dict[str, Any] = json.loads(content)
        name = read["server_name"]
        return cls(
            role=str(read["role"]),
            name=str(read["name"]),
            server_uri=str(read["server_uri"]),
            server_name=None if name is None else str(name),
            server_headers={str(key): str(value) for key, value in read["server_headers"].items()},
            terms=None if read["terms"] is None else Terms.of(read["terms"]),
            issued=datetime.fromisoformat(read["issued"]),
            expires=datetime.fromisoformat(read["expires"]),
            serial=str(read["serial"]),
            yours=tuple(str(entry) for entry in read["yours"]),
            files={str(path): str(digest) for path, digest in read["files"].items()},
        )

    @property
    def certificate(self) -> str:
        """Path of its certificate in the kit."""
        return f"{CERTS}/{SERVER_CERTIFICATE if self.role == 'server' else client_certificate(self.name)}"

    @property
    def key(self) -> str:
        """Path of the private key that belongs to it."""
        return f"{CERTS}/{SERVER_KEY if self.role == 'server' else client_key(self.name)}"


def sealed(facts: Facts, files: Mapping[str, bytes], authority: certificates.Authority) -> dict[str, bytes]:
    """Add to a kit's files the manifest that lists them, signed by the federation's CA."""
    listed = {
        path: hashlib.sha256(content).hexdigest() for path, content in files.items() if not _is_yours(path, facts)
    }
    manifest = Facts(**{**vars(facts), "files": listed}).dump()
    signature = authority.key.sign(manifest, ec.ECDSA(hashes.SHA256()))
    return {**files, MANIFEST: manifest, SIGNATURE: _written(signature)}


def fingerprint(ca: x509.Certificate) -> str:
    """Write the SHA-256 of a CA certificate as tools print it: pairs of digits with colons between them."""
    return ca.fingerprint(hashes.SHA256()).hex(":").upper()


def verify(path: Path, expected: str | None = None, *, now: datetime | None = None) -> tuple[Facts, str]:
    """Check a kit, in a folder or as a .tar.gz: every file is as it was issued, and none is there beside them.

    Args:
        path: the folder, or the archive.
        expected: the fingerprint of the federation's CA, as the operator has told it by another way.
        now: the present; None asks the clock.

    Returns:
        what the manifest states, and the fingerprint of the CA that signed it.

    Raises:
        IdentityError: something is missing, altered, added or expired, or signed by somebody else.
    """
    if _is_plain(path):
        files = _unpacked(path)
        facts, told = _opened(path, files.get)
    else:
        facts, told = _opened(path, lambda name: _content(path / name))
        files = _found(path, facts)
    if expected is not None and expected.replace(":", "").upper() != told.replace(":", ""):
        raise IdentityError(f"{path} is signed by the CA {told}", f"the CA {expected}", _NEW)
    _check_files(path, facts, files, facts.files.keys())
    if added := sorted(files.keys() - facts.files.keys() - {MANIFEST, SIGNATURE}):
        raise IdentityError(f"{path} holds {added[0]}, which was not in it when it was issued", "nothing else", _NEW)
    _check_identity(path, facts, files, now or datetime.now(UTC))
    return facts, told


def read_kit(folder: Path, *, now: datetime | None = None) -> Facts:
    """Read the kit in a folder for use: what its manifest states is signed, and the identity in it is as it was issued.

    What a holder may have changed since, as the Compose file, is left to `verify`.

    Raises:
        IdentityError: see `verify`.
    """
    read: dict[str, bytes] = {}

    def get(name: str) -> bytes | None:
        if name not in read:
            content = _content(folder / name)
            if content is None:
                return None
            read[name] = content
        return read[name]

    facts, _ = _opened(folder, get)
    identity = (f"{CERTS}/{CA_CERTIFICATE}", facts.certificate, facts.key)
    for name in identity:
        get(name)
    _check_files(folder, facts, read, identity)
    _check_identity(folder, facts, read, now or datetime.now(UTC))
    return facts


def _opened(where: Path, get: Callable[[str], bytes | None]) -> tuple[Facts, str]:
    """Read the manifest and hold it against its signature; tell also the fingerprint of the CA that signed it."""
    parts = [get(name) for name in (MANIFEST, SIGNATURE, f"{CERTS}/{CA_CERTIFICATE}")]
    if None in parts:
        missing = (MANIFEST, SIGNATURE, f"{CERTS}/{CA_CERTIFICATE}")[parts.index(None)]
        raise IdentityError(f"{where} holds no {missing}", "a kit, as `fed kit site` makes it", _NEW)
    manifest, signature, pem = (part or b"" for part in parts)
    try:
        ca = x509.load_pem_x509_certificate(pem)
        public = ca.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or pem != ca.public_bytes(Encoding.PEM):
            raise ValueError(pem)
        read = bytes.fromhex(signature.decode("ascii"))
        public.verify(read, manifest, ec.ECDSA(hashes.SHA256()))
        if signature != _written(read):
            raise ValueError(signature)
    except (InvalidSignature, *certificates.MALFORMED):
        raise IdentityError(
            f"{where}: {MANIFEST} is not what the CA in {CERTS}/{CA_CERTIFICATE} has signed",
            "a kit as it was issued",
            _NEW,
        ) from None
    try:
        return Facts.parse(manifest), fingerprint(ca)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise IdentityError(
            f"{where}: {MANIFEST} is signed, and of another form", "a kit of this version of fed", "ask for a new kit"
        ) from None


def _check_files(where: Path, facts: Facts, files: Mapping[str, bytes], names: Collection[str]) -> None:
    for name in sorted(names):
        if name not in facts.files:
            raise IdentityError(f"{where}: {MANIFEST} does not list {name}", "a kit as it was issued", _NEW)
        if name not in files:
            raise IdentityError(f"{where}: {name} is missing or can't be read", "a kit as it was issued", _NEW)
        if hashlib.sha256(files[name]).hexdigest() != facts.files[name]:
            raise IdentityError(f"{where}: {name} is not as it was issued", "a kit as it was issued", _NEW)


def _check_identity(where: Path, facts: Facts, files: Mapping[str, bytes], now: datetime) -> None:
    """Hold the certificate against the CA, the name and the clock, and its key against it."""
    ca = x509.load_pem_x509_certificate(files[f"{CERTS}/{CA_CERTIFICATE}"])
    try:
        leaf = x509.load_pem_x509_certificate(files[facts.certificate])
        key = load_pem_private_key(files[facts.key], password=None)
    except certificates.MALFORMED:
        raise IdentityError(f"{where}: the identity can't be read", "a PEM certificate and key", _NEW) from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    whole = (
        certificates.is_signed(ca, leaf)
        and certificates.common_names(leaf) == [facts.name]
        and f"{leaf.serial_number:X}" == facts.serial
        and leaf.public_key().public_bytes(*spki) == key.public_key().public_bytes(*spki)
    )
    if not whole:
        raise IdentityError(
            f"{where}: the certificate is not that of {facts.name}, signed by the CA, with its key", "", _NEW
        )
    if leaf.not_valid_after_utc <= now:
        raise IdentityError(
            f"{where}: the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "one that is valid",
            "ask the operator of the federation to renew this kit (`fed kit renew`)",
        )
    if leaf.not_valid_before_utc > now:
        raise IdentityError(
            f"{where}: the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            f"one that is valid now ({now:%Y-%m-%d %H:%M} UTC)",
            "set this machine's clock",
        )


def _written(signature: bytes) -> bytes:
    return signature.hex().encode() + b"\n"


def _is_yours(path: str, facts: Facts) -> bool:
    return path.split("/", 1)[0] in facts.yours


def _is_plain(path: Path) -> bool:
    """Tell whether a path leads to a file: what is none, as a pipe, may block whoever opens it."""
    try:
        return path.is_file()
    except OSError:
        return False


def _content(path: Path) -> bytes | None:
    """Read a file of a kit; None where it is missing, unreadable, too large or no file."""
    if not _is_plain(path):
        return None
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError:
        return None
    return content if len(content) <= LARGEST else None


def _found(folder: Path, facts: Facts) -> dict[str, bytes]:
    """Read a kit's folder, but for what its holder fills."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_yours(name, facts) or (path.is_dir() and not path.is_symlink()):
            continue
        if len(files) >= MOST_FILES:
            raise IdentityError(f"{folder} holds more than {MOST_FILES} files", "a kit", "name the folder of a kit")
        content = None if path.is_symlink() else _content(path)  # where a link leads may change later
        if content is None:
            raise IdentityError(f"{folder}: {name} is no file that can be read", "a kit as it was issued", _NEW)
        files[name] = content
    return files


def _unpacked(path: Path) -> dict[str, bytes]:
    try:
        return unpacked(_content(path) or b"", LARGEST)
    except ValueError:
        raise IdentityError(f"{path} is no kit's archive, or was altered", "a .tar.gz as it was issued", _NEW) from None
