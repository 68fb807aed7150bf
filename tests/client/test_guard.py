"""Messages of a server: read as plain data, and made into nothing that was not looked at."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.messaging import Message
from declearn.model.sklearn import NumpyVector, SklearnSGDModel
from declearn.model.tensorflow import TensorflowModel
from declearn.optimizer import Optimizer
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.utils.serialize import msgpack_serialize
from declearn.utils.serialize._base import _DESERIAL_REGISTRY

from services.client.guard import COPIES, Guard
from services.client.training import local
from services.errors import DistrustError
from services.experiment import Plan
from services.schedules import ScheduledOptimizer
from services.server.model import build_model
from services.transport.client import FIRST_MESSAGES
from services.transport.messages import ClientState, Deal
from services.transport.precision import narrowed

TRAIN: dict[str, Any] = {
    "round_i": 1,
    "weights": None,
    "aux_var": {},
    "batches": {"batch_size": 10},
    "n_epoch": 1,
    "n_steps": None,
    "timeout": None,
}


def packed(kind: type[Message], fields: Any) -> bytes:
    """Write a message of any fields."""
    typekey = kind.typekey.encode()
    return bytes([len(typekey)]) + typekey + msgpack_serialize(fields)


def typed(kind: str, dump: Any) -> dict[str, Any]:
    """Write what stands for an object of declearn's."""
    return {"__type__": kind, "dump": dump}


def array(values: Any, dtype: str = "f") -> dict[str, Any]:
    """Write an array as declearn does."""
    data = np.asarray(values, dtype)
    return typed("np.ndarray", [data.tobytes(), data.dtype.char, list(data.shape)])


@pytest.fixture(scope="module")
def model() -> TensorflowModel:
    """A model of two weights: (784, 10) and (10,)."""
    return cast("TensorflowModel", build_model(Plan.model_validate({"model": "logistic"})))


@pytest.fixture
def guard(model: TensorflowModel) -> Guard:
    """A client's guard once that model is set up."""
    made = Guard(1_000_000)
    request = messaging.InitRequest(model=model, optim=Optimizer(0.1), aggrg=AveragingAggregator())
    received = cast("messaging.InitRequest", made.read(request.serialize()).deserialize())
    made.accept(local(received.model))
    return made


def refusal(guard: Guard, content: bytes) -> str:
    """Give the line with which a message is refused."""
    with pytest.raises(DistrustError) as caught:
        guard.read(content).deserialize()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what passes ------------------------------------------------------------------------------------------------------


def test_a_client_is_set_up(model: TensorflowModel) -> None:
    """A model, an optimizer and an aggregator come out as they were sent, and its weights bound what comes later."""
    optim = Optimizer(("warmup", {"base": ("linear-decay", {"base": 0.5, "rate": 0.1}), "warmup": 3}), modules=["adam"])
    request = messaging.InitRequest(model=model, optim=optim, aggrg=AveragingAggregator(), metrics=[("mse", {})])
    guard = Guard(10_000)
    message = cast("messaging.InitRequest", guard.read(request.serialize()).deserialize())
    assert list(message.model.get_weights().coefs) == list(model.get_weights().coefs)
    assert message.optim.get_config() == optim.get_config()
    assert message.aggrg.get_config() == AveragingAggregator().get_config()
    assert cast("Any", message.metrics) == [["mse", {}]]
    assert guard.accept(local(message.model)) == FIRST_MESSAGES + COPIES * 4 * 7850


def test_weights_and_variables_pass(guard: Guard, model: TensorflowModel) -> None:
    """What a round begins with comes out as it was sent: weights, and variables of SCAFFOLD."""
    weights = model.get_weights(trainable=True)
    variables = {"scaffold": ScaffoldAuxVar(state=weights * 0.5)}
    sent = messaging.TrainRequest(**{**TRAIN, "weights": weights, "aux_var": variables})
    received = cast("messaging.TrainRequest", guard.read(sent.serialize()).deserialize())
    assert received.weights == weights
    assert cast("Any", received.aux_var["scaffold"]).state == weights * 0.5
    plain = messaging.TrainRequest(**{**TRAIN, "aux_var": {"scaffold": ScaffoldAuxVar(state=0.0)}})
    assert cast("Any", guard.read(plain.serialize()).deserialize()) == plain


