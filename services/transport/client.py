"""The client's websocket endpoint: its certificate, connecting with back-off, noticing that the server is gone."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import websockets
from declearn.communication.api.backend import flags
from declearn.communication.api.backend.actions import Accept, ActionMessage, Join, Ping, Recv, Reject, Send
from declearn.communication.utils._compression import resolve_ws_compression
from declearn.communication.websockets import WebsocketsClient
from declearn.communication.websockets._tools import FLAG_STREAM_START, StreamRefusedError, send_websockets_message
from declearn.messaging import Message, SerializedMessage
from declearn.version import VERSION
from websockets.client import WebSocketClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatusCode, InvalidURI
from websockets.frames import CloseCode
from websockets.uri import parse_uri

from services.errors import (
    DistrustError,
    FedError,
    IdentityError,
    LostError,
    NetworkError,
    RefusedError,
    TrainingError,
    UsageError,
)
from services.transport.answers import read_answer
from services.transport.gate import CLIENT_FRAME, MOST_FRAGMENTS, CountedFrames, RefusedMessageError, gather
from services.transport.hub import NAME_IN_USE, PUT_OUT, TOO_OFTEN
from services.transport.messages import DEALABLE, HALVES, PROBES, progress_payload
from services.transport.refusals import one_line
from services.transport.server import CLOSE_TIMEOUT, FAILED, LIVENESS_TIMEOUT, MOST_FRAMES, OUR_VERDICTS
from services.transport.tunnel import Proxy, dig

CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "BAD_CERT")
"""Parts of the names of TLS alerts by which a server refuses a client's certificate (RFC 8446, section 6.2)."""

FIRST_MESSAGES = 2**22
"""Bytes of a message before the model is known: its configuration, a few kilobytes a layer, is the largest."""

TRANSIENT_REFUSALS = (NAME_IN_USE, TOO_OFTEN, flags.REGISTRATION_CLOSED, flags.REGISTRATION_UNSTARTED)
"""Refusals that pass: the other bearer of a name may be on its way out, registration may open."""


class ConnectionLostError(LostError):
    """The connection to the server closed while something was expected from it."""


class DismissedError(LostError):
    """The server closed the connection for good: the run is over."""


@dataclass(frozen=True)
class Route:
    """What a client says on its way to a server that is behind something else.

    Attributes:
        server_name: name in the server's certificate, also told in clear by which a proxy chooses (SNI, RFC 6066), or
            None for the one that is dialled.
        headers: of the websocket's handshake, for whatever ends TLS on the way or stands behind it.
        proxy: HTTP proxy that leads out, or None.
    """

    server_name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    proxy: Proxy | None = None


DIRECT = Route()


class _Connection(CountedFrames, WebSocketClientProtocol):
    """`WebSocketClientProtocol` on which a message comes in so many frames at most."""


