"""Replies of clients, looked at before anything is made of them: a dishonest or broken one is left out of its round.

What can be told from one reply alone is told here: values that are no finite numbers or absurdly large, parts that the
model does not have, more steps than the client's images allow, figures that can't be added up; and an update that its
client has sent before. What an attacker hides within these bounds is for a robust aggregator.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from declearn.messaging import TrainReply
from declearn.metrics import BinaryRocAUC, MeanMetric, MetricSet, MulticlassAccuracyPrecisionRecall
from declearn.model.api import Vector
from declearn.optimizer.modules import ScaffoldAuxVar

LARGEST = 1e8
"""Largest magnitude of a number in a reply; float32 overflows at 3.4e38, and sums and squares come before that."""

LARGEST_FIGURE = 1e30
"""Largest magnitude of a loss, a weight, or a time."""

MOST_NAMES = 16
"""Names that one client's auxiliary variables may hold; SCAFFOLD's hold one."""

SHOWN = 60
"""Characters that are shown of what a client sent."""

LOSS = "loss"
"""The metric that each client adds to those it is asked for."""

MEAN, COUNTS, CURVE = MeanMetric.state_cls, MulticlassAccuracyPrecisionRecall.state_cls, BinaryRocAUC.state_cls
"""Types of metrics' states of which more is known than that they add up."""


