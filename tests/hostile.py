"""Hostile traffic of every kind that a stranger or the holder of an identity can send: seeded, bounded, for tests.

    python -m tests.hostile HOST PORT --identities FOLDER --live client_0 --free client_5,client_6 [--count N]

It speaks TLS and websockets by hand, since libraries send nothing malformed. Printed at the end, as JSON: for each kind
how many connections were opened, and how often the server should have refused them, by reason.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import contextlib
import json
import logging
import random
import resource
import ssl
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from declearn.communication.api.backend.actions import Join, Ping, Recv, Send
from declearn.version import VERSION

from services.init import identities
from services.paths import CA_CERTIFICATE, client_certificate, client_key

PATIENCE = 60.0
"""Seconds that anything may take; the slowest thing that the server waits for is a message that comes too slowly."""

SLOTS = 2
"""Connections that are opened under one identity at a time: with more, the server would refuse them for that."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
"""Opcodes (RFC 6455, section 5.2)."""


@dataclass
class Target:
    """A server, and what an attacker has to approach it with.

    Attributes:
        host: of the server, one of the names in its certificate.
        port: of the server.
        folder: the clients' certificates and keys.
        live: an identity that a client is connected under.
        free: identities that nobody holds.
        session: what another connection sent, byte by byte.
    """

    host: str
    port: int
    folder: Path
    live: str
    free: list[str]
    session: bytes = b""
    _contexts: dict[str | None, ssl.SSLContext] = field(default_factory=dict)
    _slots: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: collections.defaultdict(lambda: asyncio.Semaphore(SLOTS))
    )

    def context(self, name: str | None) -> ssl.SSLContext:
        """Give the TLS context that shows the certificate of `name`, of nobody, or (`foreign`) of another CA."""
        if name not in self._contexts:
            made = ssl.create_default_context(cafile=self.folder / CA_CERTIFICATE)
            if name == "foreign":
                with tempfile.TemporaryDirectory() as other:
                    root = Path(other)
                    identities.ensure(root, root / "clients", ["foreign"])
                    made.load_cert_chain(
                        root / "clients" / client_certificate(name), root / "clients" / client_key(name)
                    )
            elif name is not None:
                made.load_cert_chain(self.folder / client_certificate(name), self.folder / client_key(name))
            self._contexts[name] = made
        return self._contexts[name]

    @contextlib.asynccontextmanager
    async def somebody(self, rng: random.Random, name: str | None = None) -> AsyncIterator[str]:
        """Borrow an identity, one that nobody holds if none is given, for one connection."""
        name = name or rng.choice(self.free)
        async with self._slots[name]:
            yield name

    @contextlib.asynccontextmanager
    async def alone(self, rng: random.Random) -> AsyncIterator[str]:
        """Borrow an identity that nobody holds, with nobody else beside."""
        while len(self.free) <= SLOTS:
            await asyncio.sleep(0.1)
        name = self.free.pop(rng.randrange(len(self.free)))
        try:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(SLOTS):
                    await stack.enter_async_context(self._slots[name])
                yield name
        finally:
            self.free.append(name)