class ClientEndpoint(WebsocketsClient, register=False):
    """`declearn.communication.websockets.WebsocketsClient` with a certificate, pings and a bounded back-off.

    Overrides `start` (upstream tries ten times a second apart and never notices a frozen server), `register` (upstream
    hides why it was refused), `_send_message` (upstream lets the websocket library's error through, and takes answers
    of any length), `_exchange_action_messages`, `recv_message` and `send_message` (upstream builds
    whatever an answer names, and calls what is none a bug).

    Args:
        server_uri: where the server listens, `wss://host:port`.
        name: name to join under; the server compares it with the certificate.
        context: makes the TLS context of a connection, from what its files hold then; None for none (tests).
        dealable: announce that the server may deal this client its part of the data.
        timeout: seconds to keep trying to connect and join.
        liveness_timeout: seconds after which a silent server is taken for gone.
        route: what is between this client and the server.

    Attributes:
        largest: bytes that a message of the server may have.
        read: makes a message, not yet parsed, of its bytes.
    """

    def __init__(
        self,
        server_uri: str,
        name: str,
        context: Callable[[], ssl.SSLContext] | None,
        *,
        dealable: bool,
        timeout: float,
        liveness_timeout: float = LIVENESS_TIMEOUT,
        route: Route = DIRECT,
    ) -> None:
        super().__init__(server_uri=server_uri, name=name)
        self.logger = logging.getLogger("fed.client.network")
        self._context = context
        self.timeout = timeout
        self._liveness_timeout = liveness_timeout
        self.headers = dict(route.headers) | {PROBES: "1", HALVES: "1"} | ({DEALABLE: "1"} if dealable else {})
        self._server_name = route.server_name
        self._proxy = route.proxy
        self.largest = FIRST_MESSAGES
        self.read: Callable[[bytes], SerializedMessage[Any]] = SerializedMessage.from_bin_message

    async def start(self) -> None:
        """Connect to the server and join, with exponential back-off, for at most `timeout` seconds.

        Raises:
            IdentityError: one side does not accept the other's certificate.
            RefusedError: the server refuses this client for good.
            NetworkError: the server did not answer, or did not let this client in, in the time given.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        said = ""
        for delay in _back_off():
            try:
                await self._connect(max(0.1, deadline - loop.time()))
                refusal = await self._join()
                if refusal is None:
                    return
                reason: FedError = RefusedError(f"the server refused {self.name}: {refusal}")
            except (NetworkError, ConnectionLostError) as exc:
                reason = exc
            await self.stop()
            if loop.time() + delay > deadline:
                raise type(reason)(
                    f"{reason.found}, for {self.timeout:g} s",
                    reason.wanted,
                    reason.remedy or "start the server, or raise CONNECT_TIMEOUT",
                ) from reason
            if str(reason) != said:
                self.logger.warning("%s; trying for another %.0f s", reason.found, deadline - loop.time())
                said = str(reason)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Close the connection, saying that this client leaves."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.close(websockets.frames.CloseCode.GOING_AWAY, "it left")

    async def tell_progress(self, step: int, steps: int) -> None:
        """Tell the server how far this client is in its round; a server that is not ours takes it for a ping."""
        with contextlib.suppress(ConnectionClosed):
            if self._socket is not None:
                await self._socket.ping(progress_payload(step, steps))

    async def lost(self) -> None:
        """Wait until the connection is gone."""
        if self._socket is not None:
            await self._socket.wait_closed()

    def loss(self, cause: Exception | None = None) -> FedError:
        """Word why the connection is gone: lost, or closed for good by the server, whose run is over or has failed."""
        socket_ = self._socket
        if socket_ is not None and socket_.close_code == FAILED:
            return TrainingError(f"the server cancelled training ({one_line(socket_.close_reason)})")
        if socket_ is not None and socket_.close_code == websockets.frames.CloseCode.NORMAL_CLOSURE:
            return DismissedError(one_line(socket_.close_reason) or "the server closed the connection")
        detail = "" if cause is None else f" ({cause})"
        return ConnectionLostError(f"the connection to {self.server_uri} was lost{detail}")

    async def _connect(self, timeout: float) -> None:
        named: dict[str, Any] = {}
        if self._context is not None and self._server_name is not None:
            named["server_hostname"] = self._server_name
        try:
            if self._proxy is not None:
                named["sock"] = await self._through(self._proxy, timeout)
            self._socket = await websockets.connect(
                self.server_uri,
                logger=logging.getLogger("fed.client.websockets"),
                ssl=None if self._context is None else self._context(),
                extra_headers=self.headers,
                **named,
                open_timeout=min(timeout, self._liveness_timeout),
                ping_interval=self._liveness_timeout / 2,
                ping_timeout=self._liveness_timeout / 2,
                close_timeout=CLOSE_TIMEOUT,
                max_size=CLIENT_FRAME,
                max_queue=MOST_FRAMES,
                create_protocol=_Connection,
                compression=resolve_ws_compression(self.compression),
            )
        except (OSError, EOFError, InvalidHandshake, InvalidURI, TimeoutError, ValueError) as exc:
            raise explain_failure(self.server_uri, exc) from exc

    async def _through(self, proxy: Proxy, timeout: float) -> socket.socket:
        uri = parse_uri(self.server_uri)
        return await dig(proxy, uri.host, uri.port, min(timeout, self._liveness_timeout))

    async def _join(self) -> str | None:
        """Ask to join; returns None when let in, else why not for now.

        Raises:
            RefusedError: the refusal will not pass.
        """
        try:
            reply = await self._exchange_action_messages(Join(name=self.name, version=VERSION))
        except ConnectionLostError as exc:
            cause = exc.__cause__.__cause__ if exc.__cause__ is not None else None
            if isinstance(cause, ssl.SSLError):
                # with TLS 1.3 the server's verdict on our certificate arrives after the handshake
                raise explain_failure(self.server_uri, cause) from exc
            raise
        if isinstance(reply, Accept):
            return None
        refusal = f"it answered a request to join with {type(reply).__name__!r}"
        if isinstance(reply, Reject):
            refusal = one_line(reply.flag, 400)
        if refusal in TRANSIENT_REFUSALS:
            return refusal
        remedy = "join under the name of your certificate"
        if refusal.startswith(PUT_OUT):
            remedy = "mend what that names; then ask who operates the federation"
        raise RefusedError(f"the server refused {self.name}: {refusal}", "", remedy)

    async def register(self) -> bool:
        """Tell that this client has joined: `start` does so, or raises."""
        return self._socket is not None

    async def recv_message(self, timeout: float | None = None) -> SerializedMessage[Any]:
        """Wait for a message of the server.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            RefusedError: the server gives this client none.
            DistrustError: what came is no message.
        """
        reply = await self._exchange_action_messages(Recv(timeout))
        if isinstance(reply, Send):
            return self.read(reply.content)
        if isinstance(reply, Reject) and reply.flag == flags.CHECK_MESSAGE_TIMEOUT:
            raise TimeoutError("no message in time")
        if isinstance(reply, Reject):
            raise RefusedError(f"the server gives {self.name} no message: {one_line(reply.flag)}")
        raise DistrustError(f"the server answered a request for a message with {type(reply).__name__!r}")

    async def send_message(self, message: Message) -> None:
        """Send a message to the server.

        Raises:
            RefusedError: the server does not take it.
            DistrustError: the server's answer is none.
        """
        reply = await self._exchange_action_messages(Send(message.serialize()))
        if isinstance(reply, Reject):
            raise RefusedError(f"the server takes no message of {self.name}: {one_line(reply.flag)}")
        if not isinstance(reply, Ping):
            raise DistrustError(f"the server answered a message with {type(reply).__name__!r}")

    async def _exchange_action_messages(self, message: ActionMessage) -> ActionMessage:
        content = await self._send_message(message.serialize())
        try:
            return read_answer(content)
        except ValueError as exc:
            raise DistrustError(f"the server's answer is none: {one_line(exc)}", "one of declearn's") from exc

    async def _send_message(self, bin_msg: bytes) -> bytes:
        socket_ = self._socket
        if socket_ is None:
            raise ConnectionLostError("the connection to the server is closed")
        try:
            await send_websockets_message(bin_msg, socket_)
            answer = await socket_.recv()
            if answer == FLAG_STREAM_START:
                return await gather(socket_, self.largest)
            if not isinstance(answer, bytes):
                raise RefusedMessageError("a text where a binary message was due", CloseCode.UNSUPPORTED_DATA)
        except StreamRefusedError as exc:
            raise DistrustError("the server takes no message in chunks") from exc
        except RefusedMessageError as exc:
            # what follows is no answer to anything: the connection is of no more use
            await socket_.close(exc.code, exc.reason)
            raise DistrustError(
                f"the server sent {exc.reason}", f"at most {self.largest:,} bytes, sent steadily"
            ) from exc
        except ConnectionClosed as exc:
            verdict = None if exc.sent is None or exc.rcvd_then_sent else OUR_VERDICTS.get(exc.sent.code)
            if verdict is not None:
                most = f"at most {CLIENT_FRAME:,} bytes a frame, and {MOST_FRAGMENTS:,} frames a message"
                raise DistrustError(f"the server sent {verdict}", most) from exc
            raise self.loss(exc) from exc
        return answer


def explain_failure(uri: str, error: Exception) -> FedError:
    """Sort why connecting failed: what passes is a `NetworkError`, what needs somebody's hand anything else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return IdentityError(
                f"the certificate of {uri} is not accepted ({cause.verify_message})",
                "one signed by the CA in ca-cert.pem that names this host",
                "take the CA certificate of the same federation, or dial a name in the server's certificate",
            )
        if isinstance(cause, ssl.SSLError) and any(part in (cause.reason or "") for part in CERTIFICATE_ALERTS):
            return IdentityError(
                f"{uri} refused this client's certificate ({(cause.reason or '').lower().replace('_', ' ')})",
                "a certificate of the server's own CA that has not expired",
                "take the identity that the same `fed init` or `fed certs` issued",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, InvalidStatusCode) and error.status_code == http.HTTPStatus.FORBIDDEN:
        return RefusedError(
            f"{uri} does not let this identity take part", "one that is not denied", "ask who operates the federation"
        )
    if isinstance(error, InvalidURI | ValueError):
        return UsageError(
            f"server address {uri!r} can't be used", "wss://host:port", "correct SERVER_URI or --serv-uri"
        )
    if isinstance(error, TimeoutError):
        detail = "no answer in time"
    elif isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        detail = os.strerror(error.errno).lower()
    else:
        detail = str(error) or type(error).__name__
    return NetworkError(f"{uri} can't be reached ({detail})")


def _back_off() -> Iterator[float]:
    """Yield seconds to wait: doubling from 0.2 to 5, spread by a random quarter so that clients do not come at once."""
    delay = 0.2
    while True:
        yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - no secret hangs on it
        delay = min(5.0, delay * 2)
