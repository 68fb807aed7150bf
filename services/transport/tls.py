"""TLS contexts of both ends, and whose certificate the other end showed.

TLS 1.2 or later, mutual by default (RFC 8446, RFC 5280): each side proves itself by a certificate of the federation's
CA. Certificate files are read and checked before a socket is opened, so that what is wrong with them is one line.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from services.errors import IdentityError

REISSUE = "run `fed init` (containers: `docker compose up init`) or `fed certs` to issue it anew"


Listener = Callable[[ssl.SSLError], None]

on_handshake_failure: ContextVar[Listener | None] = ContextVar("on_handshake_failure", default=None)
"""What a server's handshake that begins in this context calls when it fails."""


class _Telling(ssl.SSLObject):
    """An `SSLObject` that lets the other end know why its handshake failed.

    asyncio drops the connection of a failed handshake without sending the alert that OpenSSL has prepared (RFC 8446,
    section 6.2), so that a client refused for its certificate would only see the connection close. Asking for more
    input instead makes asyncio send what is prepared; the failure follows when the client hangs up or time runs out.
    """

    on_failure: Listener | None = None
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            self._failure = exc
            if self.on_failure is not None:
                self.on_failure(exc)
            raise ssl.SSLWantReadError from exc


class _ServerContext(ssl.SSLContext):
    """An `SSLContext` whose handshakes tell of their failure; overrides `wrap_bio`, by which asyncio begins one."""

    sslobject_class = _Telling

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        made = super().wrap_bio(*args, **kwargs)
        cast("_Telling", made).on_failure = on_handshake_failure.get()
        return made


def server_context(certificate: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    """Build the context a server listens with.

    Args:
        certificate: PEM certificate of the server.
        key: PEM private key that belongs to it.
        ca: PEM bundle of the CAs whose clients may join; None lets anyone join (stock declearn clients).

    Raises:
        IdentityError: a file is missing, unreadable, expired, or the key does not belong to the certificate.
    """
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # nobody resumes a session, of which OpenSSL would keep 20,000, each with its peer's certificate
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    renew(context, certificate, key, ca)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path, ca: Path | None) -> None:
    """Load a server's identity and the CAs it trusts into a context that may be in use; a CA is added, never removed.

    Raises:
        IdentityError: a file is missing, unreadable, expired, or the key does not belong to the certificate.
    """
    _load_identity(context, certificate, key)
    if ca is not None:
        _load_ca(context, ca)


def client_context(ca: Path, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Build the context a client connects with; it checks the server's name against its certificate.

    Args:
        ca: PEM bundle of the CAs that may have signed the server's certificate.
        certificate: PEM certificate of this client, or None to show none (stock declearn servers).
        key: PEM private key that belongs to it, or None.

    Raises:
        IdentityError: a file is missing, unreadable, expired, or the key does not belong to the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_ca(context, ca)
    if certificate is not None and key is not None:
        _load_identity(context, certificate, key)
    return context


def certificate_name(certificate: Path) -> str:
    """Read the common name in a certificate file: the name its holder joins under.

    Raises:
        IdentityError: the file is missing, unreadable, expired or names nobody.
    """
    return _common_name(certificate, _read_certificate(certificate))


def peer_name(ssl_object: ssl.SSLObject | None) -> str | None:
    """Tell the common name in the certificate the other end showed, or None where it showed none."""
    certificate: dict[str, Any] = (ssl_object.getpeercert() if ssl_object else None) or {}
    names = [value for group in certificate.get("subject", ()) for key, value in group if key == "commonName"]
    return names[0] if len(names) == 1 else None


def peer_serial(ssl_object: ssl.SSLObject | None) -> str | None:
    """Tell the serial number of the certificate the other end showed, in hexadecimal digits, or None."""
    certificate: dict[str, Any] = (ssl_object.getpeercert() if ssl_object else None) or {}
    serial = certificate.get("serialNumber")
    return None if serial is None else f"{int(serial, 16):X}"


def _load_ca(context: ssl.SSLContext, path: Path) -> None:
    _read_certificate(path)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise IdentityError(f"CA certificate {path} can't be used ({exc})", "a PEM certificate", REISSUE) from exc


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    shown = _read_certificate(certificate)
    try:
        private = load_pem_private_key(_read(key, "private key"), password=None)
    except (TypeError, ValueError) as exc:
        raise IdentityError(f"private key {key} can't be used", "an unencrypted PEM private key", REISSUE) from exc
    formats = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*formats) != shown.public_key().public_bytes(*formats):
        raise IdentityError(f"private key {key} does not belong to certificate {certificate}", "a pair", REISSUE)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        raise IdentityError(f"certificate {certificate} can't be used ({exc})", "a PEM pair", REISSUE) from exc


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        certificates = x509.load_pem_x509_certificates(_read(path, "certificate"))
    except ValueError as exc:
        raise IdentityError(f"certificate {path} can't be parsed", "a PEM certificate", REISSUE) from exc
    now = datetime.datetime.now(datetime.UTC)
    first, latest = certificates[0], max(certificates, key=lambda c: c.not_valid_after_utc)
    if latest.not_valid_after_utc < now:
        raise IdentityError(
            f"certificate {path} expired on {latest.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "", REISSUE
        )
    if min(c.not_valid_before_utc for c in certificates) > now:
        raise IdentityError(
            f"certificate {path} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            f"a certificate valid now ({now:%Y-%m-%d %H:%M} UTC)",
            "set this machine's clock, or issue it anew",
        )
    return first


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise IdentityError(f"{what} {path} can't be read ({exc.strerror})", "a readable PEM file", REISSUE) from exc


def _common_name(path: Path, certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise IdentityError(f"certificate {path} holds {len(names)} common names", "exactly one", REISSUE)
    return str(names[0].value)
