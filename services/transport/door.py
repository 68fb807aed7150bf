"""The server's door: who stands at it without having joined, and the TLS handshake, before which nobody is known.

A connection that says nothing costs as much as any other, until its time is up. So the door counts those who have not
joined, and when they are too many, the oldest of the address that has most of them makes way; whoever has shown a
certificate goes last. A newcomer gets in whatever crowd there is, and a crowd of one address pushes out its own.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from services.transport.refusals import Refusals
from services.transport.tls import on_handshake_failure

MOST_STRANGERS = 256
"""Connections that have not joined, at a time; each takes about 80 kB."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds a peer has to complete its TLS handshake."""

ALERT_TIMEOUT = 1.0
"""Seconds a peer whose TLS handshake has failed has to read why, before it is closed on."""

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a peer may take to close TLS in turn (RFC 8446, section 6.1); asyncio waits for 30."""

MOST_REMAINS = 64
"""Connections that are gone, and that the collector of garbage has yet to find: asyncio leaves each as a cycle, which
holds the buffers of TLS. Thousands of them would hold more than 100 MB."""

CROWDED = "too many connections that have not joined"


class Caller(Protocol):
    """A connection at the door.

    Attributes:
        name: the name that its certificate proves, or None.
        peer: who this is, for a log.
        refused: it has been counted among the refusals.
    """

    name: str | None
    peer: str
    refused: bool

    def abort(self) -> None:
        """Close the connection at once."""


@dataclass(eq=False)
class Door:
    """What all connections of one server share.

    Attributes:
        refusals: where is noted who was refused.
        denied: tells the names that may not join, at this moment.
        strangers: connections that have not joined, the oldest first, each with its address.
        open: websockets, joined or not.
        largest: bytes that a message of a client may have.
        most_parts: items that the lists and maps of a message of a client may have, all in all.
        remains: connections that are gone, since garbage was last collected for their sake.
    """

    refusals: Refusals = field(default_factory=Refusals)
    denied: Callable[[], Collection[str]] = frozenset
    strangers: dict[Caller, str] = field(default_factory=dict)
    open: set[Any] = field(default_factory=set)
    largest: int = 2**26
    most_parts: int = 10_000
    remains: int = 0

    def enter(self, caller: Caller, address: str) -> None:
        """Let a connection wait at the door until it joins; when there are too many, another one makes way for it."""
        if len(self.strangers) >= MOST_STRANGERS:
            unknown = {other: origin for other, origin in self.strangers.items() if other.name is None}
            candidates = unknown or self.strangers
            ((crowd, _),) = collections.Counter(candidates.values()).most_common(1)
            oldest = next(other for other, origin in candidates.items() if origin == crowd)
            self.refuse(oldest, CROWDED)
            self.leave(oldest)
            oldest.abort()
        self.strangers[caller] = address

    def leave(self, caller: Caller) -> None:
        """Take note that a connection has joined, or is about to go."""
        self.strangers.pop(caller, None)

    def lose(self, caller: Caller) -> None:
        """Take note that a connection is gone."""
        self.leave(caller)
        self.remains += 1
        if self.remains >= MOST_REMAINS:
            self.remains = 0
            gc.collect()

    def refuse(self, caller: Caller, reason: str, detail: str = "") -> None:
        """Take note of why a connection is refused; the first reason counts, what follows from it does not."""
        if not caller.refused:
            caller.refused = True
            self.refusals.note(caller.peer, reason, detail)

    def clear(self) -> None:
        """Close on everybody who has not joined."""
        for caller in list(self.strangers):
            caller.refused = True  # nobody is to blame
            self.leave(caller)
            caller.abort()


def address_of(transport: asyncio.BaseTransport) -> str:
    """Tell the address at the other end."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else "somebody"


class Doorstep(asyncio.Protocol):
    """One connection until its TLS handshake is done; what comes then is for the protocol that takes its place.

    asyncio's own `ssl` argument does the handshake out of sight: who fails it, hangs up or keeps silent is never told.

    Args:
        successor: makes that protocol.
        door: what all connections share.
        context: TLS context of the server.
    """

    def __init__(self, successor: Callable[[], asyncio.Protocol], door: Door, context: ssl.SSLContext) -> None:
        self.name: str | None = None
        self.peer = "somebody"
        self.refused = False
        self._make = successor
        self._door = door
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._successor: asyncio.Protocol | None = None
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer = address_of(transport)
        self._door.enter(self, self.peer)
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(self._transport))

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        on_handshake_failure.set(self._failed)
        if plain.is_closing():  # pushed out already, and spared what a handshake costs
            return
        secured: asyncio.Transport | None = None
        try:
            secured = await loop.start_tls(
                plain,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except ConnectionAbortedError:
            self._door.refuse(self, "no TLS handshake in time")
        except OSError:
            self._door.refuse(self, "no TLS handshake", "it hung up")
        if secured is None:  # also where it was closed meanwhile
            self._door.lose(self)
            return
        self._door.leave(self)
        self._successor = self._make()
        secured.set_protocol(self._successor)
        self._successor.connection_made(secured)
        for data in self._early:
            self._successor.data_received(data)
        self._early.clear()

    def _failed(self, error: ssl.SSLError) -> None:
        """Take note of why the handshake failed; the alert is on its way, and the other end has a moment to read it."""
        self._door.refuse(self, *_why(error))
        asyncio.get_running_loop().call_later(ALERT_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        # the first request of a peer may come together with the end of its handshake
        if self._successor is None:
            self._early.append(data)
        else:
            self._successor.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._successor is None else self._successor.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        # after a handshake it may still be this protocol that asyncio tells
        if self._successor is not None:
            self._successor.connection_lost(exc)
        else:
            self._door.lose(self)


def _why(error: ssl.SSLError) -> tuple[str, str]:
    """Word why a TLS handshake failed: a reason, one of few, and what else OpenSSL says of it."""
    words = (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})", ""
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return words, ""
    return "no TLS handshake", words
