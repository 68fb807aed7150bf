"""What a peer may do before it has joined, and a client after: over real TLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import websockets
from cryptography import x509
from declearn import messaging
from declearn.communication.api.backend.actions import Join, Ping, Recv, Send
from declearn.version import VERSION

from services.errors import RefusedError
from services.paths import CA_CERTIFICATE, client_certificate, client_key
from services.transport import gate, tls
from services.transport.server import ServerEndpoint
from tests.client.hostile import send_fragments
from tests.transport.conftest import PATIENCE, Site


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in a loop of its own, for at most four times `PATIENCE` seconds."""
    asyncio.run(asyncio.wait_for(work, 4 * PATIENCE))


def context_of(site: Site, name: str) -> ssl.SSLContext:
    """Make the TLS context that the client called `name` connects with."""
    clients = site.folder / "clients"
    return tls.client_context(
        site.folder / CA_CERTIFICATE, clients / client_certificate(name), clients / client_key(name)
    )


@contextlib.asynccontextmanager
async def peer(site: Site, server: ServerEndpoint, name: str, *, joins: bool = False) -> AsyncIterator[Any]:
    """Connect by hand as `name`, joined or not."""
    uri = f"wss://localhost:{server.port}"
    async with websockets.connect(uri, ssl=context_of(site, name), close_timeout=0.2, max_size=None) as socket:
        if joins:
            for message in (Join(name=name, version=VERSION), Ping()):
                await socket.send(message.serialize())
                await socket.recv()
        yield socket


async def closed_with(socket: Any, *frames: Any) -> int | None:
    """Send frames until the server has had enough, and give the code that it closed with."""
    with contextlib.suppress(websockets.ConnectionClosed):
        for frame in frames:
            await socket.send(frame)
    await asyncio.wait_for(socket.wait_closed(), PATIENCE)
    code: int | None = socket.close_code
    return code


def test_a_stranger_may_send_one_small_message(site: Site) -> None:
    """Before it has joined, a peer that sends a large frame, a text or chunks is closed on, and the reason noted."""

    async def scene() -> None:
        async with site.server() as server:
            async with peer(site, server, "client_0") as socket:
                assert await closed_with(socket, b"x" * (gate.STRANGER_FRAME + 1)) == 1009
            async with peer(site, server, "client_0") as socket:
                assert await closed_with(socket, "good morning") == 1003
            async with peer(site, server, "client_0") as socket:
                assert await closed_with(socket, b"STREAM_START") == 1008
            assert server.door.refusals.totals == {
                "a frame that is too large": 1,
                "a text where a binary message was due": 1,
                "a message in chunks before joining": 1,
            }

    run(scene())


def test_a_stranger_must_join_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that opens a websocket and says nothing is closed on."""
    monkeypatch.setattr(gate, "JOIN_TIMEOUT", 0.1)

    async def scene() -> None:
        async with site.server() as server, peer(site, server, "client_0") as socket:
            assert await closed_with(socket) == 1008
            assert socket.close_reason == "no request to join within 0.1 s"

    run(scene())


def test_connections_under_one_certificate_are_limited(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One identity can't hold more than a few connections, whoever has copied it."""
    monkeypatch.setattr(gate, "MOST_BY_NAME", 2)

    async def scene() -> None:
        async with site.server() as server, contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(peer(site, server, "client_0"))
            with pytest.raises(websockets.InvalidStatusCode) as caught:
                await stack.enter_async_context(peer(site, server, "client_0"))
            assert caught.value.status_code == 429
            await stack.enter_async_context(peer(site, server, "client_1"))

    run(scene())


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"STREAM_START", *[b"x" * 500] * 3], "a message of more than 1,000 bytes"),
        ([b"STREAM_START", b""], "an empty chunk"),
        ([b"STREAM_START", "x"], "a text among the chunks of a message"),
        ([b"STREAM_START", b"x"], "a message that comes too slowly"),
        ([b"x" * (gate.CLIENT_FRAME + 1)], "a frame that is too large"),
    ],
)
def test_a_client_s_message_is_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch, frames: list[bytes | str], reason: str
) -> None:
    """A client whose message is too large, malformed or too slow is closed on; the others go on."""
    monkeypatch.setattr(gate, "PATIENCE", 0.3)

    async def scene() -> None:
        async with site.server() as server, contextlib.AsyncExitStack() as stack:
            other = await stack.enter_async_context(peer(site, server, "client_1", joins=True))
            socket = await stack.enter_async_context(peer(site, server, "client_0", joins=True))
            server.door.largest = 1000
            server.handler.post_message(b"a question", "client_0")
            await socket.send(Recv().serialize())
            assert await socket.recv() == Send(b"a question").serialize()
            assert await closed_with(socket, *frames) in {1003, 1008, 1009}
            assert server.door.refusals.totals == {reason: 1}
            assert server.client_names == {"client_1"}
            await other.send(Ping().serialize())
            assert await other.recv()

    run(scene())


