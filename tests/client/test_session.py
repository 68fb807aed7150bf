"""A client and a dishonest server: what is refused, what leaves the client then, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import AveragingAggregator
from declearn.messaging import Message
from declearn.optimizer import Optimizer
from declearn.secagg.joye_libert.messages import (
    JoyeLibertPublicShare,
    JoyeLibertSecaggSetupQuery,
    JoyeLibertSecretShares,
    JoyeLibertShamirPrime,
)
from declearn.secagg.masking.messages import MaskingSecaggSetupQuery
from declearn.secagg.x3dh.messages import X3DHOkay, X3DHRequests, X3DHResponses, X3DHTrigger

from services.client.secagg import load_keys
from services.client.session import Session
from services.errors import DataError, DistrustError, FedError, TrainingError
from services.experiment import Plan
from services.init import identities, secagg_keys
from services.server.model import build_model
from services.shards import Shard
from services.transport.messages import ClientState, Compression, Deal, DealReply, Grouping, StandBy, StateQuery
from tests.client.hostile import HostileServer, hostile, run

RNG = np.random.default_rng(0)
BATCHES = {"batch_size": 10}


def shard(classes: int = 10, count: int = 40) -> Shard:
    """Make a client's images of noise, the last ten of which are for validation too."""
    images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % classes).astype(np.uint8)
    return Shard(images, labels, images[-10:], labels[-10:])


def set_up(model: str | dict[str, Any] = "logistic", **more: Any) -> messaging.InitRequest:
    """Ask a client to train a small model."""
    return messaging.InitRequest(
        model=build_model(Plan.model_validate({"model": model})),
        optim=Optimizer(0.1, modules=["momentum"]),
        aggrg=AveragingAggregator(),
        metrics=[("multi-classif", {"labels": list(range(10))}), "mse"],
        **more,
    )


def train(number: int = 1, **changes: Any) -> messaging.TrainRequest:
    """Ask for a round of two steps."""
    asked: dict[str, Any] = {"batches": BATCHES, "n_epoch": 1, "n_steps": 2, **changes}
    return messaging.TrainRequest(round_i=number, weights=None, aux_var={}, **asked)


def evaluate() -> messaging.EvaluationRequest:
    """Ask for an evaluation."""
    return messaging.EvaluationRequest(round_i=1, weights=None, batches=BATCHES, n_steps=None, timeout=None)


async def meet(server: HostileServer, *, own: Shard | None = None, deal: Any = None, **more: Any) -> Exception | None:
    """Let a client take part until it ends, and give what it ended with."""
    data = shard() if own is None and deal is None else own
    session = Session(server.endpoint(), shard=data, deal=deal, server_grace=0.1, **more)
    try:
        await session.async_run()
    except FedError as exc:
        return exc
    return None


def ends(*script: Any, **more: Any) -> tuple[Exception | None, list[Message]]:
    """Let a client meet a server of that script; give what it ended with, and all that it sent."""

    async def scene() -> tuple[Exception | None, list[Message]]:
        async with hostile(*script) as server:
            return await meet(server, **more), server.received

    return run(scene())


LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}},
    "registered_name": None,
}