class Wire:
    """One connection, with TLS or without, that speaks websockets as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(content)

    async def upgrade(self, rng: random.Random) -> None:
        """Turn the connection into a websocket."""
        key = base64.b64encode(rng.randbytes(16))
        self.send(
            b"GET / HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"X-Fed-Probes: 1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        await self.reader.readuntil(b"\r\n\r\n")

    def frame(
        self, payload: bytes, opcode: int = BINARY, *, fin: bool = True, masked: bool = True, bits: int = 0
    ) -> None:
        """Send one frame, well-formed or not."""
        length = len(payload)
        if length < 126:
            size = bytes([length])
        else:
            size = struct.pack("!BH", 126, length) if length < 2**16 else struct.pack("!BQ", 127, length)
        head = bytes([(0x80 if fin else 0) | bits | opcode, size[0] | (0x80 if masked else 0)]) + size[1:]
        # masked with zeros: the payload stays what it is
        self.send(head + (bytes(4) if masked else b"") + payload)

    async def receive(self) -> bytes:
        """Receive the payload of the next frame that holds data."""
        while True:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(length)
            if first & 0x0F == CLOSE:
                raise EOFError
            if first & 0x0F == PING:
                self.frame(payload, PONG)
            if first & 0x0F in (BINARY, TEXT):
                return payload

    async def join(self, name: str) -> None:
        """Join under a name."""
        for message in (Join(name, VERSION), Ping()):
            self.frame(message.serialize())
            await self.receive()

    async def closed(self) -> None:
        """Read until the server closes the connection."""
        while await self.reader.read(2**16):
            pass


@contextlib.asynccontextmanager
async def connected(target: Target, name: str | None = None, *, tls: bool = True) -> AsyncIterator[Wire]:
    """Connect, with the certificate of `name` where there is TLS; hang up at the end."""
    context = target.context(name) if tls else None
    pair = await asyncio.open_connection(
        target.host, target.port, ssl=context, server_hostname=target.host if tls else None
    )
    try:
        yield Wire(*pair)
    finally:
        pair[1].transport.abort()


@contextlib.asynccontextmanager
async def identified(target: Target, rng: random.Random) -> AsyncIterator[Wire]:
    """Connect with TLS under an identity that nobody holds."""
    async with target.somebody(rng) as name, connected(target, name) as wire:
        yield wire


@contextlib.asynccontextmanager
async def stranger(target: Target, rng: random.Random, name: str | None = None) -> AsyncIterator[tuple[Wire, str]]:
    """Open a websocket under an identity, which is told with it, without joining."""
    async with target.somebody(rng, name) as holder, connected(target, holder) as wire:
        await wire.upgrade(rng)
        yield wire, holder


@contextlib.asynccontextmanager
async def member(target: Target, rng: random.Random) -> AsyncIterator[Wire]:
    """Join under an identity that nobody holds at the moment."""
    async with target.alone(rng) as name, connected(target, name) as wire:
        await wire.upgrade(rng)
        await wire.join(name)
        yield wire


@contextlib.asynccontextmanager
async def asked(target: Target, rng: random.Random) -> AsyncIterator[Wire]:
    """Join under an identity that nobody holds at the moment, and collect what the server asks of a newcomer."""
    async with member(target, rng) as wire:
        wire.frame(Recv(30).serialize())
        await wire.receive()
        yield wire


Attack = Callable[[Target, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One kind of attack.

    Attributes:
        attack: opens one connection, or several, and does its worst.
        weight: how often it is chosen among those that are chosen at random; 0 is never.
        count: how many of it there are beside, for those that take long or cost an identity.
        refused: how often the server refuses each, by reason.
        connections: that it opens.
    """

    attack: Attack
    weight: int
    count: int
    refused: Mapping[str, int]
    connections: int = 1


KINDS: dict[str, Kind] = {}


def kind(
    *reasons: str, weight: int = 0, count: int = 0, refused: Mapping[str, int] | None = None, connections: int = 1
) -> Callable[[Attack], Attack]:
    """Enter an attack into the list."""

    def enter(attack: Attack) -> Attack:
        expected = refused or collections.Counter(reasons)
        KINDS[attack.__name__] = Kind(attack, weight, count, expected, connections)
        return attack

    return enter


# -- without TLS ------------------------------------------------------------------------------------------------------

NO_TLS = "no TLS handshake"


@kind(NO_TLS, weight=8)
async def garbage(target: Target, rng: random.Random) -> None:
    """Random bytes where a handshake is due."""
    async with connected(target, tls=False) as wire:
        wire.send(b"\x00" + rng.randbytes(rng.randint(64, 4096)))
        await wire.closed()


