"""declearn's own MNIST example, whole: its unmodified `run_demo.py`, and the same recipe as ours runs it.

Same images, shards, model, optimizer, batch, rounds and number of clients. The wall is from the first process to the
last one's end: data dealt, identities issued, imports, rounds and results. Here both are processes on this machine;
`benchmark` takes other ways to run them, as in containers.
"""

from __future__ import annotations

import csv
import shutil
import socket
import sys

from benchmarks import processes
from benchmarks.harness import OURS, REPOSITORY, Benchmark, BenchmarkError, Figure, Form, Measure, Side, Target

CLIENTS, ROUNDS, SEED = 3, 5, 0
"""As declearn's scripts have them, but for the seed, which is given to both; the short form is no shorter."""

PLAN = REPOSITORY / "experiments" / "declearn-example.yml"

PORT = 8765
"""Where declearn's run_demo.py has its server; it takes no other."""

WALL = "wall"


def benchmark(suffix: str, how: str, ours: Measure, stock: Measure) -> Benchmark:
    """Describe the benchmark.

    Args:
        suffix: of its name: what both run as.
        how: the same in words.
        ours: runs ours.
        stock: runs declearn's example.
    """
    return Benchmark(
        f"example-{suffix}",
        f"The recipe of declearn's MNIST example, {CLIENTS} clients, {ROUNDS} rounds, from nothing to results, {how}.",
        (Figure(WALL, "from the first process to results", target=Target(0.85, "declearn"), places=1),),
        Side(OURS, "`fed demo` with experiments/declearn-example.yml", ours),
        (Side("declearn", "its own `run_demo.py`, unmodified, as its source distribution has it", stock),),
        minutes=13,
    )


def measure_ours(_: Form) -> dict[str, list[float]]:
    """Run `fed demo`.

    Raises:
        BenchmarkError: it did not come to its last round.
    """
    run = processes.demo(PLAN, "--seed", str(SEED), clients=CLIENTS)
    if run.summary["status"] != "completed" or run.summary["rounds"] != ROUNDS:
        raise BenchmarkError(f"fed demo is {run.summary['status']} after {run.summary['rounds']} rounds")
    return {WALL: [run.wall]}


def measure_stock(_: Form) -> dict[str, list[float]]:
    """Run declearn's example in a copy, since it writes beside its scripts.

    Raises:
        BenchmarkError: it can't be had, its port is taken, or it did not come to its last round.
    """
    from tests import upstream

    try:
        example = upstream.example()
    except upstream.UpstreamError as exc:
        raise BenchmarkError(str(exc)) from None
    try:
        socket.create_server(("localhost", PORT)).close()
    except OSError:
        raise BenchmarkError(f"port {PORT} is taken, and declearn's run_demo.py knows no other") from None
    with processes.workplace() as folder:
        shutil.copytree(example, folder, dirs_exist_ok=True)  # its data are expected beside it
        words = ["--nb_clients", str(CLIENTS), "--scheme", "iid", "--seed", str(SEED)]
        wall = processes.timed(
            folder, sys.executable, str(folder / "run_demo.py"), *words, environment=processes.surroundings()
        )
        results = list(folder.glob("result_*/server/metrics.csv"))
        rounds = 0
        for path in results:
            with path.open(newline="", encoding="utf-8") as file:
                rounds += len(list(csv.DictReader(file)))
    if rounds != ROUNDS:
        raise BenchmarkError(f"run_demo.py has figures of {rounds} rounds")
    return {WALL: [wall]}


BENCHMARKS = (benchmark("processes", "as processes on this machine", measure_ours, measure_stock),)
