"""What open status pages cost: processor time of the server with many readers, beside that with none.

The state changes each second, as while clients train. A reader is a browser's event source without the browser.

python -m benchmarks.page [--readers 20] [--clients 10] [--rounds 50] [--seconds 20] [--pairs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Serve the page with and without readers in turn, and print the share of one processor that they add."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    ends, end = context.Pipe()
    server = context.Process(target=_serve, args=(options.clients, options.rounds, end), daemon=True)
    server.start()
    port = ends.recv()
    added = []
    for pair in range(options.pairs):
        shares = []
        for readers in (0, options.readers):
            stop, stopped = context.Pipe()
            reading = context.Process(target=_read, args=(port, readers, stopped), daemon=True)
            reading.start()
            stop.recv()
            ends.send(options.seconds)
            shares.append(ends.recv())
            reading.kill()
            reading.join()
        added.append(100 * (shares[1] - shares[0]))
        print(
            f"pair {pair + 1}: {100 * shares[0]:.2f} % without, {100 * shares[1]:.2f} % with {options.readers} readers"
        )
    ends.send(None)
    server.join(30)
    print(f"{options.readers} readers add {statistics.median(added):.2f} % of a processor (median of {options.pairs})")
    return 0


def _serve(clients: int, rounds: int, end: Connection) -> None:
    from services.server.status import StatusServer

    began = time.monotonic()

    async def serve() -> None:
        page = StatusServer("localhost", 0, lambda: _state(clients, rounds, time.monotonic() - began))
        page.start()
        end.send(page._socket.getsockname()[1])
        loop = asyncio.get_running_loop()
        while (seconds := await loop.run_in_executor(None, end.recv)) is not None:
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            end.send((time.process_time() - cpu) / (time.monotonic() - wall))
        await page.close()

    asyncio.run(serve())


def _state(clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Make up a state of a run in which every client trains; a round ends every five seconds."""
    from services.tables import HISTORY_COLUMNS

    done = rounds + int(seconds / 5)
    client = {
        "state": "training", "reason": "", "steps": 500, "seen_s": 0.3, "seat": 0, "train": 4800, "valid": 1200,
        "labels": [480] * 10, "round": done, "train_s": 4.2, "eval_s": 0.5, "loss": 0.05, "accuracy": 0.98,
        "epsilon": None, "bytes_sent": 425_000 * done, "bytes_received": 425_000 * done,
    }  # fmt: skip
    numbers = range(1, done + 1)
    history = {name: [n if name == "round" else 0.9 + 0.05 / n for n in numbers] for name in HISTORY_COLUMNS}
    return {
        "run_id": "20261124-064015", "phase": "training", "reason": "", "healthy": True, "round": done,
        "rounds_planned": 2 * done, "seconds": round(seconds, 1), "seconds_left": 100.0, "test_accuracy": 0.98,
        "clients_wanted": clients,
        "clients": {f"client_{n}": client | {"step": int(100 * seconds) % 500} for n in range(clients)},
        "gone": {},
        "history": history,
        "events": [["2026-11-24T06:40:21.000+00:00", n, "joined", f"client_{n}", ""] for n in range(100)],
        "refusals": {}, "privacy": None, "dataset": {"name": "mnist", "scheme": "iid", "classes": list("0123456789")},
        "drawable": False, "experiment": {"rounds": 2 * done},
    }  # fmt: skip


def _read(port: int, readers: int, ready: Connection) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while await reader.read(2**16):
            pass

    async def everybody() -> None:
        tasks = [asyncio.create_task(one()) for _ in range(readers)]
        await asyncio.sleep(2)
        ready.send("begun")
        await asyncio.gather(*tasks) if tasks else await asyncio.Event().wait()

    asyncio.run(everybody())


if __name__ == "__main__":
    sys.exit(main())
