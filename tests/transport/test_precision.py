"""Weights and updates as float16: what is lost on the way, what is not sent so, and whole federations of it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from declearn import messaging
from declearn.messaging import Message
from declearn.model.api import Vector
from declearn.model.sklearn import NumpyVector
from declearn.model.tensorflow import TensorflowVector
from numpy.typing import NDArray

from services.errors import TrainingError
from services.paths import Paths
from services.server import checkpoint
from services.transport.precision import LARGEST_ERROR, narrowed, types_of, widened
from tests.faults.dishonest_client import forger
from tests.federation import Federation, Forger, plan, run

RNG = np.random.default_rng(0)

KINDS: list[type[Vector[Any]]] = [NumpyVector, TensorflowVector]


def sent(kind: type[Vector[Any]], array: NDArray[Any]) -> NDArray[Any]:
    """Give an array as it is on the wire."""
    (found,) = narrowed(kind.unpack({"a": array})).pack().values()
    return np.asarray(found)


# -- one vector -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("type_", [np.float32, np.float64])
def test_what_float16_holds_comes_out_nearly_as_it_was(kind: type[Vector[Any]], type_: Any) -> None:
    """Each value loses half a unit of the eleventh binary digit at most, and has its type again at the other end."""
    arrays = {"a": RNG.normal(size=(30, 20)).astype(type_), "b": np.zeros(5, type_), "c": np.ones((), type_)}
    vector = kind.unpack(arrays)
    half = narrowed(vector)
    assert type(half) is kind
    assert {array.dtype for array in half.pack().values()} == {np.dtype(np.float16)}
    found = widened(half, types_of(vector)).pack()
    for name, array in arrays.items():
        assert found[name].dtype == type_
        np.testing.assert_allclose(found[name], array, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [65_520.0, -1e30, 3.4e38, np.nan, np.inf, 1e-7, 1e-30, 1e-44])
def test_what_float16_can_not_hold_goes_as_it_is(kind: type[Vector[Any]], value: float) -> None:
    """Values too large, not finite or too small leave their array as it was, to the last bit; others don't mind."""
    array = np.full((4, 3), value, np.float32)
    half = narrowed(kind.unpack({"a": array, "b": np.ones(3, np.float32)})).pack()
    assert half["a"].dtype == np.float32
    np.testing.assert_array_equal(half["a"], array)
    assert half["b"].dtype == np.float16


def test_an_array_is_judged_by_its_norm() -> None:
    """Small values beside larger ones may be rounded away, as long as that is little of them all."""
    array = np.array([1.0, 1e-9], np.float32)
    np.testing.assert_array_equal(sent(NumpyVector, array), np.array([1.0, 0.0], np.float16))
    for scale in 10.0 ** np.arange(-9, 5):
        values = (RNG.normal(size=1000) * scale).astype(np.float32)
        lost = np.linalg.norm(sent(NumpyVector, values).astype(np.float64) - values)
        assert lost < LARGEST_ERROR * np.linalg.norm(values.astype(np.float64))


@pytest.mark.parametrize("type_", [np.int64, np.uint8, np.bool_, np.float16])
def test_what_is_no_wider_float_is_left_alone(type_: Any) -> None:
    """Whole numbers, and what is of float16 anyway, go as they are, and come out so."""
    vector = NumpyVector({"a": np.ones(3, type_)})
    assert sent(NumpyVector, vector.coefs["a"]).dtype == type_
    assert widened(vector, types_of(vector)) == vector


def test_strange_arrays_are_not_touched() -> None:
    """Names that the model lacks, and other types, are left for whoever looks at a vector next."""
    types = {"a": np.dtype(np.float32)}
    strange = NumpyVector({"a": np.ones(3, np.float64), "b": np.ones(3, np.float16)})
    assert widened(strange, types) is strange


# -- whole federations ------------------------------------------------------------------------------------------------


def sizes(federation: Federation) -> list[tuple[float, float]]:
    """Give bytes sent and received a client, as shares of the model's size, for each round after the first.

    In its first round a client is sent the model that it trains, and the trained one to evaluate; later the latter is
    what the next round begins with.
    """
    state = checkpoint.load(federation.paths.results / "latest")
    assert state is not None
    full = sum(4 * np.asarray(value).size for value in state.weights.coefs.values())
    return [
        (int(row["bytes_sent"]) / int(row["clients"]) / full, int(row["bytes_received"]) / int(row["clients"]) / full)
        for row in federation.table("history.csv")[1:]
    ]


def outcome(federation: Federation) -> NDArray[Any]:
    """Give the loss and accuracy on the test images, and the loss on the clients', of each round."""
    columns = ("loss", "test_loss", "test_accuracy")
    return np.array([[float(row[column]) for column in columns] for row in federation.table("history.csv")])


def test_a_round_costs_the_model_once_each_way_and_half_of_it_as_float16(small: Paths) -> None:
    """Without compression both ways are within 1.02 of the model's size, as float16 0.52, and it learns alike."""
    whole, half = (Federation(small, plan(rounds=4, compression=kind)) for kind in ("none", "float16"))
    run(whole.play())
    plain, expected = sizes(whole), outcome(whole)
    run(half.play())
    assert all(1 < size <= 1.02 for pair in plain for size in pair)
    assert all(0.5 < size <= 0.52 for pair in sizes(half) for size in pair)
    np.testing.assert_allclose(outcome(half), expected, rtol=0.01)
    state = checkpoint.load(small.results / "latest")
    assert state is not None
    assert {np.asarray(value).dtype for value in state.weights.coefs.values()} == {np.dtype(np.float32)}


