"""The form of encrypted replies, honest and not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.messaging import SerializedMessage
from declearn.metrics import BinaryRocAUC, MeanSquaredError, MulticlassAccuracyPrecisionRecall
from declearn.model.sklearn import NumpyVector
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.secagg.api import Decrypter, Encrypter
from declearn.secagg.joye_libert import JoyeLibertDecrypter, JoyeLibertEncrypter
from declearn.secagg.masking import MaskingDecrypter, MaskingEncrypter
from declearn.secagg.messaging import SecaggEvaluationReply, SecaggTrainReply

from services.server.sealed import SealedForm

WEIGHTS = NumpyVector({"a": np.ones((2, 3), "float32"), "b": np.zeros((), "float32")})
METRICS = {
    metric.name: metric.get_states()
    for metric in (MulticlassAccuracyPrecisionRecall(labels=[0, 1]), BinaryRocAUC(bound=(0.0, 1.0)))
} | {"loss": MeanSquaredError().get_states()}
FORM = SealedForm(
    AveragingAggregator().prepare_for_sharing(WEIGHTS, 1),
    METRICS,
    {"scaffold": ScaffoldAuxVar(delta=WEIGHTS, clients={"client"})},
)


def pair(kind: str) -> tuple[Encrypter, Decrypter]:
    """Make what one client encrypts with, and what the server decrypts with."""
    if kind == "masking":
        return MaskingEncrypter([1], [2]), MaskingDecrypter(n_peers=2)
    return JoyeLibertEncrypter(prv_key=12345), JoyeLibertDecrypter(pub_key=-54321, n_peers=2)


def sent(message: Any) -> Any:
    """Carry a message over the wire, as plain values come out of it."""
    return SerializedMessage.from_bin_message(message.serialize()).deserialize()


def trained(encrypter: Encrypter) -> Any:
    """Make an honest encrypted reply to a training request."""
    reply = messaging.TrainReply(
        n_epoch=1,
        n_steps=7,
        t_spent=0.5,
        updates=AveragingAggregator().prepare_for_sharing(WEIGHTS * 0.1, 7),
        aux_var={"scaffold": ScaffoldAuxVar(delta=WEIGHTS * 0.2, clients={"5c1a"})},
    )
    return sent(SecaggTrainReply.from_cleartext_message(reply, encrypter))


def evaluated(encrypter: Encrypter) -> Any:
    """Make an honest encrypted reply to an evaluation request."""
    metrics = {"multi-classif": MulticlassAccuracyPrecisionRecall(labels=[0, 1])}
    metrics["multi-classif"].update(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    curve = BinaryRocAUC(bound=(0.0, 1.0))
    curve.update(np.array([0, 1]), np.array([0.9, 0.1]))
    mean = MeanSquaredError()
    mean.update(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    states = {
        "multi-classif": metrics["multi-classif"].get_states(),
        curve.name: curve.get_states(),
        "loss": mean.get_states(),
    }
    reply = messaging.EvaluationReply(loss=0.5, n_steps=2, t_spent=0.1, metrics=states)
    return sent(SecaggEvaluationReply.from_cleartext_message(reply, encrypter))


@pytest.mark.parametrize("kind", ["masking", "joye-libert"])
def test_honest_replies_are_of_the_form_agreed(kind: str) -> None:
    """What declearn's own encrypters make of weights, auxiliary variables and metrics is taken."""
    encrypter, decrypter = pair(kind)
    assert FORM.fault_in_training(trained(encrypter), decrypter) is None
    assert FORM.fault_in_evaluation(evaluated(encrypter), decrypter) is None


UPDATES = "its updates are not encrypted as was agreed"


def changing(**fields: Any) -> Callable[[Any], Any]:
    """Make what changes fields of the encrypted updates."""

    def change(reply: Any) -> None:
        for name, value in fields.items():
            setattr(reply.updates, name, value(getattr(reply.updates, name)) if callable(value) else value)

    return change


