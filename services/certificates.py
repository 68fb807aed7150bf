"""The one profile of our certificates: an authority that signs a server and its clients, and nothing else.

RFC 5280, EC P-256 with SHA-256, as strict as OpenSSL's `X509_V_FLAG_X509_STRICT`. Every extension is spelled out. A
server and a client differ by extended key usage, so that neither can stand for the other.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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

from services.errors import UsageError

SKEW = timedelta(hours=1)
"""By how much another machine's clock may be behind."""

KEY_MODE = 0o600

SERVER = "server"

MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
)
"""What reading a certificate that is none, or none of ours, raises."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key in PKCS #8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Authority(Issued):
    """A CA in memory, with its key."""

    def issue(self, name: str, hosts: Sequence[str] = (), *, now: datetime, days: float) -> Issued:
        """Make a key, and sign a certificate for it.

        Args:
            name: the subject's common name.
            hosts: names and addresses under which a server is reached; none for a client.
            now: the present, in UTC, in whole seconds.
            days: lifetime.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        issuer = self.certificate
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateBuilder(
                issuer.subject,
                _subject(name),
                public,
                x509.random_serial_number(),
                now - SKEW,
                now + timedelta(days=days),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage(hosts)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
                critical=False,
            )
        )
        if hosts:
            names = dict.fromkeys(general_name(host) for host in hosts)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Issued(builder.sign(self.key, hashes.SHA256()), key)


def new_authority(now: datetime, days: float) -> Authority:
    """Make a CA that signs leaves alone, under a name of its own."""
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
    return Authority(certificate, key)


def usage(hosts: Sequence[str]) -> x509.ObjectIdentifier:
    """Tell the extended key usage of who is reached under `hosts`: a server, or a client where there are none."""
    return ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH


def check_host(host: str) -> None:
    """Refuse a host that can't stand in a server's certificate.

    Raises:
        UsageError: it is neither a DNS name nor an IP address.
    """
    if _address(host) is None and not _HOST.fullmatch(host):
        raise UsageError(f"host is {host!r}", "a DNS name or an IP address, with no port", "correct it")


def check_name(name: str) -> None:
    """Refuse a name that can't be a client's.

    Raises:
        UsageError: it could not stand in a certificate, or in the name of a file.
    """
    if not _NAME.fullmatch(name) or name in {SERVER, "ca"}:
        raise UsageError(
            f"the client's name is {name!r}",
            "1 to 63 letters, digits, '_', '.' or '-', and neither 'server' nor 'ca'",
            "choose another name",
        )


def general_name(host: str) -> x509.GeneralName:
    """Write a host as it stands among a certificate's alternative names."""
    address = _address(host)
    return x509.DNSName(host.lower()) if address is None else x509.IPAddress(address)


def is_signed(ca: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Tell whether `ca` signed `leaf`."""
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, *MALFORMED):
        return False
    return True


def common_names(certificate: x509.Certificate) -> list[str]:
    """List the common names in a certificate's subject; one of ours has one."""
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def read_certificate(path: Path) -> x509.Certificate | None:
    """Read a certificate; one that is missing or damaged is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, *MALFORMED):
        return None


def read_key(path: Path) -> PrivateKeyTypes | None:
    """Read a private key that is not encrypted; one that is missing or damaged is none."""
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, *MALFORMED):
        return None


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
