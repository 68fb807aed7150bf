"""Replies of clients, honest and not."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import GradientMaskedAveraging, ModelUpdates
from declearn.metrics import BinaryRocAUC, Metric, MetricSet, MulticlassAccuracyPrecisionRecall
from declearn.model.sklearn import NumpyVector
from declearn.optimizer.modules import ScaffoldAuxVar

from services.server.inspection import MEAN, Inspection, Repeats, is_number, most_steps

STEPS = 10

LABELS = np.arange(40) % 2
SCORES = np.stack([1 - LABELS * 0.7, LABELS * 0.7], axis=1)


def vector(**changes: Any) -> NumpyVector:
    """Make weights of two layers, some of them changed."""
    honest = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    return NumpyVector({name: value for name, value in {**honest, **changes}.items() if value is not None})


def reply(updates: Any = None, **changes: Any) -> messaging.TrainReply:
    """Make an honest reply of `STEPS` steps, some of it changed."""
    honest = messaging.TrainReply(
        n_epoch=1,
        n_steps=STEPS,
        t_spent=0.1,
        updates=ModelUpdates(vector() if updates is None else updates, STEPS),
        aux_var={"scaffold": ScaffoldAuxVar(delta=vector(), clients={"x"})},
    )
    return dataclasses.replace(honest, **changes)


def metrics() -> MetricSet:
    """Make metrics that have seen an honest client's figures."""
    found = MetricSet([MulticlassAccuracyPrecisionRecall(range(2)), BinaryRocAUC(), Metric.from_specs("r2")])
    found.metrics[0].update(LABELS, SCORES)
    found.metrics[1].update(LABELS, SCORES[:, 1])
    found.metrics[2].update(LABELS, SCORES[:, 1])
    return found


def states(**changes: Any) -> dict[str, Any]:
    """Make the states that an honest client sends of 40 images, some of them changed: by a field's name, or whole."""
    honest = {"loss": MEAN(20.0, 40), **metrics().get_states()}
    for name, change in changes.items():
        key = {"counts": "multi-classif", "curve": "binary-roc"}.get(name, name)
        honest[key] = dataclasses.replace(honest[key], **change) if isinstance(change, dict) else change
    return honest


def evaluation(**changes: Any) -> messaging.EvaluationReply:
    """Make an honest reply to an evaluation, some of it changed."""
    honest: dict[str, Any] = {"loss": 0.5, "n_steps": 3, "t_spent": 0.1, "metrics": states()}
    return messaging.EvaluationReply(**{**honest, **changes})


INSPECTION = Inspection(vector(), ModelUpdates, metrics(), ["scaffold"])


def test_an_honest_reply_is_taken() -> None:
    """Nothing is wrong with a reply of the model's names, shapes and types, and of all steps there can be."""
    assert INSPECTION.fault_in_training(reply(), STEPS) is None
    assert INSPECTION.fault_in_training(reply(), None) is None
    assert INSPECTION.fault_in_training(reply(aux_var={"scaffold": ScaffoldAuxVar(delta=0.0)}), STEPS) is None
    assert INSPECTION.fault_in_training(reply(aux_var={}), STEPS) is None


def weighing(weight: float) -> messaging.TrainReply:
    """Make a reply whose updates claim a weight."""
    return dataclasses.replace(reply(), updates=ModelUpdates(vector(), weight))


def filled(value: float) -> np.ndarray[Any, Any]:
    """Make a layer with one value that no honest client sends."""
    layer = np.ones((2, 3), np.float32)
    layer[1, 2] = value
    return layer