class _Forged:
    """A model with another configuration in its place, as it goes over the wire."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.request = set_up()
        config = self.request.model.get_config()
        change(config)
        self.request.model.get_config = lambda **_: config  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda config: config["model"]["config"]["layers"].insert(1, LAMBDA),
            "the server's model is refused: a Lambda layer is code; wanted a network of Keras' own parts, without code",
        ),
        (
            lambda config: config["model"]["config"]["layers"][2]["config"].update(units=10**6),
            "the server's model has 785,000,000 parameters; wanted at most 50,000,000; raise MAX_PARAMETERS",
        ),
        (
            lambda config: config["model"].update(module="os", class_name="system"),
            "the server's model is refused: class 'system' is not of Keras; wanted",
        ),
    ],
)
def test_a_model_that_is_refused_ends_the_client_and_is_answered(
    change: Callable[[dict[str, Any]], None], line: str
) -> None:
    """The server is told in one line what its client ends with, and that the code for it; nothing else leaves."""
    error, sent = ends(_Forged(change).request)
    assert isinstance(error, DistrustError)
    assert error.exit_code == 14
    assert str(error).startswith(line)
    assert sent == [messaging.Error(str(error))]


def test_a_client_s_own_limit_counts() -> None:
    """A model that others train is refused by a client that gives it less room."""
    error, sent = ends(set_up(), max_parameters=7849)
    assert str(error).startswith("the server's model has 7,850 parameters; wanted at most 7,849; raise MAX_PARAMETERS")
    assert sent == [messaging.Error(str(error))]
    error, sent = ends(set_up(), messaging.StopTraining(build_model(Plan()).get_weights(), 0.0, 1), max_parameters=7850)
    assert [type(message) for message in sent[:1]] == [messaging.InitReply]


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (train(batches={"batch_size": 0}), "the server's train_request has batches.batch_size 0; wanted"),
        (train(n_epoch=None, n_steps=None), "the server's train_request is "),
        (train(10**6, n_epoch=10**6, n_steps=None), "the server asks for round 1000000 of 4000000 steps each; wanted"),
        (messaging.FairnessQuery(0, batch_size=-1), "the server's fairness-request has batch_size -1; wanted"),
        (messaging.MetadataQuery(["labels"]), "the server's metadata_query has fields.0 'labels'; wanted"),
        (messaging.GenericMessage("run", {}), "the server sent 'generic'; wanted a request that a client takes"),
        (messaging.InitReply(), "the server sent 'init_reply'; wanted a request that a client takes"),
        (X3DHTrigger(3), "the server sent 'x3dh-trigger'; wanted a request that a client takes"),
        (ClientState(b"\xc1"), "the server's state of an optimizer is none: it can't be read"),
        (
            ClientState(b"\x83\xa5lrate\x80\xa7w_decay\x80\xa7modules\x90"),
            "the server's state of the optimizer does not fit",
        ),
        (b"\x03abc\x80", "the server's message is none: "),
    ],
)
def test_nonsense_ends_a_client_in_one_line(request_: Message | bytes, line: str) -> None:
    """After a set-up a request that makes no sense is answered with the line that the client ends with."""
    error, sent = ends(set_up(), request_)
    assert isinstance(error, DistrustError)
    assert str(error).startswith(line)
    assert sent == [messaging.InitReply(), messaging.Error(str(error))]


def test_a_seat_is_no_path() -> None:
    """A client loads index sets by number; what is none reaches no folder."""
    asked: list[Any] = []
    error, sent = ends(Deal("../..", 0, 0), deal=lambda *seat: asked.append(seat))  # type: ignore[arg-type]
    assert str(error).startswith("the server's fed_deal has size '../..'; wanted a valid integer")
    assert (sent, asked) == ([messaging.Error(str(error))], [])


def test_a_round_without_images_is_refused() -> None:
    """Passes over no images would have no end."""
    error, sent = ends(set_up(), train(n_epoch=None), deal=lambda *_: shard())
    assert str(error) == "the server asks for a round before it has dealt any images"
    assert sent == [messaging.InitReply(), messaging.Error(str(error))]


def test_what_a_server_says_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Line breaks and control characters of a server's words reach no log as they are."""
    caplog.set_level("INFO")
    error, _ = ends(StandBy("a\nb\x1b[31m"), messaging.Error("c\r\nd"), messaging.CancelTraining("e\nf"))
    assert isinstance(error, TrainingError)
    assert str(error) == "the server cancelled training (e f)"
    told = [record.getMessage() for record in caplog.records]
    assert "standing by: a b [31m" in told
    assert "the server says: c d" in told


# -- what leaves ------------------------------------------------------------------------------------------------------


def test_updates_travel_as_a_server_has_asked_until_it_sets_up_anew() -> None:
    """An update is of float16 after a request for that, and of float32 before it and after another set-up."""
    half = Compression("float16")
    asked = [set_up(), train(), half, train(2), set_up(), train(3)]
    _, sent = ends(*asked)
    assert half in sent
    found = [message.updates.updates for message in sent if isinstance(message, messaging.TrainReply)]
    kinds = [{np.asarray(value).dtype.name for value in vector.coefs.values()} for vector in found]
    assert kinds == [{"float32"}, {"float16"}, {"float32"}]