def test_a_run_of_float16_that_is_resumed_equals_one_that_is_not(small: Paths) -> None:
    """Stopped and taken up, a deterministic run learns the same to the last digit: the server rounds no model."""
    federation = Federation(small, plan(rounds=4, compression="float16", deterministic=True))
    run(federation.play())
    learned = federation.learned()
    run(federation.play(stop_before=3))
    assert federation.learned() == learned


def test_a_client_that_knows_nothing_of_it_exchanges_float32(small: Paths) -> None:
    """Who does not announce float16 is sent the model as it is, and answers so, beside others in the same round."""
    federation = Federation(small, plan(rounds=3, compression="float16"))

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(0), federation.client(1, halves=False)]
            await server
            for client in clients:
                await client

    run(scene())
    rows = {
        name: [row for row in federation.table("clients.csv")[2:] if row["client"] == name]
        for name in ("client_0", "client_1")
    }
    for column in ("bytes_sent", "bytes_received"):
        for lean, full in zip(rows["client_0"], rows["client_1"], strict=True):
            assert 0.5 < int(lean[column]) / int(full[column]) < 0.52
    assert all(row["state"] == "trained" for part in rows.values() for row in part)


SCAFFOLD = {"client": {"modules": ["scaffold-client"]}, "server": {"modules": ["scaffold-server"]}}

BESIDE: dict[str, dict[str, Any]] = {
    "sklearn": {"model": {"sklearn": {}}},
    "scaffold": {"optimizer": SCAFFOLD},
    "masked": {"aggregator": "gradient-masked-averaging"},
    "norm": {"robust": {"max_update_norm": 0.5}},
    "median": {"robust": {"aggregator": "median"}},
    "dp-sgd": {"model": "cnn-tanh", "privacy": {"epsilon": 50.0, "max_grad_norm": 1.0}},
    "central": {
        "privacy": {"kind": "central", "epsilon": 500.0, "max_grad_norm": 1.0},
        "aggregator": {"averaging": {"steps_weighted": False}},
    },
    "fairness": {"fairness": {"algorithm": "fairgrad", "groups": "class"}},
    "sampling": {"sampling": {"criterion": {"n_samples": 1, "criterion": "gradient_norm"}}},
}


@pytest.mark.parametrize("name", BESIDE)
def test_float16_goes_with_what_a_plan_may_add(small: Paths, name: str) -> None:
    """Each method that reads or changes updates works on what has become the model's own type again."""
    federation = Federation(small, plan(compression="float16", **BESIDE[name]))
    run(federation.play())
    assert (federation.summary["status"], federation.summary["rounds"]) == ("completed", 2)
    assert np.isfinite(federation.summary["test_loss"])
    states = {row["state"] for row in federation.table("clients.csv")}
    assert states == ({"trained", "idle"} if name == "sampling" else {"trained"})


def halved(value: float | None = None, *, shape: bool = False) -> Forger:
    """Forge updates of float16 with one value in place of the first, or with another shape."""

    def forge(message: Message) -> Message:
        if not isinstance(message, messaging.TrainReply):
            return message
        vector = message.updates.updates
        arrays = {name: np.array(array, np.float16) for name, array in vector.pack().items()}
        name = min(arrays)
        if value is not None:
            arrays[name].flat[0] = value
        if shape:
            arrays[name] = arrays[name][..., np.newaxis]
        updates = dataclasses.replace(message.updates, updates=type(vector).unpack(arrays))
        return dataclasses.replace(message, updates=updates)

    return forge


@pytest.mark.parametrize(
    ("forge", "fault"),
    [
        (halved(np.nan), "its updates hold values that are not finite in "),
        (halved(-np.inf), "its updates hold values that are not finite in "),
        (halved(shape=True), r"its updates have shape \(.*, 1\) for "),
        (forger("dtype"), "its updates hold values of type float64 in .*, not float32"),
        (forger("nan"), "its updates hold values that are not finite in "),
        (forger("names"), "its updates name "),
    ],
)
def test_hostile_updates_of_float16_are_refused_as_others_are(small: Paths, forge: Forger, fault: str) -> None:
    """What is no update of the model's is refused with its reason, whatever it travelled as; the others go on."""
    federation = Federation(small, plan(compression="float16"), clients=3)
    run(federation.play_with(None, forge, None))
    assert federation.summary["status"] == "completed"
    rows = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert [row["state"] for row in rows] == ["refused", "refused"]
    assert all(re.match(fault, row["reason"]) for row in rows)


def test_updates_too_large_for_float16_arrive_as_they_are(small: Paths) -> None:
    """Where a rate makes updates that float16 can't hold, a federation ends as it does without: told, not corrupted."""
    federation = Federation(
        small, plan(compression="float16", optimizer={"client": {"lrate": 1e30, "modules": []}}), clients=2
    )
    with pytest.raises(TrainingError, match="round 1: no client's reply can be used"):
        run(federation.play_with(None, None))


def test_nobody_sends_float16_that_was_not_agreed_on(small: Paths) -> None:
    """In a run without compression an update of float16 is another type than the model's, and refused."""
    federation = Federation(small, plan(), clients=3)
    run(federation.play_with(None, halved(), None))
    rows = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert [row["state"] for row in rows] == ["refused", "refused"]
    assert all(re.match("its updates hold values of type float16 in .*, not float32", row["reason"]) for row in rows)