@kind(NO_TLS, weight=4)
async def hangs_up(target: Target, rng: random.Random) -> None:
    """The beginning of a handshake, or nothing at all, and gone."""
    async with connected(target, tls=False) as wire:
        wire.send(target.session[: rng.choice([0, 5, 100])])
        wire.writer.write_eof()
        await wire.closed()


@kind(NO_TLS, weight=4)
async def plain_http(target: Target, rng: random.Random) -> None:
    """HTTP, or a websocket, without TLS."""
    async with connected(target, tls=False) as wire:
        wire.send(b"%s / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n" % rng.choice([b"GET", b"POST", b"HEAD"]))
        await wire.closed()


@kind(NO_TLS, weight=6)
async def replayed_session(target: Target, rng: random.Random) -> None:
    """All that another connection has sent, whole or cut short, byte by byte."""
    async with connected(target, tls=False) as wire:
        cut = rng.choice([len(target.session), rng.randrange(1500, len(target.session))])
        wire.send(target.session[:cut])
        wire.writer.write_eof()
        await wire.closed()


@kind("no TLS handshake in time", count=40)
async def half_open(target: Target, rng: random.Random) -> None:
    """A connection that says nothing, or half of the first thing, and waits."""
    async with connected(target, tls=False) as wire:
        wire.send(target.session[: rng.choice([0, 7])])
        await wire.closed()


# -- TLS that is not accepted -----------------------------------------------------------------------------------------


async def _not_accepted(target: Target, name: str | None) -> None:
    with contextlib.suppress(ssl.SSLError):
        async with connected(target, name) as wire:
            await wire.closed()


@kind("peer did not return a certificate", weight=4)
async def no_certificate(target: Target, rng: random.Random) -> None:
    """A handshake without a certificate."""
    del rng
    await _not_accepted(target, None)


@kind("its certificate is not accepted (unable to get local issuer certificate)", weight=4)
async def foreign_certificate(target: Target, rng: random.Random) -> None:
    """A handshake with a certificate of another CA."""
    del rng
    await _not_accepted(target, "foreign")


# -- TLS with an identity, and no websocket ---------------------------------------------------------------------------

NO_WEBSOCKET = "no websocket handshake"


@kind(NO_WEBSOCKET, weight=4)
async def rubbish_in_tls(target: Target, rng: random.Random) -> None:
    """Random bytes, or a request that is none, where a websocket's is due."""
    openings = [rng.randbytes(1000) + b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500]
    async with identified(target, rng) as wire:
        wire.send(rng.choice(openings))
        await wire.closed()


@kind(NO_WEBSOCKET, weight=2)
async def undecodable_key(target: Target, rng: random.Random) -> None:
    """A websocket's request with bytes in it that are no text."""
    async with identified(target, rng) as wire:
        wire.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: \xff\xfe\r\n\r\n"
        )
        await wire.closed()


@kind(NO_WEBSOCKET, weight=3)
async def half_a_request(target: Target, rng: random.Random) -> None:
    """The beginning of a request, and gone."""
    async with identified(target, rng) as wire:
        wire.send(b"GET / HTT")
        wire.writer.close()
        await wire.closed()


@kind("a websocket handshake that is too long", weight=2)
async def long_headers(target: Target, rng: random.Random) -> None:
    """A request with a megabyte of headers."""
    async with identified(target, rng) as wire:
        wire.send(b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 8000 + b"\r\n") * 120)
        await wire.closed()


@kind("no websocket handshake in time", count=20)
async def slow_request(target: Target, rng: random.Random) -> None:
    """A request that comes a byte a second."""
    async with identified(target, rng) as wire:

        async def trickle() -> None:
            for byte in b"GET / HTTP/1.1\r\n" * 4:
                wire.send(bytes([byte]))
                await asyncio.sleep(1)

        dripping = asyncio.create_task(trickle())
        await wire.closed()
        dripping.cancel()


# -- websockets of those who have not joined --------------------------------------------------------------------------