class Inspection:
    """What an honest reply looks like.

    Args:
        weights: the model's trainable weights, by which names, shapes and types are judged.
        updates: type of the aggregator's updates.
        metrics: what clients compute in an evaluation.
        exchanged: names of the optimizer's modules that send auxiliary variables; SCAFFOLD alone does.
        bounds_weight: an update weighs as much as its steps at most, and as much as one at least.
    """

    def __init__(
        self,
        weights: Vector[Any],
        updates: type[Any],
        metrics: MetricSet,
        exchanged: Collection[str] = (),
        *,
        bounds_weight: bool = True,
    ) -> None:
        arrays = {name: np.asarray(value) for name, value in weights.coefs.items()}
        self._specs = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        self._kind = type(weights)
        self._updates = updates
        self._metrics = copy.deepcopy(metrics)
        self._exchanged = frozenset(exchanged)
        self._bounds_weight = bounds_weight

    # -- training -------------------------------------------------------------------------------------------------

    def fault_in_training(self, reply: Any, most_steps: int | None) -> str | None:
        """Tell what is wrong with a reply to a training request, or None.

        Args:
            reply: the message.
            most_steps: local steps that the client's images allow in a round, or None where it is not known.
        """
        fault = self._fault_in_claims(reply, most_steps)
        if fault is None:
            # an update is sent times its weight, by which it is divided again
            largest = LARGEST * min(1.0, abs(reply.updates.weights) or 1.0)
            fault = self._fault_in_vector(reply.updates.updates, "updates", largest)
        rest = {name: value for name, value in vars(reply.updates).items() if name != "updates"} if not fault else {}
        return fault or self._fault_within(rest, "updates") or self._fault_in_auxiliary(reply.aux_var)

    def fault_in_sum(self, reply: Any) -> str | None:
        """Tell what is wrong with the sum of all replies to a training request, or None."""
        updates = reply.updates
        if not is_number(updates.weights) or updates.weights <= 0:
            return f"it claims a weight of {shown(updates.weights)}"
        return self._fault_in_vector(updates.updates / updates.weights, "updates")

    def _fault_in_claims(self, reply: Any, most_steps: int | None) -> str | None:
        """Look at what a reply says of itself, and at the types of its parts."""
        steps, updates, fault = reply.n_steps, reply.updates, None
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            fault = f"it claims {shown(steps)} steps"
        elif most_steps is not None and steps > most_steps:
            fault = f"it claims {steps} steps, its images allow {most_steps}"
        elif type(updates) is not self._updates:  # a subclass adds up with its own kind alone
            fault = f"its updates are {shown(type(updates).__name__)}"
        elif not is_number(updates.weights) or (self._bounds_weight and not 1 <= updates.weights <= steps):
            fault = f"it claims a weight of {shown(updates.weights)} for {steps} steps"
        elif not isinstance(updates.updates, Vector):
            fault = "its updates hold no vector"
        elif not is_number(reply.t_spent) or not isinstance(reply.aux_var, dict):
            fault = "it is malformed"
        return fault

    def _fault_in_auxiliary(self, variables: Mapping[Any, Any]) -> str | None:
        for name, value in variables.items():
            if name not in self._exchanged:
                return f"it sends auxiliary variables {shown(name)}, which nobody asked for"
            if not isinstance(value, ScaffoldAuxVar) or not isinstance(value.delta, Vector | float):
                return f"its auxiliary variables {shown(name)} are none of SCAFFOLD's"
            # the server divides by the number of names that it has seen, and a client has one
            if not isinstance(value.clients, set) or len(value.clients) > 1:
                return f"its auxiliary variables {shown(name)} are those of several clients"
        return self._fault_within(list(variables.values()), "auxiliary variables")

    # -- evaluation -----------------------------------------------------------------------------------------------

    def fault_in_evaluation(self, reply: Any, most_images: int | None) -> str | None:
        """Tell what is wrong with a reply to an evaluation request, or None.

        Args:
            reply: the message.
            most_images: number of the client's validation images, or None where it is not known.
        """
        if not is_number(reply.loss) or reply.loss < 0 or not is_number(reply.t_spent):
            return f"its loss is {shown(reply.loss)}"
        if not isinstance(reply.n_steps, int) or reply.n_steps < 1 or not isinstance(reply.metrics, dict):
            return "it is malformed"
        if not reply.metrics:  # a client may keep them to itself; then its steps are what its loss counts as
            return _fault_in_count(reply.n_steps, most_images)
        return self._fault_in_states(reply.metrics, most_images)

    def _fault_in_states(self, states: Mapping[Any, Any], most_images: int | None) -> str | None:
        """Look at the states of metrics, and whether they can be added to others'."""
        self._metrics.reset()
        empty: dict[str, Any] = {LOSS: MEAN(), **self._metrics.get_states()}
        fault = _fault_in_kinds(states, empty) or self._fault_within(list(states.values()), "metrics")
        if fault is not None:
            return fault
        try:
            sums = {name: empty[name] + state for name, state in states.items()}
            self._metrics.set_states({name: state for name, state in sums.items() if name != LOSS})
            self._metrics.get_result()
        except Exception:  # noqa: BLE001 - hostile figures can make a sum raise anything
            return "its metrics can't be added to others'"
        for name, state in states.items():
            # a curve has as many thresholds as its client's scores need
            wanted = state if isinstance(state, CURVE) else empty[name]
            if _shapes(sums[name]) != _shapes(wanted):
                return f"its metrics have another shape for {name}"
        faults = filter(None, (_fault_in_state(state, most_images) for state in states.values()))
        return next(faults, None if states[LOSS].divisor else "its loss is that of no image")

    # -- what is nested -------------------------------------------------------------------------------------------

    def _fault_in_vector(self, vector: Vector[Any], what: str, largest: float = LARGEST) -> str | None:
        """Compare a vector with the model's weights.

        Args:
            vector: what was sent.
            what: to call it.
            largest: magnitude that a value may have.
        """
        if not isinstance(vector, self._kind):
            return f"its {what} are of type {type(vector).__name__}, not {self._kind.__name__}"
        strange = sorted(str(name) for name in vector.coefs.keys() - self._specs.keys())
        missing = sorted(self._specs.keys() - vector.coefs.keys())
        if strange or missing:
            wrong = f"name {shown(strange[0])}, which the model does not have" if strange else f"lack {missing[0]}"
            return f"its {what} {wrong}"
        for name, value in vector.coefs.items():
            fault = _fault_in_weight(name, value, *self._specs[name], largest)
            if fault is not None:
                return f"its {what} {fault}"
        return None

    def _fault_within(self, value: Any, what: str) -> str | None:
        """Look through whatever is nested in `value`."""
        if isinstance(value, Vector):
            return self._fault_in_vector(value, what)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._fault_within(vars(value), what)
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple | set):
            return next((fault for part in value if (fault := self._fault_within(part, what)) is not None), None)
        if isinstance(value, np.ndarray | np.generic | float | int):
            fault = _fault_in_array(np.asarray(value))
            return None if fault is None else f"its {what} hold {fault}"
        return None