def sending(**parts: Any) -> messaging.TrainReply:
    """Make a reply with auxiliary variables of SCAFFOLD."""
    return reply(aux_var={"scaffold": ScaffoldAuxVar(**parts)})


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (reply(vector(a=filled(np.nan))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(np.inf))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(-np.inf))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(1e30))), "its updates hold values above 1e+08 in a"),
        (reply(vector(a=np.ones((3, 2), np.float32))), "its updates have shape (3, 2) for a, not (2, 3)"),
        (reply(vector(a=np.ones((1, 1), np.float32))), "its updates have shape (1, 1) for a, not (2, 3)"),
        (reply(vector(a=np.ones((2, 3)))), "its updates hold values of type float64 in a, not float32"),
        (reply(vector(a=np.ones((2, 3), bool))), "its updates hold values of type bool in a, not float32"),
        (reply(vector(a=np.full((2, 3), "x"))), "its updates hold values of type <U1 in a, not float32"),
        (reply(vector(a=[[1.0] * 3] * 2)), "its updates hold a list for a"),
        (reply(vector(c=np.ones(1))), "its updates name 'c', which the model does not have"),
        (reply(vector(b=None)), "its updates lack b"),
        (reply(updates=3.0), "its updates hold no vector"),
        (reply(n_steps=STEPS + 1), "it claims 11 steps, its images allow 10"),
        (reply(n_steps=0), "it claims 0 steps"),
        (reply(n_steps=-5), "it claims -5 steps"),
        (reply(n_steps=1.5), "it claims 1.5 steps"),
        (reply(n_steps="many"), "it claims 'many' steps"),
        (weighing(1e6), "it claims a weight of 1000000.0 for 10 steps"),
        (weighing(float("nan")), "it claims a weight of nan for 10 steps"),
        (weighing(0), "it claims a weight of 0 for 10 steps"),
        (weighing(1e-30), "it claims a weight of 1e-30 for 10 steps"),
        (dataclasses.replace(reply(), updates=cast("ModelUpdates", {"a": 1})), "its updates are 'dict'"),
        (reply(t_spent=float("nan")), "it is malformed"),
        (reply(aux_var=[1]), "it is malformed"),
        (reply(aux_var=None), "it is malformed"),
        (reply(aux_var={"momentum": 1}), "it sends auxiliary variables 'momentum', which nobody asked for"),
        (reply(aux_var={"scaffold": 1}), "its auxiliary variables 'scaffold' are none of SCAFFOLD's"),
        (sending(state=vector()), "its auxiliary variables 'scaffold' are none of SCAFFOLD's"),
        (sending(delta="x"), "its auxiliary variables 'scaffold' are none of SCAFFOLD's"),
        (
            sending(delta=0.0, clients={"x", "y"}),
            "its auxiliary variables 'scaffold' are those of several clients",
        ),
        (sending(delta=vector(b=None)), "its auxiliary variables lack b"),
        (sending(delta=vector(a=filled(np.nan))), "its auxiliary variables hold values that are not finite in a"),
        (sending(delta=float("inf")), "its auxiliary variables hold values that are not finite"),
    ],
)
def test_a_dishonest_reply_is_told_by_what_is_wrong(changed: messaging.TrainReply, fault: str) -> None:
    """Each way in which a reply can be no honest one has words of its own."""
    assert INSPECTION.fault_in_training(changed, STEPS) == fault


def test_updates_are_of_the_kind_that_adds_up() -> None:
    """What the aggregator sums is of its own type, all of it, and of the model's own framework."""
    signed = GradientMaskedAveraging.updates_cls(vector(), STEPS, vector(b=None))
    assert INSPECTION.fault_in_training(dataclasses.replace(reply(), updates=signed), STEPS) == (
        "its updates are 'GMAModelUpdates'"
    )
    masked = Inspection(vector(), GradientMaskedAveraging.updates_cls, metrics(), ["scaffold"])
    assert masked.fault_in_training(dataclasses.replace(reply(), updates=signed), STEPS) == "its updates lack b"
    honest = dataclasses.replace(signed, up_sign=None)
    assert masked.fault_in_training(dataclasses.replace(reply(), updates=honest), STEPS) is None

    class Foreign(NumpyVector):
        """A vector of another framework."""

    native = Inspection(Foreign(dict(vector().coefs)), ModelUpdates, metrics())
    assert native.fault_in_training(reply(), STEPS) == "its updates are of type NumpyVector, not Foreign"


def test_weights_of_fairness_are_unbounded() -> None:
    """Where the server lets clients weigh their updates by what is fair, any finite weight is taken."""
    fair = Inspection(vector(), ModelUpdates, metrics(), ["scaffold"], bounds_weight=False)
    assert fair.fault_in_training(weighing(240.5), STEPS) is None
    assert fair.fault_in_training(weighing(-0.5), STEPS) is None
    assert fair.fault_in_training(weighing(float("inf")), STEPS) == "it claims a weight of inf for 10 steps"


