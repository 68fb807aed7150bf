"""One server and a thousand clients that speak its protocol and compute nothing: what a round costs the server.

The clients are ours on the wire: mutual TLS, a certificate each, the messages of a site with its own data. What they
answer was recorded from a real client in a first round and is sent again, a few bits of it changed for each client and
round, since the server refuses copies. They import no TensorFlow, and share one process; the server has its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import statistics
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import coordination
from benchmarks.harness import OURS, Benchmark, Figure, Form, Side, Target

CLIENTS, ROUNDS = 1000, 20

KEYS = {"round": "p50_s", "slowest": "p99_s", "processor": "cpu_s", "memory": "rss_mb", "peak": "peak_mb"}
"""Of each figure, what it is called in what `measure` gives."""

SAMPLES = 0.2
"""Seconds between two looks at the server's memory."""


def side(form: Form) -> dict[str, list[float]]:
    """Run it, and give the figures of the page; a short form has fewer clients."""
    found = measure(*((100, 5) if form == "short" else (CLIENTS, ROUNDS)))
    return {name: [found[key]] for name, key in KEYS.items()}


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Run one federation of `count` light clients, and tell what its server took.

    Returns:
        seconds to the last join (`join_s`), of a round (`p50_s`, `p99_s`, without the first), of processor time a
        round (`cpu_s`); megabytes of the server's memory: when it listened (`before_mb`), in the median (`rss_mb`) and
        at most (`peak_mb`) while rounds went on.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        coordination.prepare(Path(folder), 1)
        recorded = _record(context, folder)
        _issue(Path(folder), count)
        ends, end = context.Pipe()
        server = context.Process(target=_serve, args=(folder, count, rounds, end), daemon=True)
        server.start()
        port = ends.recv()
        clients = context.Process(target=_host, args=(folder, count, port, recorded), daemon=True)
        clients.start()
        found: dict[str, Any] = ends.recv()
        for process in (server, clients):
            process.join(60)
            if process.is_alive():
                process.kill()
    return found


def _issue(folder: Path, count: int) -> None:
    from services.init import identities

    identities.ensure(folder, folder / "clients", identities.client_names(count))


def _record(context: Any, folder: str) -> dict[str, bytes]:
    """Run one round with a real client, and give what it answered, by the kind of message."""
    ends, end = context.Pipe()
    server = context.Process(target=coordination.serve_ours, args=(folder, 1, 1, 0.0, end), daemon=True)
    server.start()
    port = ends.recv()
    told, teller = context.Pipe()
    client = context.Process(target=_host_recorder, args=(folder, port, teller), daemon=True)
    client.start()
    recorded: dict[str, bytes] = told.recv()
    ends.recv()
    for process in (server, client):
        process.join(60)
    return recorded


def _host_recorder(folder: str, port: int, end: Connection) -> None:
    from services.transport.client import ClientEndpoint

    recorded: dict[str, bytes] = {}
    send = ClientEndpoint.send_message

    async def recording(self: ClientEndpoint, message: Any) -> None:
        recorded[type(message).typekey] = message.serialize()
        await send(self, message)

    ClientEndpoint.send_message = recording  # type: ignore[method-assign]
    coordination.host_ours(folder, 1, port)
    end.send(recorded)


# -- the server -------------------------------------------------------------------------------------------------------


class _Memory(threading.Thread):
    """Looks at this process's memory again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []

    def run(self) -> None:
        while True:
            self.seen.append(resident())
            time.sleep(SAMPLES)


def resident() -> float:
    """Tell the megabytes of memory that this process holds."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize() / 1e6


def _serve(folder: str, count: int, rounds: int, end: Connection) -> None:
    from services.server.main import Run
    from services.server.results import RunFolder
    from services.transport import tls
    from services.transport.server import ServerEndpoint

    options = coordination.options_of(Path(folder), count)

    async def serve() -> None:
        endpoint = ServerEndpoint("localhost", 0, tls.server_context(options.certificate, options.key, options.ca))
        run = Run(_plan(rounds), options, coordination.manifest(), endpoint, RunFolder.create(options.results))
        task = asyncio.create_task(run.serve())
        while endpoint.port == 0:
            await asyncio.sleep(0.01)
        before, began = resident(), time.monotonic()
        end.send(endpoint.port)
        while len(endpoint.client_names) < count and not task.done():
            await asyncio.sleep(0.05)
        joined = time.monotonic() - began
        memory = _Memory()
        processor = 0.0
        while not run.folder.rounds and not task.done():
            await asyncio.sleep(0.05)
        memory.start()
        processor = time.process_time()
        await task
        spent = time.process_time() - processor
        seconds = sorted(row.seconds for row in run.folder.rounds[1:])
        end.send(
            {
                "clients": count,
                "rounds": len(run.folder.rounds),
                "trained": min(row.clients for row in run.folder.rounds),
                "join_s": joined,
                "p50_s": statistics.median(seconds),
                "p99_s": seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))],
                "cpu_s": spent / len(seconds),
                "before_mb": before,
                "rss_mb": statistics.median(memory.seen),
                "peak_mb": max(memory.seen),
            }
        )

    asyncio.run(serve())