def respec(position: int, value: Any) -> Callable[[Any], Any]:
    """Make what changes the specification of the first encrypted field."""
    return lambda specs: [tuple(value if i == position else part for i, part in enumerate(specs[0])), *specs[1:]]


def remade(**fields: Any) -> Callable[[Any], Any]:
    """Make what changes the specification of a vector."""

    def change(specs: Any) -> Any:
        kind = copy.copy(specs[0][2])
        for name, value in fields.items():
            setattr(kind, name, value)
        return [(*specs[0][:2], kind), *specs[1:]]

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda reply: setattr(reply, "t_spent", float("nan")), "it is malformed"),
        (lambda reply: setattr(reply, "n_steps", -1), "its figures hold what is no encrypted number"),
        (lambda reply: setattr(reply, "n_steps", 2**64), "its figures hold what is no encrypted number"),
        (lambda reply: setattr(reply, "updates", reply.aux_var["scaffold"]), UPDATES),
        (lambda reply: setattr(reply, "updates", trained(pair("joye-libert")[0]).updates), UPDATES),
        (lambda reply: reply.aux_var.clear(), "its auxiliary variables are []"),
        (changing(encrypted=lambda numbers: numbers[1:]), UPDATES),
        (changing(encrypted=lambda numbers: [True, *numbers[1:]]), "its updates hold what is no encrypted number"),
        (changing(encrypted=lambda numbers: [2**64, *numbers[1:]]), "its updates hold what is no encrypted number"),
        (changing(encrypted=dict.fromkeys), UPDATES),
        (changing(enc_specs=[]), UPDATES),
        (changing(enc_specs=respec(0, "x")), UPDATES),
        (changing(enc_specs=respec(1, 6)), UPDATES),
        (changing(enc_specs=respec(2, value=True)), UPDATES),
        (changing(enc_specs=lambda specs: [specs[0][:2], *specs[1:]]), UPDATES),
        (changing(enc_specs=remade(names=["b", "a"])), UPDATES),
        (changing(enc_specs=remade(shapes={"a": [3, 2], "b": []})), UPDATES),
        (changing(enc_specs=remade(shapes=7)), UPDATES),
        (changing(enc_specs=remade(names=np.zeros(2))), UPDATES),
        (changing(enc_specs=remade(dtypes={"a": "float64", "b": "float32"})), UPDATES),
        (changing(enc_specs=remade(v_type=["tensorflow", "Vector"])), UPDATES),
        (changing(enc_specs=remade(kwargs={"slices": ["a"]})), UPDATES),
        (changing(n_aggrg=2), UPDATES),
        (changing(max_int=2**32), UPDATES),
        (changing(max_int="x"), UPDATES),
        (changing(agg_cls=ScaffoldAuxVar), UPDATES),
        (changing(cleartext={"x": 1}), "its updates show {'x': 1}"),
        (
            lambda reply: reply.aux_var["scaffold"].cleartext.update(clients={"x" * 100}),
            f"its auxiliary variables show {{'clients': {{'{'x' * 46}",
        ),
    ],
)
def test_another_form_is_told(change: Callable[[Any], Any], fault: str) -> None:
    """Each way in which an encrypted reply can be of no use to the sum is told."""
    encrypter, decrypter = pair("masking")
    reply = trained(encrypter)
    change(reply)
    assert FORM.fault_in_training(reply, decrypter) == fault


def test_an_evaluation_of_another_form_is_told() -> None:
    """Metrics that were not asked for, or are of other shapes, are told."""
    encrypter, decrypter = pair("masking")
    reply = evaluated(encrypter)
    reply.metrics["loss"].enc_specs = reply.metrics["multi-classif"].enc_specs
    assert FORM.fault_in_evaluation(reply, decrypter) == "its metrics are not encrypted as was agreed"
    reply.metrics.pop("loss")
    assert FORM.fault_in_evaluation(reply, decrypter) == "its metrics are ['binary-roc', 'multi-classif']"
    reply.loss = -1
    assert FORM.fault_in_evaluation(reply, decrypter) == "its figures hold what is no encrypted number"
