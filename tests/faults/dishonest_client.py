"""The client, but for what it sends: `dishonest_client.py KIND [STRENGTH]`, KIND one of `KINDS`.

Mounted into a client's container and started there in place of `fed client`. It joins, trains and evaluates as any
client does, by the product's own code; what it has learned is then replaced. Tests and benchmarks that run a federation
in one process take `forger`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from declearn.messaging import Message, TrainReply
from numpy.typing import NDArray

from services.cli import main

Arrays = dict[str, NDArray[Any]]
Change = Callable[[Arrays, float, np.random.Generator], Arrays]


def _filled(value: float) -> Change:
    return lambda arrays, *_: {name: np.full_like(array, value) for name, array in arrays.items()}


def _times(sign: int) -> Change:
    def change(arrays: Arrays, strength: float, _: np.random.Generator) -> Arrays:
        return {name: array * np.float32(sign * strength) for name, array in arrays.items()}

    return change


def _random(arrays: Arrays, strength: float, rng: np.random.Generator) -> Arrays:
    """Draw Gaussian noise of `strength` times the norm of what was learned."""
    noise = {name: rng.normal(size=array.shape) for name, array in arrays.items()}
    scale = strength * _norm(arrays) / _norm(noise)
    return {name: (array * scale).astype(arrays[name].dtype) for name, array in noise.items()}


def _reshaped(arrays: Arrays, *_: Any) -> Arrays:
    return {name: array[..., np.newaxis] for name, array in arrays.items()}


def _renamed(arrays: Arrays, *_: Any) -> Arrays:
    return {f"my/{name}": array for name, array in arrays.items()}


def _widened(arrays: Arrays, *_: Any) -> Arrays:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


CHANGES: dict[str, tuple[Change, float]] = {
    "nan": (_filled(float("nan")), 1),
    "inf": (_filled(float("inf")), 1),
    "huge": (_filled(1e30), 1),
    "shape": (_reshaped, 1),
    "names": (_renamed, 1),
    "dtype": (_widened, 1),
    "steps": (_times(1), 1000),
    "sign": (_times(-1), 10),
    "scale": (_times(1), 10),
    "random": (_random, 10),
}
"""What becomes of a client's updates, and the strength that this has where nothing else is said."""

KINDS = (*CHANGES, "other-round", "ahead")
"""Those, and what is wrong without being so in itself: an update of an earlier round, and one that nobody asked for."""


def forger(kind: str, strength: float | None = None, seed: int = 0) -> Callable[[Message], Message]:
    """Make what turns an honest client's messages into those of a dishonest one.

    Args:
        kind: one of `KINDS`; `ahead` changes no message.
        strength: by which updates are multiplied; of `random`, its norm in norms of what was learned.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    change, usual = CHANGES.get(kind, (None, 1))
    factor = usual if strength is None else strength
    first: list[TrainReply] = []

    def forge(message: Message) -> Message:
        if not isinstance(message, TrainReply):
            return message
        if not first:
            first.append(message)
        if kind == "other-round":
            return first[0]
        if change is None:
            return message
        updates = message.updates.updates
        forged = type(updates).unpack(change(updates.pack(), factor, rng))
        more = int(factor) if kind == "steps" else 1
        return dataclasses.replace(
            message,
            updates=dataclasses.replace(message.updates, updates=forged, weights=message.updates.weights * more),
            n_steps=message.n_steps * more,
        )

    return forge


def _norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())))


def take_part(kind: str, strength: float | None) -> int:
    """Run the client with `send_message` replaced; gives its exit code."""
    from services.transport.client import ClientEndpoint  # noqa: PLC0415 - the command imports no more than it runs

    send, forge = ClientEndpoint.send_message, forger(kind, strength)

    async def send_forged(self: ClientEndpoint, message: Message) -> None:
        for _ in range(2 if kind == "ahead" and isinstance(message, TrainReply) else 1):
            await send(self, forge(message))

    with mock.patch.object(ClientEndpoint, "send_message", send_forged):
        return main(["client"])


if __name__ == "__main__":
    sys.exit(take_part(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None))
