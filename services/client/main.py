"""The client from its settings to its exit: claim an identity, find its data, take part."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from services import logs, shards
from services.client.claim import claim
from services.client.secagg import load_keys
from services.client.session import Session
from services.errors import UsageError
from services.paths import secagg_key
from services.readers.folder import load_site
from services.readers.site import Terms, check, describe
from services.settings import Settings
from services.shards import Shard
from services.signals import until_stopped
from services.terminal import live
from services.terminal.picture import ClientPicture
from services.transport import tls
from services.transport.client import DIRECT, ClientEndpoint, Route

logger = logging.getLogger("fed.client")


@dataclass(frozen=True)
class ClientOptions:
    """What one client needs.

    Attributes:
        server_uri: where the server listens, `wss://host:port`.
        identities: folder of client certificates; one of them is claimed.
        ca: PEM bundle that signed the server's certificate, or None for the one beside the identities.
        name: identity to claim, or None for the lowest free one.
        shards: folder of index sets that the server deals from; used where `own_data` is None.
        own_data: folder of this client's own data, or None.
        timeout: seconds to keep trying to reach the server.
        server_grace: seconds to keep trying to reach a server that was lost.
        liveness_timeout: seconds after which a silent server is taken for gone.
        anonymous: show no certificate (a server without client authentication).
        max_parameters: numbers that a model may have in its weights.
        share_metrics: tell the server metrics beside the loss.
        route: what is between this client and the server.
        secagg_keys: folder of the keys for secure aggregation, or None for that of the identities.
        terms: what this client's own data must be, or None where nobody has said.
    """

    server_uri: str
    identities: Path
    shards: Path
    ca: Path | None = None
    name: str | None = None
    own_data: Path | None = None
    timeout: float = 120.0
    server_grace: float = 120.0
    liveness_timeout: float = 20.0
    anonymous: bool = False
    max_parameters: int = Settings.max_parameters
    share_metrics: bool = Settings.share_metrics
    route: Route = DIRECT
    secagg_keys: Path | None = None
    terms: Terms | None = None


def run(options: ClientOptions) -> None:
    """Take part in one federation, to its end.

    Raises:
        FedError: one of its subclasses; see `services.errors`.
    """
    keys = None
    if options.anonymous:
        if options.name is None or options.ca is None:
            raise UsageError("a client without a certificate has no name or CA", "both", "give NAME and --ca-cert")
        name, lock = options.name, None
        context = functools.partial(tls.client_context, options.ca, None, None)
    else:
        identity = claim(options.identities, options.name)
        name, lock = tls.certificate_name(identity.certificate), identity.lock
        context = functools.partial(tls.client_context, options.ca or identity.ca, identity.certificate, identity.key)
        folder = options.secagg_keys or options.identities
        if (folder / secagg_key(name)).exists():
            keys = load_keys(folder, name)
    try:
        own = None if options.own_data is None else _own(options.own_data, options.terms)
        endpoint = ClientEndpoint(
            options.server_uri,
            name,
            context,
            dealable=own is None,
            timeout=options.timeout,
            liveness_timeout=options.liveness_timeout,
            route=options.route,
        )
        deal = functools.partial(shards.load_shard, options.shards) if own is None else None
        logs.about(client=name)
        logger.info("%s looks for %s", name, options.server_uri)

        async def take_part(board: live.Board | None) -> None:
            # a declearn client may only be made inside the event loop that it runs in
            session = Session(
                endpoint,
                shard=own,
                deal=deal,
                server_grace=options.server_grace,
                keys=keys,
                folder=options.own_data,
                max_parameters=options.max_parameters,
                share_metrics=options.share_metrics,
            )
            if board is not None:
                board.show(ClientPicture(name, session.look))
            await until_stopped(session.async_run())

        with live.board() as board:
            asyncio.run(take_part(board))
    finally:
        if lock is not None:
            lock.close()


def _own(folder: Path, terms: Terms | None) -> Shard:
    """Read a site's own data, and say what they are before anybody else is told anything."""
    shard = load_site(folder)
    if terms is not None:
        check(shard, terms)
    for line in describe(shard, terms):
        logger.info("%s: %s", folder, line)
    return shard
