"""What a round costs beside training: one local step, ours and declearn's own server and clients in turn.

Each side runs one server process and one process that hosts all its clients, over TLS on loopback, with the same model,
optimizer, images, batch and number of rounds. What is timed is the server's: from one training request to the next,
evaluation included. The first round, in which graphs are traced, does not count.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import OURS, Benchmark, BenchmarkError, Figure, Form, Side, Target

IMAGES = 32
"""Training images, and as many for validation, that each client holds: one batch."""

ROUNDS: dict[Form, int] = {"full": 20, "short": 8}

TARGETS = {3: 0.06, 10: 0.2, 30: 0.6}
"""Seconds of a round, by number of clients."""

ROUND = "round"

Serve = Callable[[str, int, int, float, Connection], None]
Host = Callable[[str, int, int], None]


def benchmark(count: int) -> Benchmark:
    """Describe the benchmark of `count` clients."""
    figure = Figure(
        ROUND,
        "wall from one training request to the next, evaluation included",
        target=Target(TARGETS[count]),
        places=3,
    )
    return Benchmark(
        f"coordination-{count}",
        f"A whole round, training and evaluation, of {count} clients that make one local step each, so that little but "
        "waiting, messages and averaging is left.",
        (figure,),
        Side(OURS, "our server and clients", functools.partial(measure, count, serve_ours, host_ours, 0.0)),
        (
            Side(
                "declearn",
                "its own server and clients, at its default heartbeat of 1 s",
                functools.partial(measure, count, _serve_stock, _host_stock, 1.0),
            ),
            Side(
                "declearn-10ms",
                "the same at a heartbeat of 0.01 s",
                functools.partial(measure, count, _serve_stock, _host_stock, 0.01),
            ),
        ),
        minutes={3: 8, 10: 9, 30: 15}[count],
        guarded=count == min(TARGETS),
    )


def measure(
    count: int,
    server: Serve,
    host: Host,
    heartbeat: float,
    form: Form,
) -> Mapping[str, Sequence[float]]:
    """Run one federation and give the seconds of each round but the first.

    Raises:
        BenchmarkError: its server ended before its rounds did.
    """
    rounds = ROUNDS[form]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), count)
        ends, end = context.Pipe()
        first = context.Process(target=server, args=(folder, count, rounds, heartbeat, end), daemon=True)
        first.start()
        end.close()
        second = None
        try:
            port = ends.recv()
            second = context.Process(target=host, args=(folder, count, port), daemon=True)
            second.start()
            seconds: list[float] = ends.recv()
        except EOFError:
            raise BenchmarkError("the server's process ended before its rounds did") from None
        finally:
            for process in filter(None, (first, second)):
                process.join(60)
                if process.is_alive():
                    process.kill()
    return {ROUND: seconds[1:]}


def prepare(folder: Path, count: int) -> None:
    """Issue identities, and give each client images of noise of its own."""
    from services.init import identities

    identities.ensure(folder, folder / "clients", identities.client_names(count))
    rng = np.random.default_rng(0)
    for number in range(count):
        site = folder / f"client_{number}"
        site.mkdir()
        for part in ("train", "valid"):
            np.save(site / f"{part}_data.npy", rng.random((IMAGES, 28, 28), np.float32))
            np.save(site / f"{part}_target.npy", rng.integers(0, 10, IMAGES, np.uint8))


def plan_of(rounds: int) -> Any:
    """Give the plan that all sides train by."""
    from services.experiment import Plan

    return Plan.model_validate(
        {
            "rounds": rounds,
            "model": "cnn-strided",
            "train": {"batch_size": IMAGES, "steps": 1},
            "evaluate": {"batch_size": IMAGES},
            "optimizer": {"client": {"lrate": 0.001, "modules": []}},
            "federation": {"join_grace": 1},
        }
    )


# -- ours -------------------------------------------------------------------------------------------------------------


def options_of(root: Path, count: int) -> Any:
    """Give the options of a server of ours, which tests on a few black images."""
    from services.server.main import ServerOptions
    from services.shards import TEST_IMAGES, TEST_LABELS

    test = root / "test"
    test.mkdir(exist_ok=True)
    np.save(test / TEST_IMAGES, np.zeros((IMAGES, 28, 28), np.uint8))
    np.save(test / TEST_LABELS, (np.arange(IMAGES) % 10).astype(np.uint8))
    identity = (root / "server-cert.pem", root / "server-pkey.pem", root / "ca-cert.pem")
    return ServerOptions(count, "localhost", 0, 0, *identity, test, root / "denylist", root / "results")


def manifest() -> Any:
    """Give the manifest of a data set that is dealt to nobody."""
    from services.shards import Manifest

    return Manifest(
        dataset="mnist",
        data_sha256="",
        reading={},
        image_shape=(28, 28),
        classes=tuple("0123456789"),
        scheme="iid",
        alpha=None,
        classes_per_client=None,
        seed=0,
        valid_fraction=0.5,
        files={},
        cuts={},
    )


def serve_ours(folder: str, count: int, rounds: int, _: float, end: Connection) -> None:
    """Run our server; send its port, and then the seconds of its rounds."""
    from services.server.main import Run
    from services.server.results import RunFolder
    from services.transport import tls
    from services.transport.server import ServerEndpoint

    options = options_of(Path(folder), count)

    async def serve() -> None:
        endpoint = ServerEndpoint("localhost", 0, tls.server_context(options.certificate, options.key, options.ca))
        run = Run(plan_of(rounds), options, manifest(), endpoint, RunFolder.create(options.results))
        task = asyncio.create_task(run.serve())
        while endpoint.port == 0:
            await asyncio.sleep(0.01)
        end.send(endpoint.port)
        await task
        end.send([row.seconds for row in run.folder.rounds])

    asyncio.run(serve())


def host_ours(folder: str, count: int, port: int) -> None:
    """Run all our clients."""
    from services import engine
    from services.client.session import Session
    from services.readers.folder import load_site
    from services.transport import tls
    from services.transport.client import ClientEndpoint

    engine.load()
    root = Path(folder)

    async def one(number: int) -> None:
        name = f"client_{number}"
        clients = root / "clients"
        context = tls.client_context(
            clients / "ca-cert.pem", clients / f"{name}-cert.pem", clients / f"{name}-pkey.pem"
        )
        endpoint = ClientEndpoint(f"wss://localhost:{port}", name, lambda: context, dealable=False, timeout=60)
        await Session(endpoint, shard=load_site(root / name), deal=None).async_run()

    async def everybody() -> None:
        await asyncio.gather(*(one(number) for number in range(count)))

    asyncio.run(everybody())


# -- declearn's own ---------------------------------------------------------------------------------------------------


class _Stopwatch(logging.Handler):
    """Notes when declearn's server says that it begins a training round, or stops."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(("Initiating training round", "Stopping training")):
            self.times.append(time.monotonic())