def test_encrypted_updates_are_not_asked_for_as_float16(tmp_path: Path) -> None:
    """Under secure aggregation a request for float16 ends the client, which says why."""
    identities.ensure(tmp_path / "server", tmp_path / "clients", ["client_0"])
    secagg_keys.ensure(tmp_path / "clients", ["client_0"])
    keys = load_keys(tmp_path / "clients", "client_0")
    error, sent = ends(set_up(secagg="masking"), Compression("float16"), keys=keys)
    assert isinstance(error, DistrustError)
    assert str(error) == (
        "the server asks for updates as float16 under secure aggregation, which encrypts whole numbers; wanted one of"
        " the two"
    )
    assert sent == [messaging.InitReply(), messaging.Error(str(error))]


def replies(*script: Any, **more: Any) -> list[Any]:
    """Give what a client sends that goes along to the end of the script."""
    error, sent = ends(*script, **more)
    assert error is None
    return list(sent)


def test_metrics_are_shared_or_not_as_the_client_says() -> None:
    """With metrics kept, the loss goes with its weight, and of the rest what a client without images would send."""
    told = replies(set_up(), evaluate())[-1]
    kept = replies(set_up(), evaluate(), share_metrics=False)[-1]
    assert set(told.metrics) == set(kept.metrics) == {"multi-classif", "mse", "loss"}
    assert told.metrics["multi-classif"].confmat.sum() == told.metrics["mse"].divisor == 10
    assert not kept.metrics["multi-classif"].confmat.any()
    assert (kept.metrics["mse"].num_sum, kept.metrics["mse"].divisor) == (0, 0)
    assert kept.metrics["loss"].divisor == 10
    assert kept.metrics["loss"].num_sum == pytest.approx(10 * kept.loss)
    assert {field.name for field in dataclasses.fields(kept)} == {"loss", "n_steps", "t_spent", "metrics"}


@pytest.mark.parametrize(
    "request_",
    [
        Grouping("class", 0.1, None),
        messaging.FairnessSetupQuery("monitor", {"f_type": "accuracy_parity"}),
        messaging.FairnessQuery(0),
    ],
)
def test_a_client_that_shares_the_loss_alone_tells_nothing_of_groups(request_: Message) -> None:
    """How many images are in which group, and how the model does on them, are figures too: fairness is refused."""
    error, sent = ends(set_up(), request_, share_metrics=False)
    assert str(error) == (
        "the server asks for figures of groups of images, and this client shares the loss alone; wanted a federation"
        " without fairness; set SHARE_METRICS=1 to take part in this one"
    )
    assert sent == [messaging.InitReply(), messaging.Error(str(error))]