def test_only_an_answer_comes_in_chunks(site: Site) -> None:
    """A client that was asked nothing, or has answered, has nothing to say that takes more than a frame."""

    async def scene() -> None:
        async with site.server() as server:
            for answered in (False, True):
                async with peer(site, server, "client_0", joins=True) as socket:
                    if answered:
                        server.handler.post_message(b"a question", "client_0")
                        for message in (Recv(), Send(b"an answer")):
                            await socket.send(message.serialize())
                            assert await socket.recv()
                    assert await closed_with(socket, b"STREAM_START") == 1008
            assert server.door.refusals.totals == {"a message in chunks that nobody asked for": 2}

    run(scene())


def test_a_message_comes_in_so_many_frames_at_most(site: Site) -> None:
    """Empty frames of one message, which the library would keep without end, are closed on when there are too many."""

    async def scene() -> None:
        async with site.server() as server, peer(site, server, "client_0", joins=True) as socket:
            await send_fragments(socket)
            await asyncio.wait_for(socket.wait_closed(), PATIENCE)
            assert socket.close_code == 1002
            while not server.door.refusals.totals:  # the library closes first
                await asyncio.sleep(0)
            assert server.door.refusals.totals == {"a malformed frame": 1}

    run(scene())


def test_a_denied_identity_is_not_let_in(site: Site) -> None:
    """Who is on the denylist is told so at the door, and others join as ever."""

    async def scene() -> None:
        async with site.server(denied=lambda: {"client_0"}) as server:
            with pytest.raises(RefusedError) as caught:
                await site.client(server).start()
            assert "does not let this identity take part" in str(caught.value)
            other = site.client(server, "client_1")
            await other.start()
            assert server.client_names == {"client_1"}
            await other.stop()

    run(scene())


def test_a_certificate_is_denied_by_its_number(site: Site) -> None:
    """A serial number on the denylist keeps out, and puts out, whoever shows that certificate, and nobody else."""
    denied: set[str] = set()
    certificate = x509.load_pem_x509_certificate(
        (site.folder / "clients" / client_certificate("client_0")).read_bytes()
    )

    async def scene() -> None:
        async with site.server(denied=lambda: denied) as server:
            client, other = site.client(server), site.client(server, "client_1")
            await client.start()
            await other.start()
            denied.add(f"serial:{certificate.serial_number:X}")
            server.enforce_denials()
            await asyncio.wait_for(client.lost(), PATIENCE)
            with pytest.raises(RefusedError, match="does not let this identity take part"):
                await client.start()
            assert server.client_names == {"client_1"}
            await other.stop()

    run(scene())


def test_a_member_that_is_denied_is_put_out(site: Site) -> None:
    """Who comes onto the denylist while connected is closed on, missed at once, and can't come back."""
    denied: set[str] = set()

    async def scene() -> None:
        async with site.server(denied=lambda: denied) as server:
            client = site.client(server)
            await client.start()
            asked = asyncio.create_task(
                server.ask({"client_0": messaging.GenericMessage(action="x", params={})}, messaging.InitReply)
            )
            while server.handler.mailboxes["client_0"].outgoing is None:
                await asyncio.sleep(0)
            denied.add("client_0")
            server.enforce_denials()
            answers = await asked
            assert answers.losses["client_0"].reason == gate.DENIED
            await asyncio.wait_for(client.lost(), PATIENCE)
            with pytest.raises(RefusedError):
                await client.start()
            assert server.client_names == set()

    run(scene())


def test_a_member_that_is_put_out_may_return_when_the_operator_says_so(site: Site) -> None:
    """It is closed on and let in no more, with the reason; on the denylist and off it again, it may join."""
    denied: set[str] = set()

    async def scene() -> None:
        async with site.server(denied=lambda: denied) as server:
            client = site.client(server)
            await client.start()
            server.put_out("client_0", "it sent rubbish")
            await asyncio.wait_for(client.lost(), PATIENCE)
            assert server.client_names == set()
            with pytest.raises(RefusedError, match="put out of this run: it sent rubbish; mend what that names"):
                await client.start()
            server.enforce_denials()
            with pytest.raises(RefusedError, match="put out of this run"):
                await client.start()
            denied.add("client_0")
            server.enforce_denials()
            with pytest.raises(RefusedError, match="does not let this identity take part"):
                await client.start()
            denied.clear()
            server.enforce_denials()
            await client.start()
            assert server.client_names == {"client_0"}
            await client.stop()

    run(scene())


