"""Fuzzing of all that reads what peers send: seeded, bounded in time or number, for tests and for whoever has longer.

    python -m tests.fuzz [--seconds 300] [--cases N] [--seed S] [--target NAME …]

Honest messages are changed, in their bytes or in what these stand for, and read as they are read in a federation. A
target finds something where it raises anything but the one error it may raise, or lets pass what can't be reckoned
with. What was found is printed with the bytes that show it; the same seed finds it again.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import copy
import itertools
import json
import logging
import random
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import numpy as np
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.communication.api.backend.actions import Accept, ActionMessage, Drop, Join, Ping, Recv, Reject, Send
from declearn.messaging import Message
from declearn.model.api import Vector
from declearn.model.sklearn import SklearnSGDModel
from declearn.optimizer import Optimizer
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.secagg.messaging import (
    SecaggEvaluationReply,
    SecaggTrainReply,
    aggregate_secagg_messages,
)
from declearn.secagg.x3dh.messages import X3DHOkay, X3DHRequests
from declearn.version import VERSION

from services.client.guard import Guard
from services.client.training import local
from services.errors import DistrustError
from services.server.inspection import LARGEST
from services.transport.answers import read_answer
from services.transport.hub import Hub
from services.transport.messages import ClientState, Compression, Deal, DealReply, Grouping, SpendingReply, StandBy
from services.transport.precision import narrowed, types_of, widened
from services.transport.wire import ReceivedMessage, UnreadableError, read_request
from tests.server import test_inspection as clear
from tests.server import test_sealed as sealed

MOST_PARTS = 2000
MOST_PLACES = 300
"""Places in a message of which one is changed, those near its root first."""

LONGEST = 20.0
"""Seconds that one case may take before it is taken for one that hangs."""

NASTY: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1e30, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "\x00", "\n\x1b[2J", "é" * 300, "../..", b"", b"\x00" * 300),
    *([], {}, [[]] * 50, {"": ""}, {"__type__": "int", "dump": b"\xff" * 40}, {"__type__": "set", "dump": []}),
    {"__type__": "np.ndarray", "dump": [b"\x00" * 8, "d", [1]]},
    {"__type__": "np.ndarray", "dump": [b"\x00\x00\xc0\x7f", "f", []]},
    {"__type__": "np.ndarray", "dump": [b"", "f", [2**40, 0]]},
    {"__type__": "NumpyVector", "dump": {}},
    {"__type__": "VectorSpec", "dump": {"names": [], "shapes": {}, "dtypes": {}}},
    {"__type__": "AuxVar>ScaffoldAuxVar", "dump": {}},
    {"__type__": "SklearnSGDModel", "dump": {}},
    {"__type__": "Optimizer", "dump": {"lrate": 0.1}},
    {"__type__": "nonsense", "dump": 0},
)
"""What is put in place of a part of a message."""


class FoundError(AssertionError):
    """A case that is not taken as it should be."""


# -- changing messages ------------------------------------------------------------------------------------------------


def changed(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change a message: in what its pack stands for where it can be read, or in its bytes."""
    head = _head(content)
    if rng.random() < 0.6:
        with contextlib.suppress(OverflowError, ValueError, msgpack.UnpackException):
            tree = msgpack.unpackb(content[head:], strict_map_key=False)
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                tree = _grafted(tree, rng)
            packed: bytes = msgpack.packb(tree)
            return content[:head] + packed
    return _scrambled(content, others, rng)


def _head(content: bytes) -> int:
    """Tell where the pack of a message begins: after the name of its kind, where it has one."""
    length = content[0] if content else 0
    name = content[1 : 1 + length]
    return 1 + length if 2 < length < 60 and len(name) == length and name.replace(b"_", b"").isalnum() else 0