def _serve_stock(folder: str, count: int, rounds: int, heartbeat: float, end: Connection) -> None:
    import socket

    import declearn
    import declearn.model.tensorflow

    from services.server.model import build_model, build_optim

    watch = _Stopwatch()
    logger = logging.getLogger("declearn.server")
    logger.addHandler(watch)
    logger.setLevel(logging.INFO)
    root = Path(folder)
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    network = declearn.communication.build_server(
        "websockets", host="localhost", port=port, certificate=str(root / "server-cert.pem"),
        private_key=str(root / "server-pkey.pem"), heartbeat=heartbeat,
    )  # fmt: skip
    plan = plan_of(rounds)
    metrics: list[Any] = [declearn.metrics.MulticlassAccuracyPrecisionRecall(labels=list(range(10)))]
    server = declearn.main.FederatedServer(build_model(plan), network, build_optim(plan), metrics)
    config = declearn.main.config.FLRunConfig.from_params(
        rounds=rounds,
        register={"min_clients": count, "max_clients": count, "timeout": 120},
        training={"batch_size": IMAGES, "n_epoch": 1, "n_steps": 1, "shuffle": True},
        evaluate={"batch_size": IMAGES},
    )
    end.send(port)
    server.run(config)
    end.send([later - earlier for earlier, later in zip(watch.times, watch.times[1:], strict=False)])


def _host_stock(folder: str, count: int, port: int) -> None:
    import declearn
    import declearn.model.tensorflow

    root = Path(folder)

    def one(number: int) -> None:
        name = f"client_{number}"
        network = declearn.communication.build_client(
            "websockets", server_uri=f"wss://localhost:{port}", name=name, certificate=str(root / "ca-cert.pem")
        )
        data = [
            declearn.dataset.InMemoryDataset(
                str(root / name / f"{part}_data.npy"), str(root / name / f"{part}_target.npy")
            )
            for part in ("train", "valid")
        ]
        declearn.main.FederatedClient(network, data[0], data[1], verbose=False).run()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


BENCHMARKS = tuple(benchmark(count) for count in TARGETS)
