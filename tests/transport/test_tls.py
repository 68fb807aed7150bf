"""TLS contexts: what is wrong with a file is one line, and the contexts ask for what they should."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest

from services.errors import IdentityError
from services.init import identities
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate
from services.transport import tls
from tests.transport.conftest import Site


def test_a_server_asks_for_certificates_and_nothing_older_than_tls_1_2(site: Site) -> None:
    """A server's context verifies clients and speaks TLS 1.2 or later."""
    folder = site.folder
    context = tls.server_context(folder / SERVER_CERTIFICATE, folder / SERVER_KEY, folder / CA_CERTIFICATE)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_checks_the_server_s_name(site: Site) -> None:
    """A client's context verifies the server and its name."""
    context = tls.client_context(site.folder / CA_CERTIFICATE, None, None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_name_in_a_certificate_is_read(site: Site) -> None:
    """The name a client joins under is the one its certificate was issued for."""
    assert tls.certificate_name(site.folder / "clients" / client_certificate("client_2")) == "client_2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "certificate {} can't be read (No such file or directory); wanted a readable PEM file; "),
        (b"", "certificate {} can't be parsed; wanted a PEM certificate; "),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "certificate {} can't be parsed; wanted a PEM certificate; "),
    ],
)
def test_an_unreadable_certificate_is_named(site: Site, tmp_path: Path, content: bytes | None, message: str) -> None:
    """A certificate that is missing, empty or cut short is named, with the way to a new one."""
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IdentityError) as caught:
        tls.server_context(path, site.folder / SERVER_KEY, None)
    assert str(caught.value) == message.format(path) + tls.REISSUE


def test_a_key_of_another_certificate_is_named(site: Site, other_site: Site) -> None:
    """A private key that belongs to another certificate is not taken for its own."""
    certificate, key = site.folder / SERVER_CERTIFICATE, other_site.folder / SERVER_KEY
    with pytest.raises(IdentityError) as caught:
        tls.server_context(certificate, key, None)
    assert (
        str(caught.value)
        == f"private key {key} does not belong to certificate {certificate}; wanted a pair; " + tls.REISSUE
    )


def test_a_damaged_key_is_named(site: Site, tmp_path: Path) -> None:
    """A private key that can't be parsed is named."""
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(IdentityError) as caught:
        tls.server_context(site.folder / SERVER_CERTIFICATE, key, None)
    assert caught.value.found == f"private key {key} can't be used"


@pytest.mark.parametrize(("days_ago", "found"), [(40, "expired on"), (-40, "is not valid before")])
def test_a_certificate_out_of_its_time_is_named_with_the_time(tmp_path: Path, days_ago: int, found: str) -> None:
    """A certificate that has expired, or is not yet valid, is refused with the moment that decides."""
    issued = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
    identities.ensure(tmp_path, tmp_path / "clients", ["client_0"], now=issued, days=30)
    with pytest.raises(IdentityError) as caught:
        tls.server_context(tmp_path / SERVER_CERTIFICATE, tmp_path / SERVER_KEY, None)
    assert caught.value.found.startswith(f"certificate {tmp_path / SERVER_CERTIFICATE} {found}")
    assert caught.value.found.endswith("UTC")