@kind("no request to join within 10 s", count=20)
async def mute(target: Target, rng: random.Random) -> None:
    """A websocket on which nothing is said."""
    async with stranger(target, rng) as (wire, _):
        await wire.closed()


@kind("no request to join", weight=3)
async def comes_and_goes(target: Target, rng: random.Random) -> None:
    """A websocket that is closed at once."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(struct.pack("!H", 1000), CLOSE)
        await wire.closed()


@kind("a frame that is too large", weight=5)
async def oversize(target: Target, rng: random.Random) -> None:
    """A frame of more bytes than a stranger may send, or one that promises them."""
    async with stranger(target, rng) as (wire, _):
        if rng.random() < 0.5:
            wire.frame(bytes(rng.randint(2**14 + 1, 2**17)))
        else:
            wire.send(b"\x82\xff" + struct.pack("!Q", 2**62) + bytes(4))
        await wire.closed()


@kind("a malformed frame", weight=5)
async def malformed(target: Target, rng: random.Random) -> None:
    """A frame without a mask, with reserved bits or an opcode that is none, or the midst of a message."""
    async with stranger(target, rng) as (wire, _):
        spoil = rng.randrange(4)
        if spoil == 0:
            wire.frame(b"x", masked=False)
        elif spoil == 1:
            wire.frame(b"x", bits=rng.choice([0x10, 0x20, 0x40]))
        elif spoil == 2:
            wire.frame(b"x", rng.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]))
        else:
            wire.frame(b"x", CONTINUATION)
        await wire.closed()


@kind("a malformed frame", weight=1)
async def endless_fragments(target: Target, rng: random.Random) -> None:
    """A message in more and more frames that hold nothing."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(b"", fin=False)
        for _ in range(2000):
            wire.frame(b"", CONTINUATION, fin=False)
        await wire.closed()


@kind("a text where a binary message was due", weight=3)
async def text(target: Target, rng: random.Random) -> None:
    """A text."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(b"good morning", TEXT)
        await wire.closed()


@kind("a text that is none", weight=2)
async def undecodable_text(target: Target, rng: random.Random) -> None:
    """A text that is not UTF-8."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(b"\xff\xfe\xfd", TEXT)
        await wire.closed()


@kind("a message that is none of declearn's", weight=6)
async def random_message(target: Target, rng: random.Random) -> None:
    """A message of random bytes, or one that names a type to build."""
    contents = [
        rng.randbytes(rng.randint(0, 2000)),
        b"\x82\xa6action\xa4send\xa7content\x82\xa8__type__\xabTorchVector\xa4dump\x80",
        b"\x91" * 2000,
    ]
    async with stranger(target, rng) as (wire, _):
        wire.frame(rng.choice(contents))
        await wire.closed()


@kind("a message in chunks before joining", weight=4)
async def early_chunks(target: Target, rng: random.Random) -> None:
    """A message in chunks from somebody who has not joined."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(b"STREAM_START")
        wire.frame(rng.randbytes(100))
        await wire.closed()


@kind("a message before joining", weight=4)
async def early_message(target: Target, rng: random.Random) -> None:
    """What a member would send, from somebody who has not joined."""
    async with stranger(target, rng) as (wire, _):
        wire.frame(rng.choice([Send(b"\x0btrain_reply\x80"), Recv(), Ping()]).serialize())
        await wire.closed()


@kind("it asked to join under another name", weight=6)
async def other_name(target: Target, rng: random.Random) -> None:
    """A request to join under the name of another, live or not."""
    async with stranger(target, rng) as (wire, name):
        other = rng.choice([target.live, "admin", "x" * 64, *(free for free in target.free if free != name)])
        wire.frame(Join(other, VERSION).serialize())
        await wire.closed()


@kind("another client is connected under its name", weight=1)
async def live_name(target: Target, rng: random.Random) -> None:
    """A request to join with the certificate of a client that is connected."""
    async with stranger(target, rng, target.live) as (wire, _):
        wire.frame(Join(target.live, VERSION).serialize())
        await wire.closed()


@kind("it can't join", weight=2)
async def other_version(target: Target, rng: random.Random) -> None:
    """A request to join from a client of another declearn."""
    async with stranger(target, rng) as (wire, name):
        wire.frame(Join(name, "0.1").serialize())
        await wire.closed()


# -- one who has joined -----------------------------------------------------------------------------------------------

REFUSED_MESSAGES = 20


@kind("a message in chunks that nobody asked for", count=10)
async def unasked_chunks(target: Target, rng: random.Random) -> None:
    """A member's message of chunks, before it was asked anything."""
    async with member(target, rng) as wire:
        wire.frame(b"STREAM_START")
        wire.frame(bytes(2**20 - 16))
        await wire.closed()


