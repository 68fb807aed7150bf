"""The operator's folder of a federation: its CA, whose key never leaves it, and a ledger of what that has signed.

ca/ca-key.pem        encrypted by a passphrase (PKCS #8)
ca/ca-cert.pem       the CA certificate
federation.json      where the server is, what data it trains on, and every certificate that was issued
server/              the server's kit
sites/<name>/        a site's kit, and beside it the same as <name>.tar.gz
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from services import certificates
from services.errors import ConflictError, IdentityError, StorageError
from services.kit import archive
from services.paths import CA_CERTIFICATE, write_atomic
from services.readers.site import Terms

LEDGER = "federation.json"
CA_KEY = "ca-key.pem"
SITES = "sites"
SERVER = certificates.SERVER

CA_DAYS = 3650


@dataclass(frozen=True)
class Certificate:
    """One certificate that was issued.

    Attributes:
        name: whose it is.
        serial: its number, in hexadecimal digits.
        issued: when.
        expires: when it does.
        revoked: when it was, or None.
    """

    name: str
    serial: str
    issued: datetime
    expires: datetime
    revoked: datetime | None = None


@dataclass(frozen=True)
class Ledger:
    """What is known of a federation.

    Attributes:
        server_uri: where the server is reached.
        hosts: names and addresses in its certificate.
        server_name: name in it that sites ask for, where they dial another one, or None.
        server_headers: of their websocket's handshake.
        terms: what data sites must have, or None where nobody has said.
        days: lifetime of the certificates.
        issued: all of them, in the order in which they were issued.
    """

    server_uri: str
    hosts: tuple[str, ...]
    server_name: str | None
    server_headers: Mapping[str, str]
    terms: Terms | None
    days: int
    issued: tuple[Certificate, ...] = ()

    def of(self, name: str) -> list[Certificate]:
        """List the certificates of one name."""
        return [one for one in self.issued if one.name == name]

    def valid(self, name: str, now: datetime) -> list[Certificate]:
        """List those that are neither revoked nor expired."""
        return [one for one in self.of(name) if one.revoked is None and one.expires > now]

    def names(self) -> list[str]:
        """List everybody who ever had one, the server first."""
        return list(dict.fromkeys(one.name for one in self.issued))


class Federation:
    """A federation's folder.

    Args:
        folder: the folder.
        ledger: what is in its ledger.
        ca: the CA certificate.
    """

    def __init__(self, folder: Path, ledger: Ledger, ca: x509.Certificate) -> None:
        self.folder = folder
        self.ledger = ledger
        self.ca = ca

    @classmethod
    def create(cls, folder: Path, ledger: Ledger, passphrase: bytes, now: datetime) -> Federation:
        """Make the folder, and in it a CA.

        Raises:
            ConflictError: there is one already.
            StorageError: the folder can't be written.
        """
        if (folder / LEDGER).exists() or (folder / "ca" / CA_KEY).exists():
            raise ConflictError(
                f"{folder} holds a federation already",
                "a new folder",
                "add sites to it with `fed kit site NAME`, or name another folder by --folder",
            )
        authority = certificates.new_authority(now, CA_DAYS)
        key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
        try:
            (folder / "ca").mkdir(parents=True, exist_ok=True)
            (folder / "ca").chmod(0o700)
        except OSError as exc:
            raise StorageError(f"{folder} can't be written ({exc.strerror or exc})", "a writable folder") from exc
        write_atomic(folder / "ca" / CA_KEY, key, mode=certificates.KEY_MODE)
        write_atomic(folder / "ca" / CA_CERTIFICATE, authority.pem)
        made = cls(folder, ledger, authority.certificate)
        made.write()
        return made

    @classmethod
    def open(cls, folder: Path) -> Federation:
        """Open one that is there.

        Raises:
            IdentityError: there is none, or it can't be read.
        """
        path = folder / LEDGER
        try:
            ledger = _parse(json.loads(path.read_text(encoding="utf-8")))
        except OSError as exc:
            raise IdentityError(
                f"{folder} holds no federation ({LEDGER}: {exc.strerror or exc})",
                "the folder that `fed kit init` made",
                "run `fed kit init` first, or name the folder by --folder",
            ) from exc
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as exc:
            raise IdentityError(f"{path} can't be parsed", "what `fed kit` wrote", "restore it from a backup") from exc
        ca = certificates.read_certificate(folder / "ca" / CA_CERTIFICATE)
        if ca is None:
            raise IdentityError(
                f"{folder / 'ca' / CA_CERTIFICATE} is missing or damaged",
                "a PEM certificate",
                "restore it from a backup",
            )
        return cls(folder, ledger, ca)

    def write(self) -> None:
        """Write the ledger."""
        content = dataclasses.asdict(self.ledger)
        content["terms"] = None if self.ledger.terms is None else self.ledger.terms.as_json()
        text = json.dumps(content, indent=1, ensure_ascii=False, default=datetime.isoformat)
        write_atomic(self.folder / LEDGER, text + "\n")

    def unlock(self, passphrase: bytes) -> certificates.Authority:
        """Take up the CA's key.

        Raises:
            IdentityError: the passphrase is another one, or the key is not that of the CA certificate.
        """
        path = self.folder / "ca" / CA_KEY
        try:
            key = load_pem_private_key(path.read_bytes(), passphrase)
        except OSError as exc:
            raise IdentityError(
                f"the CA's key {path} can't be read ({exc.strerror or exc})",
                "the key, which is kept on the machine of `fed kit init` alone",
                "do this there",
            ) from exc
        except certificates.MALFORMED as exc:
            raise IdentityError(
                f"the CA's key {path} does not open", "the passphrase that was given to `fed kit init`", "try again"
            ) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.ca.public_key():
            raise IdentityError(f"{path} is not the key of {CA_CERTIFICATE}", "a pair", "restore both from a backup")
        return certificates.Authority(self.ca, key)

    def issue(
        self, name: str, authority: certificates.Authority, now: datetime, hosts: Sequence[str] = ()
    ) -> certificates.Issued:
        """Issue a certificate and note it, before anybody has it: what the ledger does not know can't be revoked.

        Raises:
            IdentityError: the CA has expired.
            StorageError: the ledger can't be written.
        """
        ends = self.ca.not_valid_after_utc
        if ends <= now:
            raise IdentityError(
                f"the CA expired on {ends:%Y-%m-%d}",
                "one that is valid",
                "make a new federation with `fed kit init`, and give each site a new kit",
            )
        left = (ends - now) / timedelta(days=1)  # nothing that a CA signs counts for longer than it
        issued = authority.issue(name, hosts, now=now, days=min(self.ledger.days, left))
        expires = issued.certificate.not_valid_after_utc
        noted = Certificate(name, f"{issued.certificate.serial_number:X}", now, expires)
        self.ledger = dataclasses.replace(self.ledger, issued=(*self.ledger.issued, noted))
        self.write()
        return issued

    def revoke(self, ended: Sequence[Certificate], now: datetime) -> None:
        """Note that these certificates count no more."""
        numbers = {one.serial for one in ended}
        issued = tuple(
            dataclasses.replace(one, revoked=now) if one.serial in numbers else one for one in self.ledger.issued
        )
        self.ledger = dataclasses.replace(self.ledger, issued=issued)
        self.write()

    def publish(self, name: str, files: Mapping[str, bytes], yours: Sequence[str], empty: Sequence[str] = ()) -> Path:
        """Put a kit into its place: a new one whole or not at all; one that is there is brought up to it.

        What its holder fills stays. A site's is written as an archive too.

        Args:
            name: of the site, or `server`.
            files: of the kit, by their path.
            yours: names in it that are its holder's: what is there stays.
            empty: names of folders in it that are empty.

        Raises:
            StorageError: the folder can't be written.
        """
        place = self.folder / SERVER if name == SERVER else self.folder / SITES / name
        new = not place.exists()
        aside = place.with_name(f".{name}.new")
        target = aside if new else place
        try:
            shutil.rmtree(aside, ignore_errors=True)
            for path, content in files.items():
                if path.split("/", 1)[0] not in yours or not (target / path).exists():
                    write_atomic(target / path, content, mode=archive.mode_of(path))
            for stray in _strays(target, files, yours):
                stray.unlink()
            for folder in empty:
                (target / folder).mkdir(parents=True, exist_ok=True)
            if name != SERVER:
                packed = archive.packed(name, files, empty=empty)
                write_atomic(place.with_name(f"{name}.tar.gz"), packed, mode=certificates.KEY_MODE)  # a key is in it
            if new:
                target.rename(place)
        except OSError as exc:
            raise StorageError(f"{place} can't be written ({exc.strerror or exc})", "a writable folder") from exc
        return place


def _strays(kit: Path, files: Mapping[str, bytes], yours: Sequence[str]) -> list[Path]:
    """List what is in a kit's folder and neither of the kit nor its holder's: it would not verify."""
    found = {
        path.relative_to(kit).as_posix(): path for path in kit.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    return [path for name, path in found.items() if name not in files and name.split("/", 1)[0] not in yours]


def _parse(content: Any) -> Ledger:
    """Build a ledger from JSON; anything amiss surfaces as ValueError, TypeError, KeyError or AttributeError."""

    def moment(text: str) -> datetime:
        read = datetime.fromisoformat(text)
        if read.tzinfo is None:
            raise ValueError(text)
        return read

    def certificates_() -> Iterator[Certificate]:
        for one in content["issued"]:
            revoked = one["revoked"]
            yield Certificate(
                str(one["name"]),
                str(one["serial"]),
                moment(one["issued"]),
                moment(one["expires"]),
                None if revoked is None else moment(revoked),
            )

    return Ledger(
        server_uri=str(content["server_uri"]),
        hosts=tuple(str(host) for host in content["hosts"]),
        server_name=None if content["server_name"] is None else str(content["server_name"]),
        server_headers={str(key): str(value) for key, value in content["server_headers"].items()},
        terms=None if content["terms"] is None else Terms.of(content["terms"]),
        days=int(content["days"]),
        issued=tuple(certificates_()),
    )