class Repeats:
    """Recognises an update that its client has sent in an earlier round.

    An honest client begins each round from another model, so its updates never are the same to the last bit. Messages
    of declearn carry no number of a round; one who changes a bit is not recognised, nor would be if they did.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[bytes, int]] = collections.defaultdict(dict)

    def fault(self, name: str, reply: TrainReply) -> str | None:
        """Tell which round a client's update, which is sound, was sent in before, or None."""
        number = self._known[name].get(_digest(reply))
        return None if number is None else f"its updates are those that it sent in round {number}"

    def remember(self, number: int, replies: Mapping[str, TrainReply]) -> None:
        """Take note of the updates of a round that counts; one that does not is run again, with the same."""
        for name, reply in replies.items():
            if any(np.asarray(value).any() for value in reply.updates.updates.coefs.values()):
                self._known[name][_digest(reply)] = number


def most_steps(images: int, batch_size: int, epochs: int, steps: int | None) -> int:
    """Tell how many local steps a round has at most, for a client of so many training images."""
    passes = epochs * max(1, math.ceil(images / batch_size))
    return passes if steps is None else min(passes, steps)


def _digest(reply: TrainReply) -> bytes:
    coefs = reply.updates.updates.coefs
    digest = hashlib.sha256()
    for name in sorted(coefs):
        digest.update(np.asarray(coefs[name]).tobytes())
    return digest.digest()


def _fault_in_weight(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], largest: float) -> str | None:
    """Compare one array of a vector with the weight of its name."""
    if not hasattr(value, "dtype"):  # a list adds up to something else
        return f"hold a {type(value).__name__} for {name}"
    array = np.asarray(value)
    if array.shape != shape:
        return f"have shape {array.shape} for {name}, not {shape}"
    if array.dtype != dtype:
        return f"hold values of type {array.dtype} in {name}, not {dtype}"
    fault = _fault_in_array(array, largest)
    return None if fault is None else f"hold {fault} in {name}"


def _fault_in_array(array: np.ndarray[Any, Any], largest: float = LARGEST) -> str | None:
    if array.dtype.kind not in "fiub":
        return f"values of type {array.dtype}"
    if not np.isfinite(array).all():
        return "values that are not finite"
    if array.size and float(np.abs(array).max()) > largest:
        return f"values above {largest:g}"
    return None


def _fault_in_kinds(states: Mapping[Any, Any], wanted: Mapping[str, Any]) -> str | None:
    """Compare which metrics there are, and of which types their states."""
    if states.keys() != wanted.keys():
        names = ", ".join(sorted(str(name) for name in states.keys() ^ wanted.keys()))
        return f"its metrics lack, or add, {shown(names)}"
    for name, state in states.items():
        if type(state) is not type(wanted[name]):
            return f"its metrics hold {shown(type(state).__name__)} for {name}"
    return None


def _fault_in_state(state: Any, most_images: int | None) -> str | None:
    """Tell what no count of images comes to, in the state of a metric that is sound otherwise."""
    if isinstance(state, MEAN):
        # a client may keep all but its loss to itself: such a metric is one of no image
        if state.num_sum < 0 or state.divisor < 0 or (state.num_sum > 0 and not state.divisor):
            return f"its metrics hold a sum of {shown(state.num_sum)} over {shown(state.divisor)} images"
        return _fault_in_count(state.divisor, most_images)
    if isinstance(state, COUNTS):
        if state.confmat.min() < 0:
            return "its metrics count less than no image"
        return _fault_in_count(float(state.confmat.sum()), most_images)
    if isinstance(state, CURVE):
        curves = [np.asarray(value, np.float64) for value in (state.tpos, state.fpos, state.tneg, state.fneg)]
        falling = (curves[0], curves[1], -curves[2], -curves[3])
        if any(values.shape != (len(state.thresh),) or np.diff(values).max(initial=0) > 0 for values in falling):
            return "its metrics hold no curve"
    return None


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return [np.shape(value) for value in vars(state).values()]


def _fault_in_count(count: float, most_images: int | None) -> str | None:
    if most_images is not None and count > most_images:
        return f"its metrics count {count:g} images, it holds {most_images}"
    return None


def is_number(value: object) -> bool:
    """Tell whether a value is a number that can be reckoned with."""
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(-LARGEST_FIGURE <= value <= LARGEST_FIGURE)
    )


def shown(value: object) -> str:
    """Word what a client sent, in a few characters."""
    return repr(value)[:SHOWN]
