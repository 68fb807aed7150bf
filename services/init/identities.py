"""Who is who: certificates for the server and for each client, signed by a CA whose key is never written.

`ca-cert.pem` is a bundle. The key that signed what is kept is gone, so whatever must be renewed is signed by a new CA,
whose certificate is added to the bundle; what the older ones signed stays trusted until it expires.

Profile: RFC 5280, EC P-256 with SHA-256, as strict as OpenSSL's `X509_V_FLAG_X509_STRICT`.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.errors import StorageError, UsageError
from services.init.locking import exclusive
from services.paths import (
    CA_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    client_certificate,
    client_key,
    write_atomic,
)
from services.terminal.progress import counted

logger = logging.getLogger("fed.init")

HOSTS = ("server", "localhost", "127.0.0.1", "::1")
DAYS = 30
SPARE = timedelta(days=7)
SKEW = timedelta(hours=1)
KEY_MODE = 0o600

SERVER = "server"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension)


@dataclass(frozen=True)
class Report:
    """What `ensure` found and did.

    Attributes:
        kept: names whose identity is valid as it is.
        made: names whose identity was issued, each with the reason.
        held: names whose identity needs renewal but is in use by a running client, each with the reason.
        expires: when the first of all identities expires.
    """

    kept: tuple[str, ...]
    made: Mapping[str, str]
    held: Mapping[str, str]
    expires: datetime


@dataclass(frozen=True)
class _Identity:
    """One certificate and key that must be there.

    Attributes:
        name: the subject's common name.
        certificate: file.
        key: file.
        hosts: names and addresses the certificate must cover; empty for a client.
    """

    name: str
    certificate: Path
    key: Path
    hosts: tuple[str, ...] = ()

    @property
    def usage(self) -> x509.ObjectIdentifier:
        return ExtendedKeyUsageOID.SERVER_AUTH if self.hosts else ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class _Authority:
    """A CA in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def client_names(count: int) -> tuple[str, ...]:
    """Name `count` clients, from client_0 on."""
    return tuple(f"client_{number}" for number in range(count))


def ensure(
    server_folder: Path,
    client_folder: Path,
    names: Sequence[str],
    hosts: Sequence[str] = HOSTS,
    *,
    now: datetime | None = None,
    days: float = DAYS,
) -> Report:
    """Make sure that the server and each client have a valid identity; keep those that have one.

    Renewed is what is missing, half-written, expired or about to be, signed by a CA that the bundle lacks, or made for
    another name, role or host. A client's identity on whose certificate another process holds a lock (`flock`) is in
    use, and left as it is. Whoever takes that lock must then check that the path still leads to the file it locked.

    Args:
        server_folder: receives the bundle, the server's certificate and its key.
        client_folder: receives the bundle, and each client's certificate and key.
        names: of the clients.
        hosts: names and addresses under which the server is reached.
        now: the present; None asks the clock.
        days: lifetime of what is issued.

    Raises:
        UsageError: a name or host can't stand in a certificate.
        StorageError: a folder can't be written.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    wanted = _wanted(server_folder, client_folder, names, hosts)
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys((server_folder, client_folder)):
            stack.enter_context(exclusive(folder))
        # The server's bundle counts: nobody but init and the server can reach its folder.
        bundle = _read_bundle(server_folder / CA_CERTIFICATE)
        faults: dict[str, str] = {}
        held: dict[str, str] = {}
        for identity in wanted:
            fault = _fault(identity, bundle, now)
            if fault and _is_claimed(identity.certificate):
                held[identity.name] = fault
            elif fault:
                faults[identity.name] = fault
        authority = _new_authority(now, days) if faults else None
        signers = [ca for ca in bundle if ca.not_valid_after_utc > now or _signed_any(ca, wanted, faults)]
        if authority:
            signers.append(authority.certificate)
        # The bundle goes first: a crash then leaves it with a CA too many, never with a certificate nobody trusts.
        for folder in dict.fromkeys((server_folder, client_folder)):
            _write_bundle(folder / CA_CERTIFICATE, signers)
        for identity in counted(wanted, "issuing identities"):
            if authority and identity.name in faults and not _issue(identity, authority, now, days):
                held[identity.name] = faults.pop(identity.name)
        kept = tuple(identity for identity in wanted if identity.name not in faults and identity.name not in held)
        for identity in kept:
            _tighten(identity.key)
        return Report(tuple(identity.name for identity in kept), faults, held, _first_end(wanted, now))


def _wanted(server_folder: Path, client_folder: Path, names: Sequence[str], hosts: Sequence[str]) -> list[_Identity]:
    """List the identities that must be there, the server's first."""
    if not hosts:
        raise UsageError("no host is given", "the names under which the server is reached", "give at least one")
    for host in hosts:
        if _address(host) is None and not _HOST.fullmatch(host):
            raise UsageError(f"host is {host!r}", "a DNS name or an IP address, with no port", "correct it")
    for name in names:
        if not _NAME.fullmatch(name) or name in {SERVER, "ca"}:
            raise UsageError(
                f"the client's name is {name!r}",
                "1 to 63 letters, digits, '_', '.' or '-', and neither 'server' nor 'ca'",
                "choose another name",
            )
    server = _Identity(SERVER, server_folder / SERVER_CERTIFICATE, server_folder / SERVER_KEY, tuple(hosts))
    clients = [
        _Identity(name, client_folder / client_certificate(name), client_folder / client_key(name)) for name in names
    ]
    return [server, *clients]


def _fault(identity: _Identity, bundle: Sequence[x509.Certificate], now: datetime) -> str:
    """Say in a few words why `identity` must be renewed; nothing when it need not."""
    found = _read_certificate(identity.certificate)
    if found is None:
        return f"{_state(identity.certificate)} certificate"
    key = _read_key(identity.key)
    if key is None:
        return f"{_state(identity.key)} key"
    try:
        if found.public_key() != key.public_key():
            return "key of another certificate"
        return (
            _chain_fault(found, bundle)
            or _time_fault(found, now)
            or _role_fault(found, identity)
            or _name_fault(found, identity)
        )
    except _MALFORMED:
        return "malformed certificate"


def _chain_fault(found: x509.Certificate, bundle: Sequence[x509.Certificate]) -> str:
    return "" if any(_signed(ca, found) for ca in bundle) else "signed by an unknown CA"


def _time_fault(found: x509.Certificate, now: datetime) -> str:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if begins > now:
        return f"not valid before {begins:%Y-%m-%d}"
    if ends <= now:
        return f"expired on {ends:%Y-%m-%d}"
    # A quarter of its life, for one that was issued for days only.
    return f"expires on {ends:%Y-%m-%d}" if ends - now <= min(SPARE, (ends - begins) / 4) else ""


def _role_fault(found: x509.Certificate, identity: _Identity) -> str:
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return "" if list(usage) == [identity.usage] else "made for another role"


def _name_fault(found: x509.Certificate, identity: _Identity) -> str:
    if not identity.hosts:
        names = [attribute.value for attribute in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return "" if names == [identity.name] else f"made for {names}"
    covered = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    missing = [host for host in identity.hosts if _general_name(host) not in covered]
    return f"made before {', '.join(missing)} was asked for" if missing else ""


def _issue(identity: _Identity, authority: _Authority, now: datetime, days: float) -> bool:
    """Write a new key and certificate; tell False when a running client has just claimed the old one."""
    with _claim(identity.certificate) as claimed:
        if not claimed:
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(identity, key.public_key(), authority, now, days)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # A crash between these two leaves a key of another certificate, which the next run finds and mends.
        write_atomic(identity.key, pem, mode=KEY_MODE)
        write_atomic(identity.certificate, certificate.public_bytes(Encoding.PEM))
        return True


def _new_authority(now: datetime, days: float) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    serial = x509.random_serial_number()
    # A name of its own lets every TLS library find the right CA in the bundle.
    name = _subject(f"fed CA {serial:040x}"[:23])
    certificate = (
        x509.CertificateBuilder(name, name, public, serial, now - SKEW, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _sign(
    identity: _Identity, public: ec.EllipticCurvePublicKey, authority: _Authority, now: datetime, days: float
) -> x509.Certificate:
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder(
            issuer.subject,
            _subject(identity.name),
            public,
            x509.random_serial_number(),
            now - SKEW,
            now + timedelta(days=days),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([identity.usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    if identity.hosts:
        names = dict.fromkeys(_general_name(host) for host in identity.hosts)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fed"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host.lower()) if address is None else x509.IPAddress(address)


def _signed(ca: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, *_MALFORMED):
        return False
    return True


def _signed_any(ca: x509.Certificate, wanted: Iterable[_Identity], faults: Mapping[str, str]) -> bool:
    """Tell whether `ca` signed anything that stays."""
    staying = (_read_certificate(identity.certificate) for identity in wanted if identity.name not in faults)
    return any(_signed(ca, leaf) for leaf in staying if leaf)


def _first_end(wanted: Iterable[_Identity], now: datetime) -> datetime:
    found = (_read_certificate(identity.certificate) for identity in wanted)
    return min((leaf.not_valid_after_utc if leaf else now for leaf in found), default=now)


def _read_bundle(path: Path) -> list[x509.Certificate]:
    """Read the CA certificates at `path`; a bundle that is missing or damaged holds none."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
        return [ca for ca in certificates if ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca]
    except (OSError, *_MALFORMED):
        return []


def _write_bundle(path: Path, authorities: Sequence[x509.Certificate]) -> None:
    content = b"".join(ca.public_bytes(Encoding.PEM) for ca in authorities)
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomic(path, content)


def _read_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, *_MALFORMED):
        return None


def _read_key(path: Path) -> PrivateKeyTypes | None:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, *_MALFORMED):
        return None


def _state(path: Path) -> str:
    return "unreadable" if path.exists() else "missing"


def _tighten(key: Path) -> None:
    """Take away what others may do with a kept key, as after a copy that lost its mode."""
    try:
        if key.stat().st_mode & 0o077:
            key.chmod(KEY_MODE)
            logger.warning("%s could be read by others; its mode is 0600 again", key)
    except OSError as exc:
        raise StorageError(
            f"the mode of {key} can't be mended ({exc.strerror or exc})", "0600", f"chmod 600 {key}"
        ) from exc


@contextlib.contextmanager
def _claim(certificate: Path) -> Iterator[bool]:
    """Hold the lock that a running client takes on its certificate; give False when one holds it already."""
    try:
        handle = os.open(certificate, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # Nobody can claim what can't be opened.
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # Nor can anybody on a file system without locks.
            free = True
        else:
            free = True
        yield free
    finally:
        os.close(handle)


def _is_claimed(certificate: Path) -> bool:
    with _claim(certificate) as free:
        return not free
