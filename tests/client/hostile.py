"""A server that gives a client whatever a test wants, byte by byte, and keeps all that the client sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import websockets
from declearn.communication.api.backend.actions import Accept, ActionMessage, Join, Ping, Recv, Send
from declearn.communication.websockets._tools import receive_websockets_message, send_websockets_message
from declearn.messaging import Message, SerializedMessage
from websockets.frames import Opcode

from services.transport.client import ClientEndpoint

T = TypeVar("T")

Part = Message | bytes | Callable[[Any], Coroutine[Any, Any, None]]
"""What a server gives: a message, its bytes, or what it does with the connection itself."""

PATIENCE = 60.0
"""Seconds that a scene may take."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, in bounded time."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


class HostileServer:
    """What listens, and what it has seen.

    Args:
        script: what it gives at each request for a message, in order. When there is no more, it closes.

    Attributes:
        port: where it listens.
        received: what the client sent, parsed.
        reply: what it answers a message of the client with.
        left: set when the connection is gone.
    """

    def __init__(self, script: Sequence[Part]) -> None:
        self.port = 0
        self.received: list[Message] = []
        self.reply: ActionMessage = Ping()
        self.left = asyncio.Event()
        self._script = list(script)

    async def handle(self, socket: Any) -> None:
        """Serve one connection by the script."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                content = await receive_websockets_message(await socket.recv(), socket, allow_chunks=True)
                request = ActionMessage.deserialize(content)
                if isinstance(request, Recv):
                    if not self._script:
                        await socket.close()
                        break
                    part = self._script.pop(0)
                    if callable(part):
                        await part(socket)
                        continue
                    answer: ActionMessage = Send(part if isinstance(part, bytes) else part.serialize())
                elif isinstance(request, Send):
                    self.received.append(SerializedMessage.from_bin_message(request.content).deserialize())
                    answer = self.reply
                else:
                    answer = Accept("welcome") if isinstance(request, Join) else Ping()
                await send_websockets_message(answer.serialize(), socket)
        await socket.wait_closed()
        self.left.set()

    def endpoint(self, timeout: float = 5.0) -> ClientEndpoint:
        """Make the client's end of a connection to it."""
        return ClientEndpoint(f"ws://localhost:{self.port}", "client_0", None, dealable=True, timeout=timeout)


@contextlib.asynccontextmanager
async def hostile(
    *script: Message | bytes | Callable[[Any], Coroutine[Any, Any, None]],
) -> AsyncIterator[HostileServer]:
    """Let a server of that script listen."""
    server = HostileServer(script)
    async with websockets.serve(server.handle, "localhost", 0, max_size=None) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


async def send_fragments(socket: Any) -> None:
    """Begin a message, and go on with empty frames until the other side has had enough."""
    opcode = Opcode.BINARY
    with contextlib.suppress(websockets.ConnectionClosed, websockets.InvalidState):
        while True:
            await socket.write_frame(fin=False, opcode=opcode, data=b"")
            opcode = Opcode.CONT
            await asyncio.sleep(0)
