"""One connection at the server's door: what it may do before, and after, it belongs to a client.

The websocket library trusts its peers with a megabyte a frame and any number of connections. Ours gives a peer that has
not joined one small message and a few seconds, and a client that has joined room for the model.
"""

from __future__ import annotations

import asyncio
import http
from typing import Any

from declearn.communication.websockets._tools import (
    FLAG_STREAM_ALLOW,
    FLAG_STREAM_BLOCK,
    FLAG_STREAM_CLOSE,
    FLAG_STREAM_START,
)
from websockets.exceptions import AbortHandshake, InvalidHandshake, ProtocolError
from websockets.frames import CloseCode
from websockets.legacy.protocol import WebSocketCommonProtocol
from websockets.protocol import State
from websockets.server import WebSocketServerProtocol

from services.transport.door import Door, address_of
from services.transport.messages import parse_progress
from services.transport.tls import peer_name, peer_serial

STRANGER_FRAME = 2**14
"""Bytes of the one message that a peer may send before it has joined; declearn's request to join has some fifty."""

CLIENT_FRAME = 2**20 + 2**10
"""Bytes of a frame of a client; declearn cuts what is larger into chunks of a little less than 2**20."""

MOST_FRAGMENTS = 1024
"""Frames that one message may come in; the library counts their bytes alone, and keeps any number of empty ones."""

STRANGER_FRAGMENTS = 16
"""The same before it has joined: 16 of these are a kilobyte each of the little that it may send."""

JOIN_TIMEOUT = 10.0
"""Seconds from an open websocket to a request to join."""

LONGEST_OPENING = 2**14
"""Bytes of the HTTP request that opens a websocket; the library would keep a megabyte of headers."""

MOST_BY_NAME = 4
"""Connections under one certificate, at a time: a client that comes back may find its old one not yet dead."""

SLOWEST = 2**13
"""Bytes a second that a chunked message must come at, on average, once it has taken `PATIENCE`."""

PATIENCE = 30.0
"""Seconds that any chunked message may take."""

CHUNK_OVERHEAD = 64
"""Bytes that a chunk takes beside its own, so that a message of a byte a chunk is no larger than it is counted."""

DENIED = "this identity is on the server's denylist"


SERIAL = "serial:"
"""Begins an entry of the denylist that is no name but the serial number of a certificate."""


class RefusedMessageError(Exception):
    """A peer sent what it may not; its connection is closed.

    Attributes:
        reason: why, in words that do not depend on the peer.
        code: of the websocket's close (RFC 6455, section 7.4.1).
    """

    def __init__(self, reason: str, code: CloseCode = CloseCode.POLICY_VIOLATION) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class CountedFrames(WebSocketCommonProtocol):
    """Either end of a connection, on which a message comes in so many frames at most.

    Overrides `read_data_frame`, from which the library puts messages together.

    Attributes:
        most_fragments: frames that one message may come in.
    """

    most_fragments = MOST_FRAGMENTS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fragments = 0

    async def read_data_frame(self, max_size: int | None) -> Any:
        frame = await super().read_data_frame(max_size)
        if frame is not None:
            self._fragments = 0 if frame.fin else self._fragments + 1
            if self._fragments > self.most_fragments:
                raise ProtocolError("a message in too many frames")
        return frame


