"""Replies of clients, looked at before anything is made of them: a dishonest or broken one is left out of its round.

What can be told from one reply alone is told here: values that are no finite numbers or absurdly large, parts that the
model does not have, more steps than the client's images allow. What an attacker hides within these bounds is for a
robust aggregator.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from declearn.model.api import Vector

LARGEST = 1e8
"""Largest magnitude of a number in a reply; float32 overflows at 3.4e38, and sums and squares come before that."""

Shapes = Mapping[str, tuple[int, ...]]


class Inspection:
    """What an honest reply looks like.

    Args:
        weights: the model's trainable weights, by which names and shapes are judged.
        updates: type of the aggregator's updates.
        bounds_weight: an update weighs as much as its steps at most, and more than nothing.
    """

    def __init__(self, weights: Vector[Any], updates: type[Any], *, bounds_weight: bool = True) -> None:
        self._shapes: Shapes = {name: np.shape(value) for name, value in weights.coefs.items()}
        self._updates = updates
        self._bounds_weight = bounds_weight

    def fault_in_training(self, reply: Any, most_steps: int | None) -> str | None:
        """Tell what is wrong with a reply to a training request, or None.

        Args:
            reply: the message.
            most_steps: local steps that the client's images allow in a round, or None where it is not known.
        """
        fault = self._fault_in_claims(reply, most_steps)
        if fault is None:
            fault = self._fault_in_vector(reply.updates.updates, "updates", whole=True)
        return fault or self._fault_within((reply.aux_var, vars(reply.updates)), "auxiliary variables")

    def _fault_in_claims(self, reply: Any, most_steps: int | None) -> str | None:
        """Look at what a reply says of itself, and at the types of its parts."""
        steps, updates, fault = reply.n_steps, reply.updates, None
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            fault = f"it claims {_shown(steps)} steps"
        elif most_steps is not None and steps > most_steps:
            fault = f"it claims {steps} steps, its images allow {most_steps}"
        elif not isinstance(updates, self._updates):
            fault = f"its updates are {_shown(type(updates).__name__)}"
        elif not _is_number(updates.weights) or (self._bounds_weight and not 0 < updates.weights <= steps):
            fault = f"it claims a weight of {_shown(updates.weights)} for {steps} steps"
        elif not isinstance(updates.updates, Vector):
            fault = "its updates hold no vector"
        elif not _is_number(reply.t_spent) or not isinstance(reply.aux_var, dict | None):
            fault = "it is malformed"
        return fault

    def fault_in_evaluation(self, reply: Any) -> str | None:
        """Tell what is wrong with a reply to an evaluation request, or None."""
        if not _is_number(reply.loss) or not _is_number(reply.t_spent):
            return f"its loss is {_shown(reply.loss)}"
        if not isinstance(reply.n_steps, int) or reply.n_steps < 0 or not isinstance(reply.metrics, dict):
            return "it is malformed"
        return self._fault_within(reply.metrics, "metrics")

    def _fault_in_vector(self, vector: Vector[Any], what: str, *, whole: bool) -> str | None:
        """Compare a vector with the model's weights.

        Args:
            vector: what was sent.
            what: to call it.
            whole: it must have a value for each of the weights.
        """
        names = set(vector.coefs)
        strange = sorted(str(name) for name in names - self._shapes.keys())
        missing = sorted(self._shapes.keys() - names)
        if strange:
            return f"its {what} name {_shown(strange[0])}, which the model does not have"
        if whole and missing:
            return f"its {what} lack {missing[0]}"
        for name, value in vector.coefs.items():
            array = np.asarray(value)
            if array.shape != self._shapes[name]:
                return f"its {what} have shape {array.shape} for {name}, not {self._shapes[name]}"
            fault = _fault_in_array(array)
            if fault is not None:
                return f"its {what} hold {fault} in {name}"
        return None

    def _fault_within(self, value: Any, what: str) -> str | None:
        """Look through whatever is nested in `value`."""
        if isinstance(value, Vector):
            return self._fault_in_vector(value, what, whole=False)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fault_within(vars(value), what)
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple | set):
            return next((fault for part in value if (fault := self._fault_within(part, what)) is not None), None)
        if isinstance(value, np.ndarray | np.generic | float):
            fault = _fault_in_array(np.asarray(value))
            return None if fault is None else f"its {what} hold {fault}"
        return None


def most_steps(images: int, batch_size: int, epochs: int, steps: int | None) -> int:
    """Tell how many local steps a round has at most, for a client of so many training images."""
    passes = epochs * max(1, math.ceil(images / batch_size))
    return passes if steps is None else min(passes, steps)


def _fault_in_array(array: np.ndarray[Any, Any]) -> str | None:
    if array.dtype.kind not in "fiub":
        return f"values of type {array.dtype}"
    if not np.isfinite(array).all():
        return "values that are not finite"
    if array.size and float(np.abs(array).max()) > LARGEST:
        return f"values above {LARGEST:g}"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(float(value))


def _shown(value: object) -> str:
    return repr(value)[:60]