def _grafted(tree: Any, rng: random.Random) -> Any:
    """Put something else in place of a part, drop a part, or give it twice."""
    places = list(itertools.islice(_places(tree), MOST_PLACES))
    if not places or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(NASTY))
    # places near the root are few, and matter most
    parent, key = (
        places[min(int(rng.expovariate(1 / 12)), len(places) - 1)] if rng.random() < 0.5 else rng.choice(places)
    )
    act = rng.randrange(8)
    if act == 0:
        del parent[key]
    elif act == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif act == 2 and len(places) < MOST_PLACES:  # twice in one place it would fill the memory here
        parent[key] = [parent[key]] * rng.choice([1, 3, 500])
    elif act == 3 and isinstance(parent, dict):
        parent[rng.choice(["x", "__type__", "dump", "weights", "", 7])] = parent[key]
    elif act == 4:
        for _ in range(rng.choice([10, 100, 400])):
            parent[key] = [parent[key]]
    elif act == 5 and isinstance(parent[key], bytes):
        parent[key] = _scrambled(parent[key], [], rng)
    elif act == 6 and isinstance(parent[key], int | float):
        parent[key] = rng.choice([-parent[key], parent[key] + 1, float(parent[key]) * 1e9, str(parent[key])])
    else:
        parent[key] = copy.deepcopy(rng.choice(NASTY))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a tree, those near its root first."""
    waiting = collections.deque([tree])
    while waiting:
        node = waiting.popleft()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        for key in keys:
            yield node, key
            waiting.append(node[key])


def _scrambled(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes: flip, insert, drop, repeat or swap a few of them, or go on with another message."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randint(0, len(data))
        width = min(len(data) - at, int(rng.expovariate(1 / 8)))
        act = rng.randrange(6)
        if act == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif act == 1:
            data[at:at] = rng.choice([rng.randbytes(rng.randint(1, 16)), b"\x91" * 3000, b"\x81\xa0" * 3000])
        elif act == 2:
            del data[at : at + width + 1]
        elif act == 3:
            data[at:at] = data[at : at + width] * rng.choice([1, 2, 40])
        elif act == 4:
            data[at:] = b"" if not others else rng.choice(others)[at:]
        elif data:
            data[min(at, len(data) - 1)] = rng.choice(
                [0x00, 0x7F, 0x80, 0xC1, 0xC4, 0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xFF]
            )
    return bytes(data)


# -- what reads them --------------------------------------------------------------------------------------------------

REQUESTS = [
    each.serialize() for each in (Join("a", VERSION), Ping(), Recv(), Recv(0.5), Send(b"\x0bx"), Drop(), Drop("tired"))
]

ANSWERS = [each.serialize() for each in (Ping(), Send(b"x" * 20), Accept("welcome"), Reject("no"))]

REPLIES: list[Message] = [
    *[clear.reply()] * 6,  # what most depends on
    *[clear.reply(narrowed(clear.vector()))] * 2,
    *[clear.evaluation()] * 6,
    messaging.InitReply(),
    messaging.Error("it failed"),
    messaging.MetadataReply({"n_samples": 3}),
    messaging.PrivacyReply(),
    messaging.FairnessGroups([(0, 1), (1, 0)]),
    DealReply(3, 4),
    SpendingReply(0.5, 1, 2),
    ClientState(b"state"),
    Grouping("own", 0.5, [1, 2]),
    Compression("float16"),
    X3DHRequests([1, 2]),
    X3DHOkay(),
]


@dataclass
class Target:
    """One reader.

    Attributes:
        honest: messages that it takes.
        take: reads one, which may be changed; raises where it does not do what it should.
    """

    honest: list[bytes]
    take: Callable[[bytes], None]

    def check(self) -> None:
        """Let it read all that is honest."""
        for content in self.honest:
            self.take(content)


def _take_request(content: bytes) -> None:
    found = read_request(content)
    if found is not None and not isinstance(found, Join | Ping | Recv | Send | Drop):
        raise FoundError(f"a request is read as {found!r}")


def _take_in_hub(content: bytes) -> None:
    async def scene() -> None:
        hub = Hub()
        hub.open_clients_registration()
        await hub.handle_message(Join("a", VERSION).serialize(), "context")
        for context in ("context", "stranger"):
            try:
                answer = await asyncio.wait_for(hub.handle_message(content, context), 0.001)
            except TimeoutError:
                continue  # it waits for a message, as a client may
            if not isinstance(answer, ActionMessage):
                raise FoundError(f"the hub answers with {answer!r}")
        hub.depart("context", "over")

    asyncio.run(scene())


def _take_answer(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_answer(content)


def _take_reply(content: bytes) -> None:
    try:
        message = ReceivedMessage.of("a", content, MOST_PARTS).deserialize()
    except UnreadableError as exc:
        if "\n" in exc.reason or len(exc.reason) > 200:
            raise FoundError(f"no line for a log: {exc.reason!r}") from exc
        return
    if isinstance(message, messaging.TrainReply):
        _take_update(message)
    elif isinstance(message, messaging.EvaluationReply):
        _take_evaluation(message)


def _take_update(message: messaging.TrainReply) -> None:
    """Average an update that nothing is wrong with, with an honest one; float16 first becomes what the model is of."""
    if isinstance(getattr(message.updates, "updates", None), Vector):
        message.updates.updates = widened(message.updates.updates, types_of(clear.vector()))
    if clear.INSPECTION.fault_in_training(message, clear.STEPS) is not None:
        return
    aggregator = AveragingAggregator()
    total = message.updates + clear.reply().updates
    mean = aggregator.finalize_updates(total)
    for name, value in mean.coefs.items():
        if not np.isfinite(value).all() or np.abs(value).max(initial=0) > LARGEST:
            raise FoundError(f"an average of {value} for {name}")
    for name, variables in message.aux_var.items():
        _ = cast("ScaffoldAuxVar", variables) + cast("ScaffoldAuxVar", clear.reply().aux_var[name])


def _take_evaluation(message: messaging.EvaluationReply) -> None:
    """Add up figures that nothing is wrong with, with honest ones."""
    if clear.INSPECTION.fault_in_evaluation(message, 100) is not None or not message.metrics:
        return
    honest = clear.states()
    sums = {name: honest[name] + state for name, state in message.metrics.items()}
    loss = sums.pop("loss")
    if not np.isfinite(loss.num_sum / loss.divisor):
        raise FoundError(f"a mean loss of {loss}")
    metrics = clear.metrics()
    metrics.set_states(sums)
    metrics.get_result()


def _take_sealed(content: bytes) -> None:
    """Decrypt the sum of an encrypted reply that nothing is wrong with and an honest one."""
    encrypter, decrypter = sealed.pair("masking")
    try:
        message = ReceivedMessage.of("a", content, MOST_PARTS).deserialize()
    except UnreadableError:
        return
    if isinstance(message, SecaggTrainReply):
        fault, honest = sealed.FORM.fault_in_training(message, decrypter), sealed.trained(encrypter)
    elif isinstance(message, SecaggEvaluationReply):
        fault, honest = sealed.FORM.fault_in_evaluation(message, decrypter), sealed.evaluated(encrypter)
    else:
        return
    if fault is None:
        with contextlib.suppress(ArithmeticError, LookupError, TypeError, ValueError):  # the round does not count
            aggregate_secagg_messages({"a": message, "b": honest}, decrypter=decrypter)


def _guard() -> tuple[Guard, list[bytes]]:
    """Make a client's guard that was set up with a model, and messages that it takes."""
    model = SklearnSGDModel.from_parameters(kind="classifier")
    model.initialize({"n_features": 6, "features_shape": (6,), "data_type": "float32", "classes": np.arange(2)})
    request = messaging.InitRequest(model=model, optim=Optimizer(0.1, modules=["adam"]), aggrg=AveragingAggregator())
    guard = Guard(10_000)
    received = cast("messaging.InitRequest", guard.read(request.serialize()).deserialize())
    guard.accept(local(received.model))
    weights = model.get_weights(trainable=True)
    effort: dict[str, Any] = {"round_i": 1, "batches": {"batch_size": 10}, "n_steps": 3, "timeout": None}
    variables = {"scaffold": ScaffoldAuxVar(state=weights * 0.5)}
    messages: list[Message] = [
        request,
        messaging.TrainRequest(**effort, weights=weights, aux_var=cast("Any", variables), n_epoch=1),
        messaging.EvaluationRequest(**effort, weights=weights),
        messaging.EvaluationRequest(**effort, weights=narrowed(weights)),
        messaging.MetadataQuery(["n_samples"]),
        messaging.StopTraining(weights=weights, loss=0.5, rounds=3),
        messaging.CancelTraining("because"),
        Deal(3, 1, 7),
        StandBy("all seats are taken"),
        Compression("float16"),
    ]
    return guard, [message.serialize() for message in messages]


