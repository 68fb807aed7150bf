"""Aggregation that a few dishonest clients can't turn: updates clipped to a norm, coordinate-wise median, trimmed mean.

It needs each client's update in clear, so secure aggregation rules it out. Clients send what they always send: the
rules are the server's alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from declearn.aggregator import Aggregator, AveragingAggregator, ModelUpdates
from declearn.messaging import EvaluationReply, TrainReply
from declearn.model.api import Vector
from declearn.model.sklearn import NumpyVector
from numpy.typing import NDArray

from services.experiment.methods import Robust


@dataclasses.dataclass
class SideBySide(ModelUpdates, register=False):
    """Updates of several clients kept apart, where upstream's `aggregate` sums them."""

    members: tuple[Vector[Any], ...] = ()

    def aggregate(self, other: SideBySide) -> SideBySide:
        return dataclasses.replace(self, members=self.members + other.members)


class CoordinateMedian(AveragingAggregator, register=False):
    """The median of each coordinate over all clients (Yin et al. 2018), each client counting once."""

    def finalize_updates(self, updates: ModelUpdates) -> Vector[Any]:
        return _by_coordinate(updates, lambda stack: np.median(stack, axis=0))


class TrimmedMean(AveragingAggregator, register=False):
    """The mean of each coordinate without its lowest and highest values (Yin et al. 2018), each client counting once.

    Args:
        trim: share of clients left out at either end, rounded up; as long as one is left.
    """

    def __init__(self, trim: float) -> None:
        super().__init__()
        self.trim = trim

    def finalize_updates(self, updates: ModelUpdates) -> Vector[Any]:
        def rule(stack: NDArray[Any]) -> NDArray[Any]:
            count = len(stack)
            out = min(math.ceil(self.trim * count), (count - 1) // 2)
            mean: NDArray[Any] = np.sort(stack, axis=0)[out : count - out].mean(axis=0, dtype=stack.dtype)
            return mean

        return _by_coordinate(updates, rule)


class Defence:
    """What the server does with updates before they become one.

    Args:
        spec: section `robust` of the plan.
    """

    def __init__(self, spec: Robust) -> None:
        self._most = spec.max_update_norm
        self._apart = spec.aggregator is not None
        self.active = self._apart or self._most is not None
        self.aggregator: Aggregator[Any] | None = None
        if spec.aggregator == "median":
            self.aggregator = CoordinateMedian()
        elif spec.aggregator == "trimmed-mean":
            self.aggregator = TrimmedMean(spec.trim)

    def bound(self, replies: Mapping[str, TrainReply]) -> dict[str, TrainReply]:
        """Clip each update to the norm, and keep updates apart where the aggregator needs them so."""
        if not self.active:
            return dict(replies)
        return {name: dataclasses.replace(reply, updates=self._bounded(reply)) for name, reply in replies.items()}

    def loss(self, evaluated: Mapping[str, EvaluationReply], mean: float) -> float:
        """Tell by which validation loss the model to keep is chosen.

        Args:
            evaluated: by client, its reply; of its own loss a client can say what it likes.
            mean: of all losses, weighed by images.

        Returns:
            That mean; under a rule by which each client counts once, the median of their losses.
        """
        return float(np.median([reply.loss for reply in evaluated.values()])) if self._apart else mean

    def _bounded(self, reply: TrainReply) -> ModelUpdates:
        # clients send their update times its weight, which is their number of steps
        sent = reply.updates
        update = sent.updates / sent.weights
        if self._most is not None:
            update = update * min(1.0, self._most / max(_norm(update), 1e-12))
        if self._apart:
            return SideBySide(update, 1, (update,))
        return dataclasses.replace(sent, updates=update * sent.weights)


def _norm(vector: Vector[Any]) -> float:
    """Measure the L2 norm over all coordinates."""
    return math.sqrt(sum(float(np.square(np.asarray(part, np.float64)).sum()) for part in vector.coefs.values()))


def _by_coordinate(updates: ModelUpdates, rule: Callable[[NDArray[Any]], Any]) -> Vector[Any]:
    """Apply `rule` to the stack of values, shape (clients, *shape), of each named array."""
    assert isinstance(updates, SideBySide)  # noqa: S101 - `Defence.bound` makes them so
    vectors = updates.members
    first = vectors[0]
    stacks: dict[str, NDArray[Any]] = {
        name: np.stack([np.asarray(vector.coefs[name]) for vector in vectors]) for name in first.coefs
    }
    values = NumpyVector({name: rule(stack) for name, stack in stacks.items()})
    return first * 0.0 + values  # of the framework's own kind
