"""Through an HTTP proxy: a real one on loopback that connects, and ones that refuse, stall or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from services.errors import FedError, NetworkError, UsageError
from services.transport.client import Route
from services.transport.tunnel import LONGEST_HEAD, Proxy, read_proxy
from tests.transport.conftest import PATIENCE, Site

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in a loop of its own, for at most four times `PATIENCE` seconds."""
    asyncio.run(asyncio.wait_for(work, 4 * PATIENCE))


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[Proxy]:
    """Let `handler` take every connection to a port of loopback, as a proxy there."""
    held: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield Proxy("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


def connecting(asked: list[bytes]) -> Handler:
    """Make a proxy that connects to whatever it is asked for, and notes how it was asked."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(2**16):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        host, port = head.split(b" ")[1].decode().rsplit(":", 1)
        there, onward = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        await asyncio.gather(pump(reader, onward), pump(there, writer))

    return handler


def test_a_client_joins_through_a_proxy(site: Site) -> None:
    """A proxy connects, and TLS goes on from end to end: the server sees the client's certificate, and the proxy a
    request for the server's address, with the user that SERVER_PROXY names.
    """
    asked: list[bytes] = []

    async def scene() -> None:
        async with site.server() as server, listening(connecting(asked)) as proxy:
            named = Proxy(proxy.host, proxy.port, read_proxy("http://user:pass%20word@h").authorization)
            client = site.client(server, route=Route(proxy=named))
            await client.start()
            assert server.client_names == {"client_0"}
            await client.stop()
            ends = f"localhost:{server.port}".encode()
            assert asked == [
                b"CONNECT " + ends + b" HTTP/1.1\r\nHost: " + ends + b"\r\n"
                b"Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
            ]

    run(scene())


def answering(answer: bytes) -> Handler:
    """Make a proxy that says the same to everybody."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return handler


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 407 Proxy Authentication Required"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 403 Forbidden"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0-OpenSSH"),
        (b"\xff\xfe\r\n\r\n", "��"),
        (b"", "it hung up"),
        (b"HTTP/1.1 " + b"9" * (LONGEST_HEAD + 10), "HTTP/1.1 999"),
    ],
)
def test_a_proxy_that_does_not_connect_is_told_of(site: Site, answer: bytes, told: str) -> None:
    """Whatever a proxy says in place of yes, however long, is one line that names the proxy, and no password."""

    async def scene() -> None:
        async with site.server() as server, listening(answering(answer)) as proxy:
            secret = Proxy(proxy.host, proxy.port, "Basic c2VjcmV0")
            client = site.client(server, route=Route(proxy=secret), timeout=1)
            with pytest.raises(NetworkError) as caught:
                await client.start()
            line = str(caught.value)
            assert f"the proxy {proxy} does not let through to localhost:{server.port} ({told}" in line
            assert "\n" not in line
            assert "c2VjcmV0" not in line

    run(scene())


def test_a_proxy_that_is_silent_or_gone_is_given_up_on(site: Site) -> None:
    """A proxy that never answers, or that nobody listens at, is one line after the time that the client has."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def scene() -> None:
        async with site.server() as server:
            async with listening(silent) as proxy:
                with pytest.raises(FedError, match=f"the proxy {proxy} can't be reached .no answer in time"):
                    await site.client(server, route=Route(proxy=proxy), timeout=1).start()
            with pytest.raises(NetworkError, match=f"the proxy {proxy} can't be reached"):
                await site.client(server, route=Route(proxy=proxy), timeout=1).start()

    run(scene())


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://proxy.example.org:8080", "proxy.example.org", 8080),
        ("proxy", "proxy", 3128),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81),
    ],
)
def test_an_address_of_a_proxy_is_read(text: str, host: str, port: int) -> None:
    """The scheme may be left out, and the port; an IPv6 address stands in brackets."""
    assert read_proxy(text) == Proxy(host, port)


@pytest.mark.parametrize(
    "text", ["https://user:secret@proxy", "http://", "http://h:0", "http://h:99999", "http://h/path", "socks5://h:1"]
)
def test_what_is_no_address_of_a_proxy_is_refused(text: str) -> None:
    """The line says what was wanted, and repeats nothing: a password may be in it."""
    with pytest.raises(UsageError) as caught:
        read_proxy(text)
    assert str(caught.value) == (
        "SERVER_PROXY is no address of a proxy; wanted http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT; correct it"
    )
