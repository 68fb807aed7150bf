"""Who is who: certificates for the server and for each client, signed by a CA whose key is never written.

`ca-cert.pem` is a bundle. The key that signed what is kept is gone, so whatever must be renewed is signed by a new CA,
whose certificate is added to the bundle; what the older ones signed stays trusted until it expires.
The profile is that of `services.certificates`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services import certificates
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
        authority = certificates.new_authority(now, days) if faults else None
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
        certificates.check_host(host)
    for name in names:
        certificates.check_name(name)
    server = _Identity(
        certificates.SERVER, server_folder / SERVER_CERTIFICATE, server_folder / SERVER_KEY, tuple(hosts)
    )
    clients = [
        _Identity(name, client_folder / client_certificate(name), client_folder / client_key(name)) for name in names
    ]
    return [server, *clients]


def _fault(identity: _Identity, bundle: Sequence[x509.Certificate], now: datetime) -> str:
    """Say in a few words why `identity` must be renewed; nothing when it need not."""
    found = certificates.read_certificate(identity.certificate)
    if found is None:
        return f"{_state(identity.certificate)} certificate"
    key = certificates.read_key(identity.key)
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
    except certificates.MALFORMED:
        return "malformed certificate"


def _chain_fault(found: x509.Certificate, bundle: Sequence[x509.Certificate]) -> str:
    return "" if any(certificates.is_signed(ca, found) for ca in bundle) else "signed by an unknown CA"


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
    return "" if list(usage) == [certificates.usage(identity.hosts)] else "made for another role"


def _name_fault(found: x509.Certificate, identity: _Identity) -> str:
    if not identity.hosts:
        names = certificates.common_names(found)
        return "" if names == [identity.name] else f"made for {names}"
    covered = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    missing = [host for host in identity.hosts if certificates.general_name(host) not in covered]
    return f"made before {', '.join(missing)} was asked for" if missing else ""


def _issue(identity: _Identity, authority: certificates.Authority, now: datetime, days: float) -> bool:
    """Write a new key and certificate; tell False when a running client has just claimed the old one."""
    with _claim(identity.certificate) as claimed:
        if not claimed:
            return False
        issued = authority.issue(identity.name, identity.hosts, now=now, days=days)
        # A crash between these two leaves a key of another certificate, which the next run finds and mends.
        write_atomic(identity.key, issued.key_pem, mode=certificates.KEY_MODE)
        write_atomic(identity.certificate, issued.pem)
        return True


def _signed_any(ca: x509.Certificate, wanted: Iterable[_Identity], faults: Mapping[str, str]) -> bool:
    """Tell whether `ca` signed anything that stays."""
    staying = (
        certificates.read_certificate(identity.certificate) for identity in wanted if identity.name not in faults
    )
    return any(certificates.is_signed(ca, leaf) for leaf in staying if leaf)


def _first_end(wanted: Iterable[_Identity], now: datetime) -> datetime:
    found = (certificates.read_certificate(identity.certificate) for identity in wanted)
    return min((leaf.not_valid_after_utc if leaf else now for leaf in found), default=now)


def _read_bundle(path: Path) -> list[x509.Certificate]:
    """Read the CA certificates at `path`; a bundle that is missing or damaged holds none."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
        return [ca for ca in found if ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca]
    except (OSError, *certificates.MALFORMED):
        return []


def _write_bundle(path: Path, authorities: Sequence[x509.Certificate]) -> None:
    content = b"".join(ca.public_bytes(Encoding.PEM) for ca in authorities)
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomic(path, content)


def _state(path: Path) -> str:
    return "unreadable" if path.exists() else "missing"


def _tighten(key: Path) -> None:
    """Take away what others may do with a kept key, as after a copy that lost its mode."""
    try:
        if key.stat().st_mode & 0o077:
            key.chmod(certificates.KEY_MODE)
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