@kind("a message of more than … bytes", count=10)
async def endless_message(target: Target, rng: random.Random) -> None:
    """A member's answer of chunks that do not end."""
    async with asked(target, rng) as wire:
        wire.frame(b"STREAM_START")
        for _ in range(300):
            wire.frame(bytes(2**20 - 16))
            await wire.writer.drain()
        await wire.closed()


@kind("an empty chunk", count=10)
async def empty_chunk(target: Target, rng: random.Random) -> None:
    """A member's message with a chunk that holds nothing."""
    async with asked(target, rng) as wire:
        wire.frame(b"STREAM_START")
        wire.frame(b"")
        await wire.closed()


@kind("a message that comes too slowly", count=2)
async def slow_chunks(target: Target, rng: random.Random) -> None:
    """A member's message that begins and does not go on."""
    async with asked(target, rng) as wire:
        wire.frame(b"STREAM_START")
        wire.frame(b"x" * 1000)
        while True:
            await wire.receive()  # it answers pings


@kind(count=10)
async def truncated_chunks(target: Target, rng: random.Random) -> None:
    """A member's message that breaks off: its connection is lost."""
    async with asked(target, rng) as wire:
        wire.frame(b"STREAM_START")
        wire.frame(rng.randbytes(10_000))
        await wire.writer.drain()


@kind(refused={"a message that is none of declearn's": REFUSED_MESSAGES}, count=10)
async def babbling(target: Target, rng: random.Random) -> None:
    """A member that sends message after message that is none."""
    async with member(target, rng) as wire:
        for _ in range(REFUSED_MESSAGES):
            wire.frame(rng.randbytes(50))
            await wire.receive()


@kind("a message that nobody asked for", count=20)
async def useless_answers(target: Target, rng: random.Random) -> None:
    """A member that answers what it was not asked, and what it is asked with nested rubbish."""
    rubbish = rng.choice(
        [b"", b"\x0btrain_reply" + b"\x91" * 5000, b"\x0binit_reply" + b"\x80" * 5000, rng.randbytes(500)]
    )
    async with member(target, rng) as wire:
        wire.frame(Send(rubbish).serialize())
        await wire.receive()
        wire.frame(Recv(5).serialize())
        wire.frame(Send(rubbish).serialize())
        for _ in range(2):
            await wire.receive()


@kind(count=10)
async def pings(target: Target, rng: random.Random) -> None:
    """A member that sends nothing but pings, and reads no answer."""
    async with member(target, rng) as wire:
        for number in range(5000):
            wire.frame(b"%d/9" % (number % 20), PING)
        await wire.writer.drain()


@kind(refused={"too many connections under one certificate": 2, "no request to join": 4}, count=10, connections=6)
async def one_identity(target: Target, rng: random.Random) -> None:
    """More connections under one certificate than a client ever has."""
    async with target.alone(rng) as name, contextlib.AsyncExitStack() as stack:
        wires = []
        for _ in range(6):
            wires.append(await stack.enter_async_context(connected(target, name)))
            await wires[-1].upgrade(rng)
        for wire in wires:
            wire.frame(struct.pack("!H", 1000), CLOSE)
            await wire.closed()