def _plan(rounds: int) -> Any:
    plan = coordination.plan_of(rounds)
    limits = plan.federation.model_copy(update={"join_timeout": 600, "round_timeout": 600})
    return plan.model_copy(update={"federation": limits})


# -- the clients ------------------------------------------------------------------------------------------------------


class _Said:
    """What was recorded, as a message that is ready to be sent."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


def _host(folder: str, count: int, port: int, recorded: dict[str, bytes]) -> None:
    from declearn import messaging

    from services.errors import FedError
    from services.transport import tls
    from services.transport.client import ClientEndpoint

    root = Path(folder)
    clients = root / "clients"
    answers: dict[Any, str] = {
        messaging.MetadataQuery: messaging.MetadataReply.typekey,
        messaging.InitRequest: messaging.InitReply.typekey,
        messaging.TrainRequest: messaging.TrainReply.typekey,
        messaging.EvaluationRequest: messaging.EvaluationReply.typekey,
    }
    place = _array(recorded[messaging.TrainReply.typekey])

    async def one(number: int, gate: asyncio.Semaphore) -> None:
        name = f"client_{number}"
        context = tls.client_context(
            clients / "ca-cert.pem", clients / f"{name}-cert.pem", clients / f"{name}-pkey.pem"
        )
        endpoint = ClientEndpoint(f"wss://localhost:{port}", name, lambda: context, dealable=False, timeout=600)
        endpoint.largest = 2**26
        async with gate:
            await endpoint.start()
        done = 0
        try:
            while True:
                received = await endpoint.recv_message()
                kind = answers.get(received.message_cls)
                if kind is None:
                    return
                content = recorded[kind]
                if kind == messaging.TrainReply.typekey:
                    done += 1
                    content = _varied(content, place, number, done)
                await endpoint.send_message(_Said(content))  # type: ignore[arg-type]
        except FedError:
            return
        finally:
            await endpoint.stop()

    async def everybody() -> None:
        gate = asyncio.Semaphore(50)
        await asyncio.gather(*(one(number, gate) for number in range(count)))

    asyncio.run(everybody())


def _array(reply: bytes) -> int:
    """Find where the numbers of the largest array of a recorded reply begin: the longest string of bytes in it."""
    best, length, at = 0, 0, 0
    while (at := reply.find(b"\xc6", at)) >= 0:  # MessagePack's bin 32
        size = int.from_bytes(reply[at + 1 : at + 5], "big")
        if length < size <= len(reply) - at - 5:
            best, length = at + 5, size
        at += 1
    if not length:
        raise ValueError("no array in a recorded reply")
    return best


def _varied(reply: bytes, place: int, number: int, done: int) -> bytes:
    """Change the lowest bits of two float32 values, so that no two replies are the same."""
    varied = bytearray(reply)
    for offset, value in ((0, number), (4, done)):
        varied[place + offset : place + offset + 2] = int(value % 65536).to_bytes(2, "little")
    return bytes(varied)


BENCHMARKS = (
    Benchmark(
        "scale-up",
        "1,000 clients that speak the protocol over mutual TLS and compute nothing, with the default model, 20 rounds.",
        (
            Figure("round", "median wall of a round, training and evaluation", target=Target(5)),
            Figure("slowest", "99th percentile of the same"),
            Figure("processor", "of the server's processor time, a round"),
            Figure(
                "memory", "resident memory of the server, in the median over the rounds", "MB", Target(1000), places=0
            ),
            Figure("peak", "the most of it", "MB", places=0),
        ),
        Side(OURS, "our server; clients of ours on the wire, in one process", side),
        minutes=15,
    ),
)
