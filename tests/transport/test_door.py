"""Who stands at the door without having joined, and the TLS handshake: over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import Coroutine
from typing import Any

import pytest
from declearn.communication.api.backend.actions import Ping

from services.transport import door
from services.transport.door import CROWDED, Door, Doorstep
from services.transport.server import ServerEndpoint
from tests.transport.conftest import PATIENCE, Site
from tests.transport.test_gate import peer


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in a loop of its own, for at most four times `PATIENCE` seconds."""
    asyncio.run(asyncio.wait_for(work, 4 * PATIENCE))


class Somebody:
    """A connection of which only its ways out are real."""

    def __init__(self, peer: str, name: str | None = None) -> None:
        self.peer = peer
        self.name = name
        self.refused = False
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def small_door(monkeypatch: pytest.MonkeyPatch) -> Door:
    """Make a door with room for three."""
    monkeypatch.setattr(door, "MOST_STRANGERS", 3)
    return Door()


def enter(at: Door, *callers: Somebody) -> None:
    """Let callers come, one after another."""
    for caller in callers:
        at.enter(caller, caller.peer)


def test_the_oldest_of_the_largest_crowd_makes_way(small_door: Door) -> None:
    """A crowd of one address pushes out its own, and never those of another address."""
    honest, first, second, third, fourth = (Somebody(peer) for peer in ("a", "b", "b", "b", "b"))
    enter(small_door, honest, first, second, third, fourth)
    assert [caller.aborted for caller in (honest, first, second, third, fourth)] == [False, True, True, False, False]
    assert small_door.refusals.totals == {CROWDED: 2}
    assert list(small_door.strangers) == [honest, third, fourth]


def test_who_has_shown_a_certificate_goes_last(small_door: Door) -> None:
    """Those whose names are proven make way for each other, and for nobody else while there are others."""
    known = [Somebody("a", f"client_{number}") for number in range(3)]
    unknown = [Somebody("b"), Somebody("c")]
    enter(small_door, known[0], known[1], *unknown)
    assert [caller.aborted for caller in unknown] == [True, False]
    small_door.leave(unknown[1])
    enter(small_door, known[2], Somebody("a", "client_3"))
    assert [caller.aborted for caller in known] == [True, False, False]


def test_those_who_have_left_make_room(small_door: Door) -> None:
    """Who has joined or gone takes no room at the door, and may leave twice."""
    callers = [Somebody("a") for _ in range(5)]
    for caller in callers:
        enter(small_door, caller)
        small_door.leave(caller)
        small_door.leave(caller)
    assert not any(caller.aborted for caller in callers)