# -- all of them ------------------------------------------------------------------------------------------------------

FLOOD = "flood"
"""Half-open connections, more at a time than there is room for at the server's door."""

AT_ONCE_SLOW = 24
"""Attacks that take long, or an identity of their own, at a time."""

FLOOD_AT_ONCE = 400
"""How many; the server has room for 256."""


async def record(target: Target, rng: random.Random) -> bytes:
    """Join under an identity, and give all bytes that were sent for it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = target.context(rng.choice(target.free)).wrap_bio(incoming, outgoing, server_hostname=target.host)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    sent = bytearray()
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sent += (chunk := outgoing.read())
            writer.write(chunk)
            incoming.write(await reader.read(2**16))
    tls.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(1000))
    sent += (chunk := outgoing.read())
    writer.write(chunk)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        while await reader.read(2**16):
            pass
    writer.transport.abort()
    return bytes(sent)


async def attack(target: Target, count: int, seed: int, at_once: int) -> dict[str, object]:
    """Open `count` connections of all kinds, in an order drawn by `seed`; tells what they should have come to."""
    rng = random.Random(seed)  # noqa: S311 - chance, not a secret
    began = time.monotonic()
    target.session = await record(target, rng)
    names = [name for name, each in KINDS.items() for _ in range(each.count)]
    opened = 1 + sum(KINDS[name].connections for name in names)
    flood = max(0, (count - opened) // 4)
    chosen = [name for name, each in KINDS.items() for _ in range(each.weight)]
    names += rng.choices(chosen, k=max(0, count - opened - flood))
    rng.shuffle(names)
    errors: collections.Counter[str] = collections.Counter()
    gates = {False: asyncio.Semaphore(at_once), True: asyncio.Semaphore(AT_ONCE_SLOW)}

    async def one(name: str, number: int) -> None:
        # those that wait are let wait beside the others, not in their place
        async with gates[bool(KINDS[name].count)]:
            try:
                async with asyncio.timeout(PATIENCE):
                    await KINDS[name].attack(target, random.Random(f"{seed} {number}"))  # noqa: S311 - likewise
            except TimeoutError:
                errors[name] += 1
            except (OSError, EOFError):
                pass  # the server has closed the connection, which is what it should do

    await asyncio.gather(*(one(name, number) for number, name in enumerate(names)))
    quiet = time.monotonic()
    errors[FLOOD] = await _flood(target, flood)
    refused: collections.Counter[str] = collections.Counter({NO_WEBSOCKET: 1})  # the recorded one
    for name in names:
        refused.update(KINDS[name].refused)
    return {
        "connections": 1 + flood + sum(KINDS[name].connections for name in names),
        "kinds": {**collections.Counter(names), FLOOD: flood},
        "refused": refused,
        "not_closed": +errors,
        "seconds": round(quiet - began, 1),
        "flood_seconds": round(time.monotonic() - quiet, 1),
    }


async def _flood(target: Target, count: int) -> int:
    """Open connections that say nothing, as many at a time as there is room for, and more; tells how many hung."""
    gate = asyncio.Semaphore(FLOOD_AT_ONCE)
    hung = 0

    async def one() -> None:
        nonlocal hung
        async with gate:
            try:
                async with asyncio.timeout(PATIENCE), connected(target, tls=False) as wire:
                    await wire.closed()
            except TimeoutError:
                hung += 1
            except (OSError, EOFError):
                pass

    await asyncio.gather(*(one() for _ in range(count)))
    return hung


def main(argv: list[str] | None = None) -> int:
    """Attack a server, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--identities", type=Path, required=True)
    parser.add_argument("--live", required=True)
    parser.add_argument("--free", type=lambda names: names.split(","), required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=96)
    options = parser.parse_args(argv)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a server that has closed
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 10_000), most))
    target = Target(options.host, options.port, options.identities, options.live, options.free)
    print(json.dumps(asyncio.run(attack(target, options.count, options.seed, options.at_once))))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