def test_weights_of_float16_become_the_model_s_type(guard: Guard, model: TensorflowModel) -> None:
    """Weights that travelled as float16 are float32 when read, and those that did not stay; shapes count as ever."""
    weights = model.get_weights(trainable=True) + 70_000.0
    (bias,) = (name for name, value in weights.coefs.items() if np.shape(value) == (10,))
    mixed = type(weights)({**narrowed(weights * 1e-5).coefs, bias: weights.coefs[bias]})
    sent = messaging.EvaluationRequest(1, mixed, {"batch_size": 10}, None, None)
    received = cast("messaging.EvaluationRequest", guard.read(sent.serialize()).deserialize())
    assert received.weights is not None
    assert {np.asarray(value).dtype for value in received.weights.coefs.values()} == {np.dtype(np.float32)}
    assert np.asarray(received.weights.coefs[bias]).min() >= 70_000
    shaped = {**{name: array(value, "e") for name, value in weights.pack().items()}, bias: array([1.0], "e")}
    line = f"the server sent {bias} of shape (1,); wanted (10,), as in its model"
    assert refusal(guard, packed(messaging.TrainRequest, {**TRAIN, "weights": typed("NumpyVector", shaped)})) == line


@pytest.mark.parametrize("modules", [["adam"], ["momentum", "yogi"], ["scaffold-client"], ["gaussian-noise"], []])
def test_an_optimizer_s_state_passes(guard: Guard, model: TensorflowModel, modules: list[str]) -> None:
    """A state that a client has sent comes back to it, and fits."""
    optim = ScheduledOptimizer(
        ("warmup", {"base": ("linear-decay", {"base": 0.5, "rate": 0.1}), "warmup": 3}), modules=modules
    )
    optim.compute_updates_from_gradients(model, model.get_weights(trainable=True))
    state = guard.state(msgpack_serialize(optim.get_state()))
    again = ScheduledOptimizer.of(optim)
    again.set_state(state)
    assert again.get_state()["lrate"] == optim.get_state()["lrate"]
    assert [name for name, _ in again.get_state()["modules"]] == [module.name for module in optim.modules]


# -- what is refused --------------------------------------------------------------------------------------------------

MODEL = typed("SklearnSGDModel", {"kind": "classifier", "params": {}})
PLACES: list[tuple[type[Message], dict[str, Any]]] = [
    (messaging.TrainRequest, {**TRAIN, "weights": MODEL}),
    (messaging.TrainRequest, {**TRAIN, "aux_var": {"scaffold": MODEL}}),
    (messaging.TrainRequest, {**TRAIN, "aux_var": {"scaffold": typed("AuxVar>ScaffoldAuxVar", {"state": MODEL})}}),
    (messaging.TrainRequest, {**TRAIN, "weights": typed("NumpyVector", {"a": MODEL})}),
    (messaging.StopTraining, {"weights": MODEL, "loss": 0.0, "rounds": 1}),
    (messaging.FairnessGroups, {"groups": [[MODEL]]}),
]


@pytest.mark.parametrize(("kind", "fields"), PLACES)
def test_a_model_is_built_in_no_other_place(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, kind: type[Message], fields: dict[str, Any]
) -> None:
    """A model in place of weights, variables or names, which declearn builds as it reads, is refused unbuilt."""
    built: list[Any] = []
    monkeypatch.setattr(_DESERIAL_REGISTRY["msgpack"]["SklearnSGDModel"], "decoder", built.append)
    assert refusal(guard, packed(kind, fields)).startswith(
        "the server's message holds 'SklearnSGDModel'; wanted numbers"
    )
    assert built == []


