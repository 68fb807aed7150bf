"""Connections to the page: crowds, silence and rubbish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from services.server.page import visitors
from services.server.status import StatusServer
from tests.support import deadline

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def serve(scene: Callable[[int], Awaitable[None]]) -> None:
    """Play `scene` against a page, given its port."""

    async def main() -> None:
        status = StatusServer("localhost", 0, lambda: {"healthy": True})
        status.start()
        try:
            await scene(status._socket.getsockname()[1])
        finally:
            await status.close()

    asyncio.run(asyncio.wait_for(main(), deadline(30)))


async def answer(port: int, request: bytes = REQUEST) -> bytes:
    """Send a request and read all that comes, until the connection is closed."""
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(request)
    found = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return found


def test_a_crowd_that_says_nothing_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections are open, the next one is answered; the oldest silent ones are closed."""
    monkeypatch.setattr(visitors, "MOST_VISITORS", 3)

    async def scene(port: int) -> None:
        crowd = [await asyncio.open_connection("localhost", port) for _ in range(5)]
        assert (await answer(port)).endswith(b"ok\n")
        with contextlib.suppress(ConnectionError):
            assert await crowd[0][0].read() == b""
        for _, writer in crowd:
            writer.close()

    serve(scene)


def test_one_that_asks_nothing_is_closed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request, or with half of one, ends by itself."""
    monkeypatch.setattr(visitors, "PATIENCE", 0.1)

    async def scene(port: int) -> None:
        for opening in (b"", REQUEST[:20]):
            with contextlib.suppress(ConnectionError):
                assert await answer(port, opening) == b""
        assert (await answer(port)).endswith(b"ok\n")

    serve(scene)


UPGRADE = (
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
        UPGRADE,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_rubbish_is_answered_and_leaves_no_line(
    rubbish: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no request is refused or closed on, fills no log, and the next request is answered."""
    monkeypatch.setattr(visitors, "PATIENCE", 0.1)

    async def scene(port: int) -> None:
        with contextlib.suppress(ConnectionError):
            found = await answer(port, rubbish)
            assert found[:10] in {b"", b"HTTP/1.1 4", b"HTTP/1.1 2"}
        assert (await answer(port)).endswith(b"ok\n")

    serve(scene)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []
