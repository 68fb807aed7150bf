"""The fields of requests: those of an honest server pass, and nonsense is one line that names it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from declearn import messaging
from declearn.main.config import EvaluateConfig, TrainingConfig
from declearn.messaging import Message
from declearn.model.sklearn import NumpyVector
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.secagg.joye_libert.messages import JoyeLibertSecaggSetupQuery, JoyeLibertSecretShares
from declearn.secagg.masking.messages import MaskingSecaggSetupQuery
from declearn.secagg.x3dh.messages import X3DHTrigger
from declearn.utils.serialize import msgpack_deserialize

from services.client import requests
from services.errors import DistrustError
from services.transport.messages import ClientState, Compression, Deal, Grouping, SpendingQuery, StandBy, StateQuery

TRAIN = TrainingConfig(batch_size=64, n_epoch=1).message_params
EVALUATE = EvaluateConfig(batch_size=500).message_params
PRIVATE: dict[str, Any] = {
    "budget": (3.0, 1e-5),
    "sclip_norm": 1.0,
    "accountant": "rdp",
    "use_csprng": True,
    "seed": None,
    "rounds": 5,
    "batches": {"batch_size": 64},
    "n_epoch": 1,
    "n_steps": None,
}

HONEST: list[Message] = [
    messaging.TrainRequest(round_i=1, weights=None, aux_var={}, **TRAIN),
    messaging.TrainRequest(
        round_i=9, weights=None, aux_var={"scaffold": ScaffoldAuxVar(0.0)}, **{**TRAIN, "n_epoch": None, "n_steps": 3}
    ),
    messaging.TrainRequest(round_i=9, weights=None, aux_var={}, **{**TRAIN, "n_epoch": None, "timeout": 60}),
    messaging.EvaluationRequest(round_i=1, weights=None, **EVALUATE),
    messaging.FairnessQuery(round_i=0, batch_size=500),
    messaging.FairnessSetupQuery("fairgrad", {"eta": 0.1, "f_type": "equalized_odds", "f_args": {"target": 1}}),
    messaging.FairnessGroups([(0, 1), (1, 1)]),
    messaging.MetadataQuery(["n_samples", "features_shape"]),
    messaging.PrivacyRequest(**PRIVATE),
    messaging.StopTraining(weights=NumpyVector({}), loss=float("nan"), rounds=5),
    messaging.CancelTraining("a client failed"),
    messaging.Error("a peer failed"),
    ClientState(b"..."),
    Deal(3, 0, 2**32 - 1),
    Grouping("ink", 0.5, [1, 2]),
    Grouping("own", 0, None),
    SpendingQuery(2, [[0.1, 1.5, 10]], []),
    StandBy("nothing to deal"),
    StateQuery(),
    MaskingSecaggSetupQuery(bitsize=64, clipval=1e5),
    JoyeLibertSecaggSetupQuery(bitsize=64, clipval=1e5),
    JoyeLibertSecretShares({"ab": "cd"}),
    X3DHTrigger(3),
    Compression("float16"),
]


def fields(message: Message) -> Any:
    """Give a message's fields as they come over the wire."""
    return msgpack_deserialize(message.serialize()[1 + len(message.typekey) :])


@pytest.mark.parametrize("message", HONEST, ids=lambda message: message.typekey)
def test_what_an_honest_server_asks_passes(message: Message) -> None:
    """Requests as our server and declearn's make them are let through, with each choice that a plan has."""
    requests.check(type(message), fields(message))


def test_each_request_has_an_honest_example() -> None:
    """No form stands here that no honest request has been tried on."""
    assert set(requests.FIELDS) <= {type(message) for message in HONEST}


NONSENSE: list[tuple[Message, dict[str, Any], str]] = [
    (HONEST[0], {"batches": {"batch_size": 0}}, "the server's train_request has batches.batch_size 0; wanted"),
    (HONEST[0], {"batches": {"batch_size": True}}, "the server's train_request has batches.batch_size True; wanted"),
    (HONEST[0], {"batches": {"batch_size": 1.5}}, "the server's train_request has batches.batch_size 1.5; wanted"),
    (
        HONEST[0],
        {"batches": {"batch_size": 10**7}},
        "the server's train_request has batches.batch_size 10000000; wanted",
    ),
    (HONEST[0], {"batches": {}}, "the server's train_request has batches.batch_size {}; wanted field required"),
    (HONEST[0], {"batches": 64}, "the server's train_request has batches 64; wanted a valid dictionary"),
    (HONEST[0], {"batches": {"batch_size": 1, "hook": "x"}}, "the server's train_request has batches.hook 'x'; wanted"),
    (HONEST[0], {"n_epoch": None}, "the server's train_request is "),
    (HONEST[0], {"n_epoch": 0}, "the server's train_request has n_epoch 0; wanted"),
    (HONEST[0], {"n_steps": -1}, "the server's train_request has n_steps -1; wanted"),
    (HONEST[0], {"timeout": 0}, "the server's train_request has timeout 0; wanted"),
    (HONEST[0], {"timeout": float("inf")}, "the server's train_request has timeout inf; wanted"),
    (HONEST[0], {"round_i": "1"}, "the server's train_request has round_i '1'; wanted a valid integer"),
    (HONEST[0], {"round_i": 10**9}, "the server's train_request has round_i 1000000000; wanted"),
    (HONEST[0], {"aux_var": [1]}, "the server's train_request has aux_var [1]; wanted"),
    (HONEST[0], {"more": 1}, "the server's train_request has more 1; wanted extra inputs are not permitted"),
    (HONEST[3], {"batches": {"batch_size": -5}}, "the server's eval_request has batches.batch_size -5; wanted"),
    (HONEST[3], {"n_steps": "all"}, "the server's eval_request has n_steps 'all'; wanted"),
    (HONEST[4], {"batch_size": 0}, "the server's fairness-request has batch_size 0; wanted"),
    (HONEST[5], {"algorithm": "os.system"}, "the server's fairness-setup-query has algorithm 'os.system'; wanted"),
    (HONEST[7], {"fields": ["n_samples", "labels"]}, "the server's metadata_query has fields.1 'labels'; wanted"),
    (HONEST[8], {"budget": [3.0]}, "the server's privacy_request has budget [3.0]; wanted"),
    (HONEST[8], {"budget": [3.0, 1.0]}, "the server's privacy_request is "),
    (HONEST[8], {"budget": [-3.0, 1e-5]}, "the server's privacy_request has budget.0 -3.0; wanted"),
    (HONEST[8], {"sclip_norm": 0}, "the server's privacy_request has sclip_norm 0; wanted"),
    (HONEST[10], {"reason": 3}, "the server's cancel has reason 3; wanted a valid string"),
    (HONEST[12], {"state": "text"}, "the server's fed_client_state has state 'text'; wanted"),
    (HONEST[13], {"size": "../../etc"}, "the server's fed_deal has size '../../etc'; wanted a valid integer"),
    (HONEST[13], {"seat": 3}, "the server's fed_deal is "),
    (HONEST[13], {"seat": -1}, "the server's fed_deal has seat -1; wanted"),
    (HONEST[13], {"size": 0}, "the server's fed_deal has size 0; wanted"),
    (HONEST[13], {"seed": 2**32}, "the server's fed_deal has seed 4294967296; wanted"),
    (HONEST[14], {"ink": 2}, "the server's fed_grouping has ink 2; wanted"),
    (HONEST[14], {"groups": "faces"}, "the server's fed_grouping has groups 'faces'; wanted"),
    (HONEST[16], {"before": [[2.0, 1.0, 1]]}, "the server's fed_spending_query is "),
    (HONEST[16], {"before": [[0.1, 1.0]]}, "the server's fed_spending_query has before.0 [0.1, 1.0]; wanted"),
    (HONEST[16], {"since": [[0.1, 1.0, 1]] * 1001}, "the server's fed_spending_query has since "),
    (HONEST[19], {"bitsize": 4096}, "the server's masking-secagg-setup-query has bitsize 4096; wanted"),
    (HONEST[20], {"clipval": 0.0}, "the server's jls-setup-query has clipval 0.0; wanted"),
    (HONEST[22], {"n_reqs": 10**6}, "the server's x3dh-trigger has n_reqs 1000000; wanted"),
    (HONEST[23], {"kind": "bfloat16"}, "the server's fed_compression has kind 'bfloat16'; wanted 'float16'"),
]


@pytest.mark.parametrize(("message", "changes", "line"), NONSENSE)
def test_nonsense_is_one_line(message: Message, changes: dict[str, Any], line: str) -> None:
    """A field of another type, out of range, missing or unknown is named with what it is; the rest stays honest."""
    with pytest.raises(DistrustError) as caught:
        requests.check(type(message), {**fields(message), **changes})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut() -> None:
    """What a server sends fills no log line of its client."""
    with pytest.raises(DistrustError) as caught:
        requests.check(Deal, {"size": "x\n" * 10**6, "seat": 0, "seed": 0})
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [messaging.GenericMessage("x", {}), messaging.InitReply(), messaging.PrivacyReply(), messaging.MetadataReply({})],
)
def test_what_is_no_request_is_refused(message: Message) -> None:
    """Messages that clients send, or that nobody does, are none that a client takes."""
    with pytest.raises(
        DistrustError, match=f"the server sent '{message.typekey}'; wanted a request that a client takes"
    ):
        requests.check(type(message), fields(message))


def test_fields_are_a_map() -> None:
    """A request whose fields are a list, or a number, is none."""
    values: list[Any] = [[], 3, None, "x"]
    for value in values:
        with pytest.raises(DistrustError, match="the server sent 'train_request' without fields"):
            requests.check(messaging.TrainRequest, value)


def test_forms_name_the_fields_that_messages_have() -> None:
    """Each form has the fields of its message, no more and no fewer."""
    for kind, form in requests.FIELDS.items():
        assert set(form.model_fields) == {field.name for field in dataclasses.fields(kind)}, kind