def test_an_error_tells_nothing_of_the_data(caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow's error names the labels of a batch; the server learns its kind, the client's log the rest."""
    caplog.set_level("INFO")
    sent = replies(Deal(1, 0, 0), set_up(), train(), evaluate(), deal=lambda *_: shard(classes=12))
    assert [type(message) for message in sent] == [DealReply, messaging.InitReply, messaging.Error, messaging.Error]
    assert [message.message for message in sent[2:]] == [
        "training failed (InvalidArgumentError; its own log says more)",
        "evaluation failed (IndexError; its own log says more)",
    ]
    failures = [record.getMessage() for record in caplog.records if "training failed" in record.getMessage()]
    assert any("outside the valid range" in failure for failure in failures)


def test_a_site_keeps_to_itself_what_does_not_fit() -> None:
    """A site whose labels the model does not know tells what was wanted, and in its own log what it has."""
    error, sent = ends(set_up(), own=shard(classes=13))
    assert isinstance(error, DataError)
    assert str(error).startswith("this site's labels go up to 12; wanted labels from 0 to 9")
    (told,) = sent
    assert isinstance(told, messaging.Error)
    assert told.message == (
        "its data can't be used; wanted labels from 0 to 9, as the federation's model tells 10 classes apart"
    )


def test_a_deal_that_fails_names_no_path() -> None:
    """A missing index set is told without the folder that it is missing from."""

    def deal(*_: int) -> Shard:
        raise DataError("/home/alice/shards/3/1.npz is missing", "the index set of seat 1")

    assert replies(Deal(3, 1, 0), deal=deal) == [
        messaging.Error("its data can't be used; wanted the index set of seat 1"),
    ]


def test_metadata_tell_no_classes() -> None:
    """What a stock server asks of a data set is its size and shape; which classes there are is not told."""
    (reply,) = replies(messaging.MetadataQuery(["features_shape", "n_samples", "classes", "data_type"]))
    assert reply.data_info == {"features_shape": [28, 28], "n_samples": 40, "classes": None, "data_type": None}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys for secure aggregation of three clients."""
    folder = tmp_path_factory.mktemp("keys")
    secagg_keys.ensure(folder, identities.client_names(3))
    return folder


PRIME = 2**4423 - 1
"""A prime of more bits than a key of Joye-Libert's has (Hurwitz 1961)."""


@pytest.mark.parametrize(
    ("kind", "query", "rest"),
    [
        ("masking", MaskingSecaggSetupQuery, []),
        ("joye-libert", JoyeLibertSecaggSetupQuery, [JoyeLibertShamirPrime(PRIME), JoyeLibertSecretShares({})]),
    ],
)
def test_an_update_that_is_hidden_from_nobody_is_not_sent(
    keys: Path, kind: str, query: type[Any], rest: list[Message]
) -> None:
    """A server that lets a client agree on secrets with no peer gets no update: the sum would be that client's own."""
    handshakes = [X3DHTrigger(0), X3DHRequests([]), X3DHResponses([]), X3DHOkay()]
    script = [set_up(secagg=kind), query(bitsize=64, clipval=1e5), *handshakes, *rest, train()]
    sent = replies(*script, keys=load_keys(keys, "client_0"))
    assert [message.message for message in sent if isinstance(message, messaging.Error)] == [
        "secure aggregation was not set up (RuntimeError; its own log says more)",
        "secure aggregation is not set up",
    ]
    assert not any(isinstance(message, messaging.TrainReply | JoyeLibertPublicShare) for message in sent)
    assert not any(hasattr(message, "updates") for message in sent)


def test_an_optimizer_s_state_is_hidden_where_updates_are(keys: Path) -> None:
    """Under secure aggregation a client's momentum, which is made of its own updates, is not sent in clear."""
    error, sent = ends(set_up(secagg="masking"), StateQuery(), keys=load_keys(keys, "client_0"))
    assert str(error).startswith(
        "the server asks for the state of this client's optimizer, which is made of its updates"
    )
    assert sent == [messaging.InitReply(), messaging.Error(str(error))]
    assert isinstance(replies(set_up(), StateQuery())[-1], ClientState)


def test_nothing_leaves_but_updates_and_the_loss() -> None:
    """Over all that an honest server asks, a client that keeps its metrics sends replies of these kinds alone."""
    sent = replies(
        Deal(1, 0, 0),
        set_up(),
        train(),
        evaluate(),
        train(2),
        evaluate(),
        StateQuery(),
        deal=lambda *_: shard(),
        share_metrics=False,
    )
    kinds = [DealReply, messaging.InitReply, *[messaging.TrainReply, messaging.EvaluationReply] * 2, ClientState]
    assert [type(message) for message in sent] == kinds
    for message in sent:
        if isinstance(message, messaging.EvaluationReply):
            states: Any = message.metrics
            assert not states["multi-classif"].confmat.any()
            assert states["mse"].divisor == 0


# -- the wire ---------------------------------------------------------------------------------------------------------


def test_messages_have_room_for_the_model_alone() -> None:
    """Before a set-up a message has four megabytes, after it as many more as the model needs; no client takes more."""
    large = messaging.CancelTraining("x" * 9_000)

    def chunks(megabytes: int) -> Callable[[Any], Any]:
        async def send(socket: Any) -> None:
            await socket.send(b"STREAM_START")
            await socket.recv()
            for _ in range(megabytes):
                await socket.send(b"x" * 2**20)
            await socket.wait_closed()

        return send

    error, sent = ends(chunks(5))
    assert (
        str(error)
        == "the server sent a message of more than 4,194,304 bytes; wanted at most 4,194,304 bytes, sent steadily"
    )
    assert sent == []
    error, sent = ends(set_up(), chunks(6))
    assert str(error).startswith("the server sent a message of more than 4,445,504 bytes")
    assert sent == [messaging.InitReply()]
    error, _ = ends(set_up(), large)
    assert isinstance(error, TrainingError)


def test_the_server_sees_a_refused_client_leave() -> None:
    """The connection is closed with the refusal, so that nobody waits for a client that is gone."""

    async def scene() -> None:
        async with hostile(_Forged(lambda config: config.update(loss="os.system")).request) as server:
            error = await meet(server)
            assert isinstance(error, DistrustError)
            await asyncio.wait_for(server.left.wait(), 5)

    run(scene())
