"""Replies of clients, honest and not."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import ModelUpdates
from declearn.model.sklearn import NumpyVector
from declearn.optimizer.modules import ScaffoldAuxVar

from services.server.inspection import Inspection, most_steps

STEPS = 10


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


INSPECTION = Inspection(vector(), ModelUpdates)


def test_an_honest_reply_is_taken() -> None:
    """Nothing is wrong with a reply of the model's names and shapes, of any float type and all steps there can be."""
    assert INSPECTION.fault_in_training(reply(), STEPS) is None
    assert INSPECTION.fault_in_training(reply(vector(a=np.ones((2, 3)))), None) is None
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


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (reply(vector(a=filled(np.nan))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(np.inf))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(-np.inf))), "its updates hold values that are not finite in a"),
        (reply(vector(a=filled(1e30))), "its updates hold values above 1e+08 in a"),
        (reply(vector(a=np.ones((3, 2)))), "its updates have shape (3, 2) for a, not (2, 3)"),
        (reply(vector(a=np.ones((1, 1)))), "its updates have shape (1, 1) for a, not (2, 3)"),
        (reply(vector(a=np.full((2, 3), "x"))), "its updates hold values of type <U1 in a"),
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
        (dataclasses.replace(reply(), updates=cast("ModelUpdates", {"a": 1})), "its updates are 'dict'"),
        (reply(t_spent=float("nan")), "it is malformed"),
        (reply(aux_var=[1]), "it is malformed"),
        (
            reply(aux_var={"scaffold": ScaffoldAuxVar(delta=vector(a=filled(np.nan)))}),
            "its auxiliary variables hold values that are not finite in a",
        ),
        (
            reply(aux_var={"scaffold": ScaffoldAuxVar(delta=float("inf"))}),
            "its auxiliary variables hold values that are not finite",
        ),
    ],
)
def test_a_dishonest_reply_is_told_by_what_is_wrong(changed: messaging.TrainReply, fault: str) -> None:
    """Each way in which a reply can be no honest one has words of its own."""
    assert INSPECTION.fault_in_training(changed, STEPS) == fault


def test_weights_of_fairness_are_unbounded() -> None:
    """Where the server lets clients weigh their updates by what is fair, any finite weight is taken."""
    fair = Inspection(vector(), ModelUpdates, bounds_weight=False)
    assert fair.fault_in_training(weighing(240.5), STEPS) is None
    assert fair.fault_in_training(weighing(-0.5), STEPS) is None
    assert fair.fault_in_training(weighing(float("inf")), STEPS) == "it claims a weight of inf for 10 steps"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"loss": float("nan")}, "its loss is nan"),
        ({"loss": float("inf")}, "its loss is inf"),
        ({"loss": "low"}, "its loss is 'low'"),
        ({"n_steps": -1}, "it is malformed"),
        ({"metrics": 7}, "it is malformed"),
        ({"metrics": {"m": {"confm": np.array([[np.nan]])}}}, "its metrics hold values that are not finite"),
        ({"metrics": {"m": {"confm": np.array([[1e30]])}}}, "its metrics hold values above 1e+08"),
    ],
)
def test_an_evaluation_is_looked_at_too(changes: dict[str, Any], fault: str | None) -> None:
    """Figures that would spoil the average of all are one client's fault."""
    honest: dict[str, Any] = {"loss": 0.5, "n_steps": 3, "t_spent": 0.1, "metrics": {"m": {"confm": np.eye(2)}}}
    assert INSPECTION.fault_in_evaluation(messaging.EvaluationReply(**{**honest, **changes})) == fault


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "steps", "most"),
    [(100, 32, 1, None, 4), (96, 32, 1, None, 3), (100, 32, 3, None, 12), (100, 32, 3, 5, 5), (7, 32, 2, None, 2)],
)
def test_images_bound_the_steps(images: int, batch: int, epochs: int, steps: int | None, most: int) -> None:
    """A client can't have made more steps than its images hold batches, short ones included."""
    assert most_steps(images, batch, epochs, steps) == most
