"""The server's websocket endpoint: mutual TLS, the event-driven hub, liveness by pings."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import functools
import logging
import socket as sockets
import ssl
from asyncio import sslproto
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import websockets
from declearn.communication.utils._compression import resolve_ws_compression
from declearn.communication.websockets import WebsocketsServer
from declearn.communication.websockets._tools import StreamRefusedError, send_websockets_message
from declearn.messaging import Error, Message, SerializedMessage
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.server import WebSocketServerProtocol

from services.errors import NetworkError
from services.transport import messages
from services.transport.door import Door, Doorstep
from services.transport.gate import DENIED, STRANGER_FRAME, Gate, RefusedMessageError
from services.transport.hub import ClientGoneError, Hub
from services.transport.refusals import one_line
from services.transport.tls import peer_name
from services.transport.wire import ReceivedMessage, UnreadableError

LIVENESS_TIMEOUT = 20.0
"""Seconds after which a frozen or cut-off peer is taken for gone: half to the next ping, half for its answer."""

CLOSE_TIMEOUT = 1.0
"""Seconds each step of closing a websocket may take; a dead peer answers none of them."""

FAREWELL_TIMEOUT = 3.0
"""Seconds that clients have to collect a last message."""

TLS_BUFFER = 2**15
"""Bytes of asyncio's buffer for each TLS connection, which is most of what a silent one costs; it would take 2**18."""

MOST_FRAMES = 1
"""Frames of one connection that wait in memory to be read; the rest waits at its sender."""

OUR_VERDICTS: dict[int, str] = {
    CloseCode.PROTOCOL_ERROR: "a malformed frame",
    CloseCode.INVALID_DATA: "a text that is none",
    CloseCode.MESSAGE_TOO_BIG: "a frame that is too large",
}
"""Codes with which the websocket library ends a connection by itself, and why."""

FAILED = 4000
"""Code with which the server closes on its clients when the run has failed; one of those left to applications."""

LONGEST_REASON = 123
"""Bytes of a reason that a close frame has room for (RFC 6455, section 5.5.1)."""

CLEAN_CODES = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)
"""Codes by which a client says that it leaves (RFC 6455, section 7.4.1); any other end is a lost connection."""

REFUSED = "refused"
"""Kind of a loss: the answer is none that an honest client gives."""

T = TypeVar("T")

logger = logging.getLogger("fed.server.network")


@dataclass
class Traffic:
    """Bytes of messages exchanged with one client, without TLS and framing."""

    sent: int = 0
    received: int = 0

    def __sub__(self, before: Traffic) -> Traffic:
        """Tell what was exchanged since `before`."""
        return Traffic(self.sent - before.sent, self.received - before.received)