def test_a_connection_is_counted_once(small_door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """What follows from a refusal is no second one."""
    caller = Somebody("a")
    small_door.refuse(caller, "x", "detail")
    small_door.refuse(caller, "y")
    assert small_door.refusals.totals == {"x": 1}
    assert [record.getMessage() for record in caplog.records] == ["refused a: x (detail)"]


@contextlib.asynccontextmanager
async def silent(server: ServerEndpoint, count: int) -> Any:
    """Open connections that say nothing."""
    pairs = [await asyncio.open_connection("localhost", server.port) for _ in range(count)]
    try:
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes the connection."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), PATIENCE)
    return b""


def test_a_flood_of_silence_keeps_nobody_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While more connections than there is room for say nothing, a client joins, and one that has joined goes on."""
    monkeypatch.setattr(door, "MOST_STRANGERS", 4)

    async def scene() -> None:
        async with (
            site.server() as server,
            peer(site, server, "client_1", joins=True) as member,
            silent(server, 10) as readers,
        ):
            for reader in readers[:6]:
                assert await closed(reader) == b""
            assert server.door.refusals.totals == {CROWDED: 6}
            client = site.client(server)
            await client.start()
            assert server.client_names == {"client_0", "client_1"}
            await client.stop()
            await member.send(Ping().serialize())
            assert await member.recv()

    run(scene())


def test_a_handshake_has_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that never begins TLS is closed on, and counted with its address."""
    monkeypatch.setattr(door, "HANDSHAKE_TIMEOUT", 0.1)

    async def scene() -> None:
        async with site.server() as server, silent(server, 1) as (reader,):
            assert await closed(reader) == b""
            assert server.door.refusals.totals == {"no TLS handshake in time": 1}
            assert not server.door.strangers

    run(scene())


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        (b"", "it hung up"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "it hung up"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", "http request"),
        (b"\x00" * 64, "wrong version number"),
    ],
)
def test_what_is_no_handshake_is_counted_with_its_address(
    site: Site, opening: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rubbish, plain HTTP, half a handshake and none at all are one line each, with the address and no traceback."""

    async def scene() -> None:
        async with site.server() as server:
            reader, writer = await asyncio.open_connection("localhost", server.port)
            writer.write(opening)
            writer.write_eof()
            await closed(reader)
            writer.close()
            while server.door.strangers:
                await asyncio.sleep(0)
            assert server.door.refusals.totals == {"no TLS handshake": 1}

    run(scene())
    (line,) = [record.getMessage() for record in caplog.records if record.name == "fed.server.network"]
    assert line in {f"refused {address}: no TLS handshake ({said})" for address in ("127.0.0.1", "::1")}
    assert all(record.exc_info is None for record in caplog.records)


def test_who_ignores_the_alert_is_closed_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer whose handshake failed and that keeps its connection open loses it soon, counted once."""
    monkeypatch.setattr(door, "ALERT_TIMEOUT", 0.1)

    async def scene() -> None:
        async with site.server() as server:
            reader, writer = await asyncio.open_connection("localhost", server.port)
            writer.write(b"\x00" * 64)
            assert (await closed(reader))[:1] in {b"\x15", b""}, "an alert, or nothing of use"
            assert server.door.refusals.totals == {"no TLS handshake": 1}
            writer.close()

    run(scene())


def test_a_request_that_comes_with_the_handshake_is_not_lost(site: Site) -> None:
    """What a client sends in one packet with the end of its handshake reaches the websocket."""

    async def scene() -> None:
        async with site.server() as server:
            context = ssl.create_default_context(cafile=site.folder / "ca-cert.pem")
            clients = site.folder / "clients"
            context.load_cert_chain(clients / "client_0-cert.pem", clients / "client_0-pkey.pem")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await asyncio.open_connection("localhost", server.port)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(2**16))
            tls.write(b"GET / HTTP/1.0\r\n\r\n")
            writer.write(outgoing.read())  # the end of the handshake, and the request
            answer = b""
            while b"\r\n\r\n" not in answer:
                incoming.write(await asyncio.wait_for(reader.read(2**16), PATIENCE))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += tls.read(2**16)
            assert answer.startswith(b"HTTP/1.1 400 ")
            writer.close()

    run(scene())


def test_a_server_that_stops_closes_on_everybody(site: Site) -> None:
    """Those at the door are closed on when the server stops, and are to blame for nothing."""

    async def scene() -> None:
        server = site.server()
        async with server:
            pairs = [await asyncio.open_connection("localhost", server.port) for _ in range(3)]
            while len(server.door.strangers) < 3:
                await asyncio.sleep(0)
        for reader, writer in pairs:
            assert await closed(reader) == b""
            writer.close()
        assert server.door.refusals.totals == {}

    run(scene())


def test_remains_of_connections_are_collected(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are gone, cycles that hold the buffers of TLS, do not wait for the collector to come by."""
    monkeypatch.setattr(door, "MOST_REMAINS", 4)

    async def scene() -> None:
        async with site.server() as server:
            for _ in range(12):
                _, writer = await asyncio.open_connection("localhost", server.port)
                writer.write(b"\x16")
                writer.transport.abort()
            # the refusal is noted before the connection is gone
            while server.door.refusals.totals.total() < 12 or server.door.strangers or server.door.remains:
                await asyncio.sleep(0.01)
            assert doorsteps() - before <= 4

    def doorsteps() -> int:
        return sum(isinstance(each, Doorstep) for each in gc.get_objects())

    gc.collect()
    before = doorsteps()  # what other tests have left alive
    gc.disable()
    try:
        run(scene())
    finally:
        gc.enable()