def targets() -> dict[str, Target]:
    """Make all targets, by name."""
    encrypter, _ = sealed.pair("masking")
    hidden = [sealed.trained(encrypter).serialize(), sealed.evaluated(encrypter).serialize()]
    guard, orders = _guard()

    def take_order(content: bytes) -> None:
        with contextlib.suppress(DistrustError):
            guard.read(content).deserialize()

    return {
        "request": Target(REQUESTS, _take_request),
        "hub": Target(REQUESTS, _take_in_hub),
        "reply": Target([message.serialize() for message in REPLIES], _take_reply),
        "sealed": Target(hidden, _take_sealed),
        "answer": Target(ANSWERS, _take_answer),
        "order": Target(orders, take_order),
    }


# -- all of it --------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        cases: number of them, by target.
        found: what was found, with the bytes that show it.
    """

    cases: dict[str, int]
    found: list[str]


def fuzz(seed: int, *, seconds: float | None = None, cases: int | None = None, only: Sequence[str] = ()) -> Outcome:
    """Give each target one case after another, in turn.

    Args:
        seed: decides about all cases.
        seconds: to go on for.
        cases: of each target, at most.
        only: names of targets; all where there are none.
    """
    chosen = {name: target for name, target in targets().items() if not only or name in only}
    outcome = Outcome(dict.fromkeys(chosen, 0), [])
    end = None if seconds is None else time.monotonic() + seconds
    logging.disable()  # what is refused is told in the log
    for target in chosen.values():
        target.check()
    number = 0
    while (cases is None or number < cases) and (end is None or time.monotonic() < end):
        for name, target in chosen.items():
            rng = random.Random(f"{seed} {name} {number}")  # noqa: S311 - chance, not a secret
            content = changed(rng.choice(target.honest), target.honest, rng)
            began = time.monotonic()
            try:
                target.take(content)
                if time.monotonic() - began > LONGEST:
                    raise FoundError(f"{time.monotonic() - began:.0f} s for {len(content)} bytes")
            except Exception:  # noqa: BLE001 - that is what is looked for
                last = traceback.format_exc(limit=-4)
                outcome.found.append(f"{name} {number}: {content[:2000]!r} ({len(content)} bytes)\n{last}")
            outcome.cases[name] += 1
        number += 1
    logging.disable(logging.NOTSET)
    return outcome


def main(argv: list[str] | None = None) -> int:
    """Fuzz, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", default=[])
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = fuzz(options.seed, seconds=options.seconds, cases=options.cases, only=options.target)
    for each in outcome.found[:20]:
        sys.stdout.write(f"{each}\n")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stdout.write(json.dumps({"cases": outcome.cases, "found": len(outcome.found), "grown_mb": round(grown)}) + "\n")
    return 1 if outcome.found else 0


if __name__ == "__main__":
    sys.exit(main())
