"""Identities and endpoints on loopback."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services import certificates
from services.init import identities
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, client_certificate, client_key
from services.transport import tls
from services.transport.client import DIRECT, ClientEndpoint, Route
from services.transport.server import ServerEndpoint

PATIENCE = 5.0
"""Seconds that anything on loopback may take before a test gives up on it."""


@dataclass(frozen=True)
class Site:
    """A federation's identities in one folder."""

    folder: Path

    def server(
        self,
        *,
        ca: Path | None = None,
        anybody: bool = False,
        liveness_timeout: float = 20.0,
        denied: Callable[[], Collection[str]] = frozenset,
    ) -> ServerEndpoint:
        """Make a server endpoint on a free port."""
        trusted = None if anybody else ca or self.folder / CA_CERTIFICATE
        context = tls.server_context(self.folder / SERVER_CERTIFICATE, self.folder / SERVER_KEY, trusted)
        return ServerEndpoint("localhost", 0, context, liveness_timeout=liveness_timeout, denied=denied)

    def client(
        self,
        server: ServerEndpoint,
        name: str = "client_0",
        *,
        identity: str | None = None,
        ca: Path | None = None,
        anonymous: bool = False,
        timeout: float = PATIENCE,
        address: str = "wss://localhost:{}",
        route: Route = DIRECT,
    ) -> ClientEndpoint:
        """Make a client endpoint that dials `server` as `name`, showing the certificate of `identity`."""
        holder = identity or name
        certificate = self.folder / "clients" / client_certificate(holder)
        key = self.folder / "clients" / client_key(holder)
        context = functools.partial(
            tls.client_context,
            ca or self.folder / CA_CERTIFICATE,
            None if anonymous else certificate,
            None if anonymous else key,
        )
        uri = address.format(server.port)
        return ClientEndpoint(uri, name, context, dealable=True, timeout=timeout, route=route)


def issue(folder: Path, **begun_days_ago: float) -> Site:
    """Issue identities by hand, all under one CA: a server's, and a client's of each name, with 30 days to live."""
    now = datetime.datetime.now(datetime.UTC)
    since = {name: now - datetime.timedelta(days=days) for name, days in begun_days_ago.items()}
    authority = certificates.new_authority(min(now, *since.values()), 400)
    (folder / "clients").mkdir()
    for identity in identities._wanted(folder, folder / "clients", list(begun_days_ago), ["localhost"]):
        assert identities._issue(identity, authority, since.get(identity.name, now), 30)
    (folder / CA_CERTIFICATE).write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return Site(folder)


def make_site(folder: Path) -> Site:
    """Issue identities of a new federation."""
    identities.ensure(folder, folder / "clients", identities.client_names(3))
    return Site(folder)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The federation the tests are about."""
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def other_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Another federation, with a CA of its own."""
    return make_site(tmp_path_factory.mktemp("other"))