def test_an_update_is_as_large_as_its_weight_makes_it() -> None:
    """A value is divided by the weight it is sent with, and judged by what comes of it."""
    fair = Inspection(vector(), ModelUpdates, metrics(), ["scaffold"], bounds_weight=False)
    assert fair.fault_in_training(weighing(1e-9), STEPS) == "its updates hold values above 0.1 in a"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"metrics": {}}, None),
        ({"loss": float("nan")}, "its loss is nan"),
        ({"loss": float("inf")}, "its loss is inf"),
        ({"loss": 10**400}, "its loss is " + "1" + "0" * 59),
        ({"loss": -1.0}, "its loss is -1.0"),
        ({"loss": "low"}, "its loss is 'low'"),
        ({"n_steps": 0}, "it is malformed"),
        ({"metrics": 7}, "it is malformed"),
        ({"metrics": {}, "n_steps": 41}, "its metrics count 41 images, it holds 40"),
        ({"metrics": {"loss": MEAN(1.0, 2)}}, "its metrics lack, or add, 'binary-roc, multi-classif, r2'"),
        ({"metrics": states(more=1)}, "its metrics lack, or add, 'more'"),
        ({"metrics": states(loss=[1, 2])}, "its metrics hold 'list' for loss"),
        ({"metrics": states(curve=MEAN())}, "its metrics hold 'MeanState' for binary-roc"),
        ({"metrics": states(loss={"num_sum": float("nan")})}, "its metrics hold values that are not finite"),
        ({"metrics": states(loss={"num_sum": "x"})}, "its metrics can't be added to others'"),
        ({"metrics": states(loss={"num_sum": np.ones(3)})}, "its metrics have another shape for loss"),
        ({"metrics": states(loss={"num_sum": -3.0})}, "its metrics hold a sum of -3.0 over 40 images"),
        ({"metrics": states(loss={"divisor": 0})}, "its metrics hold a sum of 20.0 over 0 images"),
        ({"metrics": states(loss={"divisor": 1e6})}, "its metrics count 1e+06 images, it holds 40"),
        ({"metrics": states(counts={"confmat": np.array([[np.nan]])})}, "its metrics hold values that are not finite"),
        ({"metrics": states(counts={"confmat": np.array([[1e30]])})}, "its metrics hold values above 1e+08"),
        ({"metrics": states(counts={"confmat": np.ones((3, 3))})}, "its metrics can't be added to others'"),
        ({"metrics": states(counts={"confmat": np.eye(2) * 1e6})}, "its metrics count 2e+06 images, it holds 40"),
        ({"metrics": states(counts={"confmat": np.eye(2) - 1})}, "its metrics count less than no image"),
        ({"metrics": states(curve={"thresh": np.ones(1)})}, "its metrics have another shape for binary-roc"),
        ({"metrics": states(curve={"fpos": np.arange(11.0)})}, "its metrics hold no curve"),
    ],
)
def test_an_evaluation_is_looked_at_too(changes: dict[str, Any], fault: str | None) -> None:
    """Figures that would spoil the average of all, or could not be added to it, are one client's fault."""
    assert INSPECTION.fault_in_evaluation(evaluation(**changes), 40) == fault


def test_what_a_client_holds_may_be_unknown() -> None:
    """A site with its own validation images says how many they are, and is believed."""
    assert INSPECTION.fault_in_evaluation(evaluation(metrics=states(loss={"divisor": 1e6})), None) is None


def test_looking_changes_nothing() -> None:
    """The metrics that a run goes by are not those that an inspection tries figures on."""
    used = metrics()
    before = copy.deepcopy(used.get_states())
    assert Inspection(vector(), ModelUpdates, used).fault_in_evaluation(evaluation(), 40) is None
    assert repr(used.get_states()) == repr(before)


def test_an_update_of_an_earlier_round_is_recognised() -> None:
    """An update that a client has sent in a round that counted is told by that round, another client's is not."""
    repeats = Repeats()
    first, second = reply(vector(a=filled(2.0))), reply(vector(a=filled(3.0)))
    repeats.remember(4, {"a": first, "b": second})
    assert repeats.fault("a", first) == "its updates are those that it sent in round 4"
    assert repeats.fault("a", dataclasses.replace(first, n_steps=2)) is not None
    assert repeats.fault("a", second) is None
    assert repeats.fault("c", first) is None


def test_nothing_may_be_learned_twice() -> None:
    """An update of zeros, as of a rate of zero, is no repetition; nor is one of a round that is run again."""
    repeats = Repeats()
    nothing = reply(vector(a=np.zeros((2, 3), np.float32)))
    repeats.remember(1, {"a": nothing})
    assert repeats.fault("a", nothing) is None
    assert repeats.fault("a", reply()) is None
    assert repeats.fault("a", reply()) is None


@pytest.mark.parametrize(
    ("value", "finite"),
    [(1, True), (0.5, True), (np.float32(2), True), (True, False), ("1", False), (None, False), (float("nan"), False)],
)
def test_a_number_is_finite(value: object, finite: bool) -> None:  # noqa: FBT001 - pytest's parameter
    """What is no number, or none that can be reckoned with, is told from what is."""
    assert is_number(value) is finite


def test_a_sum_that_makes_no_sense_is_told() -> None:
    """What all clients' encrypted updates came to has to be a finite update of the model."""
    assert INSPECTION.fault_in_sum(reply()) is None
    assert INSPECTION.fault_in_sum(weighing(0)) == "it claims a weight of 0"
    spoiled = reply(vector(a=filled(np.nan)))
    assert INSPECTION.fault_in_sum(spoiled) == "its updates hold values that are not finite in a"


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "steps", "most"),
    [(100, 32, 1, None, 4), (96, 32, 1, None, 3), (100, 32, 3, None, 12), (100, 32, 3, 5, 5), (7, 32, 2, None, 2)],
)
def test_images_bound_the_steps(images: int, batch: int, epochs: int, steps: int | None, most: int) -> None:
    """A client can't have made more steps than its images hold batches, short ones included."""
    assert most_steps(images, batch, epochs, steps) == most