@pytest.mark.parametrize(
    "kind",
    ["TensorflowModel", "TorchModel", "HaikuModel", "Optimizer", "VectorSpec", "AveragingAggregator", "os.system"],
)
def test_past_the_set_up_there_are_numbers_alone(guard: Guard, kind: str) -> None:
    """Nothing but arrays, vectors and variables is made of a message, nor is anything imported for it."""
    content = packed(messaging.TrainRequest, {**TRAIN, "aux_var": {"x": typed(kind, {})}})
    assert refusal(guard, content).startswith(f"the server's message holds '{kind}'; wanted numbers alone")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (typed("np.ndarray", [b"\x00" * 8, "O", [1]]), "holds np.ndarray that is none"),
        (typed("np.ndarray", [b"", "V1000000000", [0]]), "holds np.ndarray that is none"),
        (typed("np.ndarray", [b"\x00" * 8, "f", [-1]]), "holds np.ndarray that is none"),
        (typed("np.ndarray", [b"\x00" * 8, "f", ["2"]]), "holds np.ndarray that is none"),
        (typed("np.ndarray", [b"\x00" * 8, "f", [3]]), "can't be read (ValueError("),
        (typed("np.ndarray", [b"\x00" * 7, "f", [2]]), "can't be read (ValueError("),
        (typed("np.ndarray", [b"\x00" * 8, "e", [2**40]]), "holds np.ndarray that is none"),
        (typed("np.ndarray", "x"), "holds np.ndarray that is none"),
        (
            typed("TensorflowVector", {"a": ["slices", array([1]), array([0], "l"), array([10**15], "l")]}),
            "holds Tensorf",
        ),
        (typed("TensorflowVector", [1]), "holds TensorflowVector that is none"),
        (typed("NumpyVector", {"a": 3}), "holds NumpyVector that is none"),
        (typed("set", [1, 2]), "holds set that is none"),
        (typed("int", b"\xff" * 2000), "holds int that is none"),
        (typed("int", "7"), "holds int that is none"),
        (typed("AuxVar>ScaffoldAuxVar", {"hook": 1}), "can't be read (TypeError("),
        (typed("AuxVar>ScaffoldAuxVar", {}), "can't be read (ValueError("),
        (typed("np.ndarray", typed("np.ndarray", [])), "holds np.ndarray that is none"),
    ],
)
def test_numbers_are_what_they_say(guard: Guard, value: Any, line: str) -> None:
    """Arrays of objects, of other sizes, sparse ones of any size, huge integers and sets of them are refused."""
    found = refusal(guard, packed(messaging.TrainRequest, {**TRAIN, "aux_var": {"x": value}}))
    assert found.startswith(("the server's message ", "the server's train_request "))
    assert line in found


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"a": array([1.0])}, "the server's weights lack, or add, a; wanted those of its model"),
        ({}, "the server's weights lack, or add, classes/bias:0; wanted those of its model"),
        (
            {"classes/kernel:0": array(np.zeros((784, 11))), "classes/bias:0": array(np.zeros(10))},
            "the server sent classes/kernel:0 of shape (784, 11); wanted (784, 10), as in its model",
        ),
    ],
)
def test_weights_are_those_of_the_model(guard: Guard, weights: dict[str, Any], line: str) -> None:
    """Weights of other names or shapes are refused before anything is trained on them."""
    content = packed(messaging.TrainRequest, {**TRAIN, "weights": typed("TensorflowVector", weights)})
    assert refusal(guard, content) == line
    inner = typed("AuxVar>ScaffoldAuxVar", {"state": typed("TensorflowVector", {"a": array(np.zeros(3))})})
    content = packed(messaging.TrainRequest, {**TRAIN, "aux_var": {"scaffold": inner}})
    assert refusal(guard, content) == "the server sent a, which its model does not have"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ([], "the server's state of an optimizer is none"),
        ({"lrate": {}, "w_decay": {}}, "the server's state of an optimizer is none"),
        (
            {"lrate": {"steps": -(10**9)}, "w_decay": {}, "modules": []},
            "the server's state of an optimizer has counters",
        ),
        ({"lrate": {"steps": "1"}, "w_decay": {}, "modules": []}, "the server's state of an optimizer has counters"),
        ({"lrate": {}, "w_decay": {}, "modules": [3]}, "the server's state of an optimizer has modules that are none"),
        (
            {"lrate": MODEL, "w_decay": {}, "modules": []},
            "the server's message holds 'SklearnSGDModel'; wanted numbers",
        ),
        (
            {
                "lrate": {},
                "w_decay": {},
                "modules": [["adam", {"state": typed("TensorflowVector", {"x": array([1])})}]],
            },
            "the server sent x, which its model does not have",
        ),
    ],
)
def test_a_state_is_one_of_an_optimizer(guard: Guard, state: Any, line: str) -> None:
    """What a server gives back as a client's own is looked at like anything else."""
    with pytest.raises(DistrustError) as caught:
        guard.state(msgpack_serialize(state))
    assert str(caught.value).startswith(line)
    with pytest.raises(DistrustError, match="the server's state of an optimizer is none: it can't be read"):
        guard.state(b"\xc1")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the server's message is none: "),
        (b"\x05hello\x80", "the server's message is none: "),
        (b"\xff\xff", "the server's message is none: "),
        (packed(Deal, [1]), "the server sent 'fed_deal' without fields"),
        (packed(Deal, {})[:-1] + b"\xc1", "the server's fed_deal is none: it can't be read"),
        (packed(ClientState, {"state": [[]] * 250_000}), "the server's fed_client_state is none: it"),
        (packed(messaging.FairnessGroups, {"groups": 3}), "the server's fairness-groups can't be read (TypeError("),
        (packed(messaging.InitRequest, 3), "the server's set-up is "),
    ],
)
def test_what_is_no_message_is_one_line(guard: Guard, content: bytes, line: str) -> None:
    """Bytes of no kind, of no fields, of too many parts or of others' fields are told in one line."""
    with pytest.raises(DistrustError) as caught:
        guard.read(content).deserialize()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_lists_within_lists_come_to_an_end(guard: Guard) -> None:
    """Nesting as deep as message packs allow is refused, not followed to the end of the stack."""
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    content = packed(messaging.TrainRequest, {**TRAIN, "aux_var": {"x": deep}})
    assert refusal(guard, content).startswith("the server's train_request can't be read (RecursionError(")


