"""What waiting costs: processor time of a server on which clients wait for a message that does not come.

python -m benchmarks.idle [--clients 30] [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Let clients wait, and print the share of one processor that the server took meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), options.clients)
        ends, end = context.Pipe()
        arguments = (folder, options.clients, options.seconds, end)
        server = context.Process(target=_serve, args=arguments, daemon=True)
        server.start()
        clients = context.Process(target=_wait, args=(folder, options.clients, ends.recv()), daemon=True)
        clients.start()
        cpu, wall = ends.recv()
        clients.kill()
        server.join(30)
    print(f"{options.clients} clients waited for {wall:.0f} s: {cpu:.3f} s of processor time, {100 * cpu / wall:.2f} %")
    return 0


def _prepare(folder: Path, count: int) -> None:
    from services.init import identities

    identities.ensure(folder, folder / "clients", identities.client_names(count))


def _serve(folder: str, count: int, seconds: float, end: Connection) -> None:
    from services.transport import tls
    from services.transport.server import ServerEndpoint

    root = Path(folder)

    async def serve() -> None:
        context = tls.server_context(root / "server-cert.pem", root / "server-pkey.pem", root / "ca-cert.pem")
        async with ServerEndpoint("localhost", 0, context) as endpoint:
            end.send(endpoint.port)
            await endpoint.handler.until_clients(lambda joined: joined == count, 60)
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            end.send((time.process_time() - cpu, time.monotonic() - wall))

    asyncio.run(serve())


def _wait(folder: str, count: int, port: int) -> None:
    from services.transport import tls
    from services.transport.client import ClientEndpoint

    clients = Path(folder) / "clients"

    async def one(name: str) -> None:
        context = tls.client_context(
            clients / "ca-cert.pem", clients / f"{name}-cert.pem", clients / f"{name}-pkey.pem"
        )
        endpoint = ClientEndpoint(f"wss://localhost:{port}", name, lambda: context, dealable=True, timeout=60)
        await endpoint.start()
        await endpoint.recv_message()

    async def everybody() -> None:
        await asyncio.gather(*(one(f"client_{number}") for number in range(count)))

    asyncio.run(everybody())


if __name__ == "__main__":
    sys.exit(main())
