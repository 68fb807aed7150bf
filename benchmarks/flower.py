"""A round of one local step, ours beside Flower's: a SuperLink and SuperNodes over TLS, as its documentation has it.

Same model, images, optimizer and batch, training and evaluation in each round, as in `benchmarks.coordination`. What is
timed is the server's, from one training request to the next, and the first round does not count. Flower starts a
process for each message that a SuperNode gets, which imports TensorFlow anew: that is what its rounds are made of. It
has an environment of its own, which `script/bench` makes, since it wants other versions than ours of what both use.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import coordination, processes
from benchmarks.coordination import ROUND
from benchmarks.harness import FLOWER, OURS, Benchmark, BenchmarkError, Figure, Form, Side

CLIENTS = 3

APP = Path(__file__).parent / "flower_app"

ROUNDS: dict[Form, int] = {"full": 5, "short": 2}
"""Of Flower; ours has those of `benchmarks.coordination`."""

PATIENCE = 120.0
"""Seconds until a program of Flower's listens, or has ended."""

LONGEST = 300.0
"""Seconds that a round of Flower's may take."""

CONNECTION = """[superlink]
default = "bench"

[superlink.bench]
address = "localhost:{port}"
root-certificates = "{folder}/ca-cert.pem"
"""
"""How `flwr run` finds the SuperLink."""


def measure(form: Form) -> dict[str, list[float]]:
    """Run one federation of Flower's and give the seconds of each round but the first.

    Raises:
        BenchmarkError: there is no Flower, or it did not come to its last round.
    """
    if not (FLOWER / "bin" / "flwr").exists():
        raise BenchmarkError("Flower is missing; `script/bench flower` installs it")
    with tempfile.TemporaryDirectory(prefix="fed-bench-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        coordination.prepare(folder, CLIENTS)
        _write_model(folder / "model.json", ROUNDS[form])
        shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        with contextlib.ExitStack() as stack:
            port = _superlink(stack, folder)
            for number in range(CLIENTS):
                _supernode(stack, folder, f"client_{number}", port)
            times = _run(folder, ROUNDS[form])
    seconds = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {ROUND: seconds[1:]}


def _write_model(path: Path, rounds: int) -> None:
    from services.server.model import build_model

    path.write_text(build_model(coordination.plan_of(rounds)).get_wrapped_model().to_json(), encoding="utf-8")


def _superlink(stack: contextlib.ExitStack, folder: Path) -> int:
    port = _free_port()
    (folder / "config.toml").write_text(CONNECTION.format(port=port, folder=folder), encoding="utf-8")
    words = ["--host", "localhost", "--port", str(port), "--disable-runtime-dependency-installation"]
    stack.enter_context(_started(folder, "flower-superlink", *words, *_identity(folder)))
    _until(lambda: _listens(folder, port), PATIENCE, "the SuperLink does not listen")
    return port


def _supernode(stack: contextlib.ExitStack, folder: Path, site: str, superlink: int) -> None:
    port = _free_port()
    words = ["--superlink", f"localhost:{superlink}", "--root-certificates", str(folder / "ca-cert.pem")]
    words += ["--host", "localhost", "--port", str(port), "--node-config", f'site="{site}"']
    stack.enter_context(_started(folder, "flower-supernode", *words, *_identity(folder)))


def _run(folder: Path, rounds: int) -> list[float]:
    """Let the app run, and give the times that it noted."""
    settings = f'rounds={rounds} clients={CLIENTS} folder="{folder}"'
    with _started(folder, "flwr", "run", str(folder / "app"), "bench", "--run-config", settings) as run:
        if code := run.wait(PATIENCE):
            raise BenchmarkError(f"flwr run ended with code {code}")
    _until((folder / "times.json").exists, rounds * LONGEST, f"Flower did not come to round {rounds}")
    times: list[float] = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    if len(times) != rounds + 1:
        raise BenchmarkError(f"Flower noted {len(times)} times of {rounds} rounds")
    return times


def _identity(folder: Path) -> list[str]:
    names = {"--ssl-certfile": "server-cert", "--ssl-keyfile": "server-pkey", "--ssl-ca-certfile": "ca-cert"}
    return [word for flag, name in names.items() for word in (flag, str(folder / f"{name}.pem"))]


@contextlib.contextmanager
def _started(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program of Flower's, and end it and all that it started with the block."""
    path = f"{FLOWER / 'bin'}:{processes.surroundings()['PATH']}"
    environment = processes.surroundings(FLWR_HOME=str(folder), FLWR_TELEMETRY_ENABLED="0", PATH=path)
    del environment["PYTHONPATH"]
    program = str(FLOWER / "bin" / name)
    process = subprocess.Popen([program, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603
    try:
        yield process
    finally:
        below = processes.descendants(process.pid)
        process.terminate()
        try:
            process.wait(PATIENCE / 4)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for each in below:  # some are in sessions of their own, and outlive what started them
            processes.end(each, signal.SIGKILL)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(folder: Path, port: int) -> bool:
    context = ssl.create_default_context(cafile=str(folder / "ca-cert.pem"))
    try:
        with (
            socket.create_connection(("localhost", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            return True
    except OSError:
        return False


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait for a condition.

    Raises:
        BenchmarkError: it does not come true in time.
    """
    latest = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > latest:
            raise BenchmarkError(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.2)


BENCHMARKS = (
    Benchmark(
        "flower",
        f"A whole round of {CLIENTS} clients that make one local step each, as in `coordination-{CLIENTS}`, beside "
        "Flower's, which starts a process for each message.",
        (Figure(ROUND, "wall from one training request to the next, evaluation included", places=3),),
        Side(
            OURS,
            "our server and clients",
            functools.partial(coordination.measure, CLIENTS, coordination.serve_ours, coordination.host_ours, 0.0),
        ),
        (Side("flower", "a SuperLink and SuperNodes over TLS, with FedAvg and Keras", measure),),
        minutes=15,
    ),
)