def test_work_has_images_and_a_size(guard: Guard) -> None:
    """A round without images, which has no end, is refused, and so is a batch that takes too much."""
    guard.check_work(64, 1000)
    with pytest.raises(DistrustError, match="the server asks for a round before it has dealt any images"):
        guard.check_work(64, 0)
    with pytest.raises(DistrustError, match="numbers of a batch of 100000; wanted at most 100,000,000"):
        guard.check_work(100_000, 200_000)
    guard.check_work(100_000, 1000)


def test_a_linear_model_is_guarded_too() -> None:
    """scikit-learn's model is set up, and weights of another shape, which it would take, are refused."""
    made = Guard(10_000)
    sent = build_model(Plan.model_validate({"model": {"sklearn": {}}}))
    request = messaging.InitRequest(model=sent, optim=Optimizer(0.1), aggrg=AveragingAggregator())
    received = cast("messaging.InitRequest", made.read(request.serialize()).deserialize())
    assert isinstance(received.model, SklearnSGDModel)
    made.accept(local(received.model))
    weights = NumpyVector({"coef": np.zeros((10, 785)), "intercept": np.zeros(10)})
    content = messaging.TrainRequest(**{**TRAIN, "weights": weights}).serialize()
    assert refusal(made, content) == "the server sent coef of shape (10, 785); wanted (10, 784), as in its model"


def test_bytes_of_no_type_are_none(guard: Guard) -> None:
    """Types of message packs that declearn does not use are refused."""
    content = bytes([len(Deal.typekey)]) + Deal.typekey.encode() + msgpack.packb({"size": msgpack.ExtType(7, b"x")})
    assert refusal(guard, content).startswith("the server's fed_deal is none: it holds 1 bytes of an unknown type")