@dataclass(frozen=True)
class Loss:
    """Why a client gave no usable answer.

    Attributes:
        kind: `gone` (it left, or its connection was lost), `late` (no answer in time), `error` (it failed) or `refused`
            (its answer is none that an honest client gives).
        reason: what happened, in a few words.
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class Answers:
    """What came of asking several clients at once.

    Attributes:
        replies: by client, the message it replied with, parsed.
        losses: by client, why there is no reply.
    """

    replies: dict[str, Any]
    losses: dict[str, Loss]


class ServerEndpoint(WebsocketsServer, register=False):
    """`declearn.communication.websockets.WebsocketsServer` with mutual TLS and an event-driven hub.

    Overrides `start` (upstream turns ping time-outs off and lets a taken port raise) and `_handle_connection` (upstream
    notices a death only when it next writes to the socket, and keeps a client that left politely).

    Args:
        host: address to listen on.
        port: TCP port to listen on; 0 takes a free one, which `port` then names.
        context: TLS context, or None for plain websockets (tests).
        liveness_timeout: seconds after which a silent peer is taken for gone.
        denied: tells who may not join, at the moment it is asked: names, and `serial:` of certificates.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        *,
        liveness_timeout: float = LIVENESS_TIMEOUT,
        denied: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        super().__init__(host=host, port=port)
        self.logger = logger
        self._ssl = context
        self._liveness_timeout = liveness_timeout
        self.door = Door(denied=denied)
        self.handler: Hub = Hub(name_of=_proven_name, traits_of=_traits, refusals=self.door.refusals)
        self.traffic: dict[str, Traffic] = collections.defaultdict(Traffic)
        self._denied = frozenset(denied())

    @property
    def authenticates(self) -> bool:
        """Whether clients have to prove who they are by a certificate."""
        return self._ssl is not None and self._ssl.verify_mode == ssl.CERT_REQUIRED

    async def start(self) -> None:
        """Start to listen.

        Raises:
            NetworkError: the port is taken, or the address is none of this machine's.
        """
        library = logging.getLogger("fed.server.websockets")
        library.setLevel(logging.WARNING)  # it tells of each connection that comes and goes
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a peer that is gone
        sslproto.SSLProtocol.max_size = TLS_BUFFER
        try:
            self._server = await websockets.serve(
                self._handle_connection,
                host=self.host,
                port=self.port,
                logger=library,
                ping_interval=self._liveness_timeout / 2,
                ping_timeout=self._liveness_timeout / 2,
                close_timeout=CLOSE_TIMEOUT,
                max_size=STRANGER_FRAME,
                max_queue=MOST_FRAMES,
                compression=resolve_ws_compression(self.compression),
                create_protocol=cast("Any", self._protocol),
            )
        except OSError as exc:
            taken = exc.errno == errno.EADDRINUSE
            raise NetworkError(
                f"port {self.port} on {self.host} is taken"
                if taken
                else f"can't listen on {self.host}:{self.port} ({exc})",
                "a free port" if taken else "an address of this machine",
                "choose another PORT, or end what holds it" if taken else "choose another host",
            ) from exc
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self.handler.open_clients_registration()
        logger.info("listening on %s:%s", self.host, self.port)

    def _protocol(self, *args: Any, **kwargs: Any) -> asyncio.Protocol:
        """Make what a new connection meets."""
        gate = functools.partial(Gate, *args, door=self.door, **kwargs)
        return gate() if self._ssl is None else Doorstep(gate, self.door, self._ssl)

    async def stop(self) -> None:
        """Stop to listen, close every connection and forget everybody."""
        if self._server is not None:
            self._server.close()
            self.door.clear()
            await self._server.wait_closed()
            self._server = None
        await self.handler.purge()
        self.door.refusals.tell()

    async def dismiss(self, reason: str, *, failed: bool = False) -> None:
        """Close every client's connection for good: those that are at work learn from it that the run is over, and how.

        Args:
            reason: why, in a few words.
            failed: the run has failed.
        """
        code = FAILED if failed else CloseCode.NORMAL_CLOSURE
        closing = (socket.close(code, _in_frame(reason)) for socket in list(self.handler.registered_clients))
        await asyncio.gather(*closing, return_exceptions=True)

    def traits(self, client: str) -> frozenset[str]:
        """Tell what a connected client's handshake said of it."""
        mailbox = self.handler.mailboxes.get(client)
        return frozenset() if mailbox is None else mailbox.traits

    async def ask(
        self, requests: Mapping[str, Message], expected: type[Message], timeout: float | None = None
    ) -> Answers:
        """Send each client its request and gather one reply each, until all have answered, left or run out of time.

        Args:
            requests: message by client.
            expected: type of message a reply must have.
            timeout: seconds until who has not answered counts as lost.
        """
        # the same message for many is serialised once: weights are the bulk of it
        serialized = {id(message): message.serialize() for message in requests.values()}

        async def one(client: str, message: Message) -> Message | Loss:
            mailbox = self.handler.mailboxes.get(client)
            if mailbox is not None:
                mailbox.context.progress = None
            try:
                content = await self.handler.exchange(serialized[id(message)], client, timeout)
            except ClientGoneError as exc:
                return Loss("gone", exc.reason)
            except TimeoutError:
                return Loss("late", f"no answer within {timeout:g} s")
            return self._read(client, content, expected)

        outcomes = await asyncio.gather(*(one(client, message) for client, message in requests.items()))
        answers = dict(zip(requests, outcomes, strict=True))
        return Answers(
            {client: answer for client, answer in answers.items() if not isinstance(answer, Loss)},
            {client: answer for client, answer in answers.items() if isinstance(answer, Loss)},
        )

    async def send_messages(self, messages: Mapping[str, Message], timeout: float | None = None) -> None:
        """Send messages and wait until all are collected; the first that can't be ends the wait for the others.

        Upstream leaves the others to themselves, and `wait_for_messages` likewise: they would take the messages of
        whatever comes next.
        """
        await _together(self.send_message(message, client, timeout) for client, message in messages.items())

    async def wait_for_messages(self, clients: set[str] | None = None) -> dict[str, SerializedMessage[Any]]:
        """Wait for a message of each client; the first that is gone ends the wait for the others.

        Messages come in the order of `clients`, as upstream's do: declearn's X3DH pairs requests and responses by it.

        Raises:
            ClientGoneError: a client left before it sent one.
            UnreadableError: what a client sent is no message; parsing one may raise that as well.
        """
        names = list(self.client_names if clients is None else clients)
        received = await _together(self.handler.recv_message(client) for client in names)
        return {client: self._received(client, content) for client, content in zip(names, received, strict=True)}

    def _received(self, client: str, content: bytes) -> ReceivedMessage:
        return ReceivedMessage.of(client, content, self.door.most_parts)

    def _read(self, client: str, content: bytes, expected: type[Message]) -> Message | Loss:
        """Parse a client's reply; whatever is wrong with it is that client's loss."""
        try:
            received = self._received(client, content)
            kind = received.message_cls
            if issubclass(kind, Error):
                return Loss("error", one_line(cast("Error", received.deserialize()).message, 400))
            if not issubclass(kind, expected):
                return Loss(REFUSED, f"answered with {kind.typekey!r} where {expected.typekey!r} was due")
            return received.deserialize()
        except UnreadableError as exc:
            return Loss(REFUSED, exc.reason)

    async def tell(self, message: Message, timeout: float) -> None:
        """Send every connected client a message that asks for no reply; who does not collect it in time misses it."""
        content = message.serialize()
        calls = (self.handler.send_message(content, client, timeout) for client in sorted(self.client_names))
        await asyncio.gather(*calls, return_exceptions=True)

    async def _handle_connection(self, socket: WebSocketServerProtocol) -> None:
        """Serve one connection, and tell the hub at once when it is gone."""
        gate = cast("Gate", socket)
        if messages.PROBES not in _traits(gate):
            # a stock client trains inside its event loop and answers no ping meanwhile
            gate.ping_timeout = None
        _keep_alive(gate)
        watch = asyncio.create_task(self._watch(gate))
        try:
            while await self._answer(gate):
                pass
        except RefusedMessageError as exc:
            gate.refuse(exc.reason)
            # at once: what else it sends is not read, and what it has sent not kept until it closes in turn
            gate.fail_connection(exc.code, exc.reason)
        except StreamRefusedError:
            gate.refuse("a chunked answer, which it does not take")
        except ConnectionClosed as exc:
            verdict = OUR_VERDICTS.get(exc.sent.code) if exc.sent is not None else None
            if verdict is not None and not exc.rcvd_then_sent:
                gate.refuse(verdict)
            elif not gate.joined:
                gate.refuse("no request to join", "it hung up")
            # the watch says the rest
        finally:
            with contextlib.suppress(ConnectionClosed):
                await gate.close()
            await watch

    async def _answer(self, gate: Gate) -> bool:
        """Take one message of a peer and answer it; tells whether it has joined.

        What was exchanged, an update for one, is let go before the next wait.
        """
        known = gate in self.handler.registered_clients
        request = await gate.next_message(known=known, answers=self.handler.answers(gate))
        answer = (await self.handler.handle_message(request, gate)).serialize()
        name = self.handler.registered_clients.get(gate)
        if name is None:
            gate.refused = True  # the hub has told why
        else:
            gate.admit()
            self.traffic[name].received += len(request)
            self.traffic[name].sent += len(answer)
        await send_websockets_message(answer, gate)
        return gate in self.handler.registered_clients

    def put_out(self, client: str, reason: str) -> None:
        """Close a client's connection, and let it join no more; until it comes onto the denylist and off again.

        Args:
            client: its name.
            reason: why, in a few words; it is told.
        """
        self.handler.put_out[client] = reason
        mailbox = self.handler.mailboxes.get(client)
        if mailbox is not None:
            self.handler.depart(mailbox.context, reason, clean=True)
            mailbox.context.fail_connection(CloseCode.POLICY_VIOLATION, _in_frame(reason))

    def enforce_denials(self) -> None:
        """Close the connections of those who have come onto the denylist; who comes off it may join again."""
        denied = frozenset(self.door.denied())
        for name in self._denied - denied:
            self.handler.put_out.pop(name, None)
        self._denied = denied
        for gate in [gate for gate in self.door.open if gate.marks & denied]:
            gate.refuse(DENIED)
            self.handler.depart(gate, DENIED, clean=True)
            gate.fail_connection(CloseCode.POLICY_VIOLATION, DENIED)

    async def _watch(self, socket: WebSocketServerProtocol) -> None:
        await socket.wait_closed()
        clean = socket.close_code in CLEAN_CODES
        reason = one_line(socket.close_reason or ("it left" if clean else "connection lost"))
        self.handler.depart(socket, reason, clean=clean)


def _in_frame(reason: str) -> str:
    """Word a reason so that a close frame has room for it."""
    return one_line(reason, 400).encode()[:LONGEST_REASON].decode(errors="ignore")


async def _together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all of `calls`; when one fails, end the others and raise what it raised."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _proven_name(socket: WebSocketServerProtocol) -> str | None:
    return peer_name(socket.transport.get_extra_info("ssl_object"))


def _traits(socket: WebSocketServerProtocol) -> frozenset[str]:
    headers = socket.request_headers
    return frozenset(name for name in messages.TRAITS if headers.get(name) == "1")


def _keep_alive(socket: WebSocketServerProtocol) -> None:
    """Let the kernel probe an idle connection too (RFC 9293, 3.8.4)."""
    raw = socket.transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
