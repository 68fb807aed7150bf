"""A round beside its compute floor: what the same processes take to train the same images in plain Keras.

Ours is `fed demo` with the default plan. The floor has no federation: as many processes, each with the shard of a
client, its model, optimizer, batch and number of steps, evaluate its validation images after each pass, and wait for
one another before the next, as a round does. The first round and the first pass, in which graphs are traced, do not
count.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import processes
from benchmarks.harness import OURS, REPOSITORY, Benchmark, BenchmarkError, Figure, Form, Side, Target

CLIENTS = 3

ROUNDS: dict[Form, int] = {"full": 5, "short": 3}

PLAN = REPOSITORY / "experiment.yml"

ROUND = "round"


def measure_ours(form: Form) -> dict[str, list[float]]:
    """Give the seconds of each round but the first."""
    run = processes.demo(PLAN, "--rounds", str(ROUNDS[form]), clients=CLIENTS)
    return {ROUND: [float(row["seconds"]) for row in run.history[1:]]}


def measure_keras(form: Form) -> dict[str, list[float]]:
    """Give the seconds of each pass but the first, from when all begin to when the last has ended.

    Raises:
        BenchmarkError: a process ended before its passes did.
    """
    context = multiprocessing.get_context("spawn")
    with processes.workplace() as folder:
        deal = [sys.executable, "-m", "services", "init", "--data-only"]
        environment = {"FED_ROOT": str(folder), "MAX_CLIENTS": str(CLIENTS), "EXPERIMENT": str(PLAN)}
        processes.timed(folder, *deal, environment=processes.surroundings(**environment))
        workers, ends = [], []
        for seat in range(CLIENTS):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_train, args=(str(folder), seat, ROUNDS[form], theirs), daemon=True)
            worker.start()
            theirs.close()
            workers.append(worker)
            ends.append(ours)
        try:
            seconds = [_together(ends) for _ in range(ROUNDS[form] + 1)]
        except EOFError:
            raise BenchmarkError("a process ended before its passes did") from None
        for worker in workers:
            worker.join()
    return {ROUND: seconds[2:]}  # the first is the wait for imports


def _together(ends: list[Connection]) -> float:
    """Let all go at once, and give the seconds until the last is done."""
    began = time.monotonic()
    for end in ends:
        end.send("go")
    for end in ends:
        end.recv()
    return time.monotonic() - began


def _train(folder: str, seat: int, passes: int, end: Connection) -> None:
    import keras

    from services import experiment, shards
    from services.server.model import build_model

    plan = experiment.load(PLAN)
    shard = shards.load_shard(Path(folder) / "data" / "shards", CLIENTS, seat)
    assert shard.valid_images is not None  # noqa: S101 - the plan keeps some
    train, valid = ((images / 255).astype("float32") for images in (shard.train_images, shard.valid_images))
    steps = len(train) // plan.train.batch_size  # a part of a batch is left over in a round
    network = build_model(plan).get_wrapped_model()
    network.compile(
        keras.optimizers.Adam(plan.optimizer.client.lrate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    end.recv()
    end.send("imported")
    count = steps * plan.train.batch_size
    for _ in range(passes):
        end.recv()
        network.fit(train[:count], shard.train_labels[:count], batch_size=plan.train.batch_size, verbose=0)
        network.evaluate(valid, shard.valid_labels, batch_size=plan.evaluate.batch_size, verbose=0)
        end.send("done")


BENCHMARKS = (
    Benchmark(
        "floor",
        f"A round of the default plan with {CLIENTS} clients, beside {CLIENTS} processes that train and evaluate the "
        "same shards at once in plain Keras.",
        (Figure(ROUND, "wall of a round, evaluation and test included", target=Target(1.05, "keras")),),
        Side(OURS, "`fed demo` with experiment.yml", measure_ours),
        (
            Side(
                "keras", "`fit` and `evaluate` on each shard, in a process each, without any federation", measure_keras
            ),
        ),
        minutes=8,
        guarded=True,
    ),
)