def test_a_refusal_is_one_line_a_peer(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Twenty connections of rubbish under one certificate are one line in the log, and a count at the end."""

    async def scene() -> None:
        async with site.server() as server:
            for number in range(20):
                async with peer(site, server, "client_0") as socket:
                    await socket.send(bytes([number]) * 40)
                    await socket.wait_closed()
            assert sum(server.door.refusals.totals.values()) == 20

    run(scene())
    refused = [record for record in caplog.records if "refused" in record.getMessage()]
    assert [record.getMessage() for record in refused] == [
        "refused client_0: a message that is none of declearn's",
        "refused 19 more times: a message that is none of declearn's",
    ]
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64 + b"\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"])
def test_what_is_no_websocket_is_answered_and_dropped(
    site: Site, opening: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain HTTP or rubbish within TLS is answered, the connection closed, and nothing is raised into the log."""

    async def scene() -> None:
        async with site.server() as server:
            reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context_of(site, "client_0"))
            writer.write(opening)
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
            assert answer.startswith(b"HTTP/1.1 4")
            writer.close()
            assert sum(server.door.refusals.totals.values()) == 1

    run(scene())
    assert all(record.exc_info is None for record in caplog.records)


async def opened(site: Site, server: ServerEndpoint, opening: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes within TLS and read what comes, until the server closes."""
    reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context_of(site, "client_0"))
    writer.write(opening)
    if hang_up:
        writer.close()
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return answer
    return b""


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %s\r\n\r\n"
)


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2700, "no websocket handshake"),
        (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 8000 + b"\r\n") * 100, "a websocket handshake that is too long"),
        (UPGRADE % b"\xff\xfe", "no websocket handshake"),
        (UPGRADE % b"short", "no websocket handshake"),
    ],
    ids=["many headers", "long headers", "undecodable", "no key"],
)
def test_an_opening_is_bounded_and_raises_nothing(
    site: Site, opening: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that is too long, or that the library can't decode, is refused in one line, without a traceback."""

    async def scene() -> None:
        async with site.server() as server:
            answer = await opened(site, server, opening)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
            assert server.door.refusals.totals == {reason: 1}

    run(scene())
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["fed.server.network"]
    assert all(record.exc_info is None for record in caplog.records)


def test_who_hangs_up_without_joining_is_counted(site: Site) -> None:
    """A peer that leaves before its websocket is open, or before it has joined, is counted, and is gone at once."""

    async def scene() -> None:
        async with site.server() as server:
            await opened(site, server, b"GET /", hang_up=True)
            async with peer(site, server, "client_0"):
                pass
        assert server.door.refusals.totals == {"no websocket handshake": 1, "no request to join": 1}

    run(scene())


def test_empty_fragments_are_counted_too(site: Site) -> None:
    """A message in endless frames without content is cut off, though its size is nothing."""

    async def scene() -> None:
        async with site.server() as server, peer(site, server, "client_0", joins=True) as socket:
            with contextlib.suppress(websockets.ConnectionClosed, ConnectionError):
                for number in range(gate.MOST_FRAGMENTS + 2):
                    await socket.write_frame(fin=False, opcode=0 if number else 2, data=b"")
            await asyncio.wait_for(socket.wait_closed(), PATIENCE)
        assert server.door.refusals.totals == {"a malformed frame": 1}

    run(scene())


def test_comings_and_goings_are_no_lines_of_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The library's lines for each connection, refused or not, are not written anywhere."""
    caplog.set_level(logging.DEBUG)

    async def scene() -> None:
        async with site.server() as server:
            for _ in range(3):
                async with peer(site, server, "client_0", joins=True) as socket:
                    await socket.send(Join(name="client_0", version=VERSION).serialize())
                    await socket.recv()
                await opened(site, server, b"rubbish\r\n\r\n")

    run(scene())
    named = [record.name for record in caplog.records if record.name.startswith(("fed.server.", "declearn"))]
    assert set(named) == {"fed.server.network"}
    assert len(named) == 3, "that it listens, one refusal, and how many more"