class Gate(CountedFrames, WebSocketServerProtocol):
    """`WebSocketServerProtocol` of one connection, with limits by what is known of its peer.

    Overrides `connection_made`, `connection_lost`, `data_received`, `process_request` and `handshake`, the library's
    places to look at a connection before it is a websocket; `pong`, which tells how far the peer is.

    Args:
        door: what all connections share.

    Attributes:
        name: the name that the peer's certificate proves, or None.
        marks: by what a denylist may mean the peer: its name, and its certificate as `serial:<hexadecimal digits>`.
        peer: who this is, for a log: that name, else its address.
        refused: it has been counted among the refusals.
        joined: it has been let in.
        heard: when it was last heard of, by the event loop's clock.
        progress: step and steps of the round it is in, as it last told, or None.
    """

    name: str | None
    marks: frozenset[str]
    peer: str
    heard: float
    progress: tuple[int, int] | None

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refused = False
        self.joined = False
        self._door = door
        self.heard = 0.0
        self.progress = None
        self.most_fragments = STRANGER_FRAGMENTS
        self._opening = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # taken down now: a connection that is gone tells no more who it was
        shown = transport.get_extra_info("ssl_object")
        self.name = peer_name(shown)
        self.marks = frozenset(mark for mark in (self.name, f"{SERIAL}{peer_serial(shown)}") if mark)
        address = address_of(transport)
        self.peer = self.name or address
        self._door.open.add(self)
        self._door.enter(self, address)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.open.discard(self)
        super().connection_lost(exc)
        self._door.lose(self)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        if self.state is State.CONNECTING:
            self._opening += len(data)
            if self._opening > LONGEST_OPENING:
                self.refuse("a websocket handshake that is too long")
                self.abort()
                return
        super().data_received(data)

    async def pong(self, data: Any = b"") -> None:
        """Answer a ping, and take note of what it tells of the peer's progress."""
        if isinstance(data, bytes):
            self.progress = parse_progress(data) or self.progress
        if not self.transport.is_closing():  # thousands of pings may be left of a peer that is gone
            await super().pong(data)

    async def handshake(self, *args: Any, **kwargs: Any) -> str:
        try:
            return await super().handshake(*args, **kwargs)
        except AbortHandshake:
            raise  # `process_request` has told why
        except InvalidHandshake as exc:
            self.refuse("no websocket handshake", str(exc))
            raise
        except asyncio.CancelledError:
            self.refuse("no websocket handshake in time")
            raise
        except ConnectionError:
            self.refuse("no websocket handshake", "it hung up")
            raise
        except Exception as exc:
            # bytes in a header that the library can't decode, for one; it would log a traceback for each
            self.refuse("no websocket handshake", f"{type(exc).__name__}: {exc}")
            raise InvalidHandshake("not a websocket handshake") from exc

    async def process_request(
        self, path: str, request_headers: Any
    ) -> tuple[http.HTTPStatus, list[tuple[str, str]], bytes] | None:
        del path, request_headers
        name = self.name
        if name is None:
            return None
        if self.marks & frozenset(self._door.denied()):
            self.refuse(DENIED)
            return http.HTTPStatus.FORBIDDEN, [], DENIED.encode()
        if sum(other.name == name for other in self._door.open) > MOST_BY_NAME:
            self.refuse("too many connections under one certificate")
            return http.HTTPStatus.TOO_MANY_REQUESTS, [], b""
        return None

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; upstream fails where it never became a websocket, as a stopping server may find."""
        if not hasattr(self, "transfer_data_task"):
            self.abort()
        else:
            await super().close(code, reason)

    def refuse(self, reason: str, detail: str = "") -> None:
        """Take note of why this connection is refused."""
        self._door.refuse(self, reason, detail)

    def admit(self) -> None:
        """Give the peer, which has joined, room for the messages of a client."""
        self.joined = True
        self._door.leave(self)
        self.max_size = CLIENT_FRAME
        self.most_fragments = MOST_FRAGMENTS

    async def next_message(self, *, known: bool, answers: bool) -> bytes:
        """Receive one message, from as many frames as it comes in.

        Args:
            known: the peer has joined; else it has `JOIN_TIMEOUT` seconds for one small message.
            answers: the peer has been asked something; else it has nothing to say that takes more than a frame.

        Raises:
            RefusedMessageError: the message is none, is too large, or comes too slowly.
            ConnectionClosed: the peer is gone.
        """
        try:
            async with asyncio.timeout(None if known else JOIN_TIMEOUT):
                frame = await self.recv()
        except TimeoutError:
            raise RefusedMessageError(f"no request to join within {JOIN_TIMEOUT:g} s") from None
        if not isinstance(frame, bytes):
            raise RefusedMessageError("a text where a binary message was due", CloseCode.UNSUPPORTED_DATA)
        if frame != FLAG_STREAM_START:
            return frame
        if not answers:
            await self.send(FLAG_STREAM_BLOCK)
            raise RefusedMessageError(f"a message in chunks {'that nobody asked for' if known else 'before joining'}")
        return await gather(self, self._door.largest)


async def gather(socket: WebSocketCommonProtocol, largest: int) -> bytes:
    """Let the other side send one message in chunks, and put it together, in bounded memory and time.

    Upstream's `receive_websockets_message` takes any number of chunks, however slowly they come.

    Args:
        socket: the connection, on which a message in chunks has been announced.
        largest: bytes that the message may have.

    Raises:
        RefusedMessageError: it has more, or comes too slowly, or is none.
    """
    await socket.send(FLAG_STREAM_ALLOW)
    began = asyncio.get_running_loop().time()
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout_at(began + PATIENCE + size / SLOWEST):
                chunk = await socket.recv()
        except TimeoutError:
            raise RefusedMessageError("a message that comes too slowly") from None
        if not isinstance(chunk, bytes):
            raise RefusedMessageError("a text among the chunks of a message", CloseCode.UNSUPPORTED_DATA)
        if chunk == FLAG_STREAM_CLOSE:
            return b"".join(chunks)
        size += len(chunk) + CHUNK_OVERHEAD
        if size > largest or not chunk:
            raise RefusedMessageError(
                f"a message of more than {largest:,} bytes" if chunk else "an empty chunk", CloseCode.MESSAGE_TOO_BIG
            )
        chunks.append(chunk)
