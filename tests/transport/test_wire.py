"""What is read of peers: honest messages as upstream reads them, of others nothing that costs or builds anything."""

from __future__ import annotations

import sys
import tracemalloc
import warnings
from collections.abc import Hashable
from typing import Any, cast

import msgpack
import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import ModelUpdates
from declearn.communication.api.backend.actions import ActionMessage, Drop, Join, Ping, Recv, Send
from declearn.messaging import Message
from declearn.model.sklearn import NumpyVector
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.utils import Aggregate
from declearn.utils.serialize import msgpack_serialize
from hypothesis import given
from hypothesis import strategies as st

from services.transport.messages import ClientState, DealReply, Grouping, SpendingReply
from services.transport.wire import ReceivedMessage, UnreadableError, _declared, read_request

MOST = 1000


def read(content: bytes) -> Message:
    """Read a message as the server does."""
    return ReceivedMessage.of("a", content, MOST).deserialize()


def reply(**fields: Any) -> bytes:
    """Make the bytes of an evaluation's reply, with fields of any kind."""
    honest = {"loss": 0.5, "n_steps": 3, "t_spent": 0.1, "metrics": {}}
    return bytes([len("eval_reply")]) + b"eval_reply" + msgpack_serialize({**honest, **fields})


def wrapped(name: Any, dump: Any) -> dict[str, Any]:
    """Make what stands for an object of declearn's."""
    return {"__type__": name, "dump": dump}


@pytest.mark.parametrize(
    "message",
    [Join("a", "2.9.1"), Ping(), Recv(), Recv(3), Recv(0.5), Send(b"x" * 100_000), Drop(), Drop("tired")],
    ids=repr,
)
def test_a_request_is_read_as_it_was_written(message: ActionMessage) -> None:
    """Each request that clients make comes out as it went in."""
    assert read_request(message.serialize()) == message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "none"},
        {"action": ["join"]},
        {"action": "accept", "flag": "x"},
        {"action": "reject", "flag": "x"},
        {"action": "ping", "x": 1},
        {"action": "join", "name": "a"},
        {"action": "join", "name": "", "version": "2"},
        {"action": "join", "name": "a\nb", "version": "2"},
        {"action": "join", "name": "a" * 65, "version": "2"},
        {"action": "join", "name": "a", "version": "2" * 65},
        {"action": "join", "name": 1, "version": "2"},
        {"action": "send", "content": "text"},
        {"action": "send", "content": [1]},
        {"action": "recv", "timeout": -1},
        {"action": "recv", "timeout": float("nan")},
        {"action": "drop", "reason": 7},
        {"action": "send", "content": wrapped("np.ndarray", [b"", "f", [0]])},
        [1, 2],
        "join",
        None,
    ],
    ids=repr,
)
def test_what_is_no_request_is_none(fields: Any) -> None:
    """Fields that are missing, strange, or of another type or range make it none."""
    assert read_request(msgpack.packb(fields)) is None


def test_a_request_imports_and_warns_of_nothing() -> None:
    """Upstream imports a framework for a type that a message names, and warns of what it does not know."""
    modules = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("TorchVector", "HaikuModel", "nonsense"):
            assert read_request(msgpack.packb({"action": "send", "content": wrapped(name, {})})) is None
            with pytest.raises(UnreadableError):
                read(reply(metrics=wrapped(name, {})))
    assert {name for name in set(sys.modules) - modules if name.startswith("declearn.model")} == set()


VECTOR = NumpyVector({"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros((), "float64")})


@pytest.mark.parametrize(
    "message",
    [
        messaging.InitReply(),
        messaging.Error("it failed"),
        messaging.TrainReply(1, 2, 0.5, ModelUpdates(VECTOR, 2), {}),
        messaging.TrainReply(1, 2, 1, ModelUpdates(VECTOR, 2.0), {"s": ScaffoldAuxVar(delta=VECTOR, clients={"x"})}),
        messaging.FairnessGroups([(0, 1), (1, "x")]),
        DealReply(3, 4),
        SpendingReply(0.5, 1, 2),
        ClientState(b"state"),
        Grouping("own", 0.5, None),
        Grouping("own", 0.5, [1, 2]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_read_as_upstream_reads_it(message: Message) -> None:
    """What an honest client sends comes out as upstream would have it."""
    content = message.serialize()
    assert read(content) == messaging.SerializedMessage.from_bin_message(content).deserialize()


def array(*dump: Any) -> bytes:
    """Make a reply that holds an array, packed as declearn packs it or not."""
    return reply(metrics=wrapped("np.ndarray", list(dump)))


def integers(count: int) -> list[dict[str, Any]]:
    """Make integers that all have the same hash, so that a set of them takes forever."""
    return [wrapped("int", (number * (2**61 - 1)).to_bytes(16, "big", signed=True)) for number in range(count)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Input string appears not to be a Message dump."),
        (b"\x03\xff\xff\xff", "Input string appears not to be a Message dump."),
        (b"\x01x", "\"No registered Message type matches typekey 'x'.\""),
        (b"\x0aeval_reply", "it can't be read (Unpack failed: incomplete input)"),
        (b"\x0aeval_reply\x80x", "it can't be read (unpack(b) received extra data.)"),
        (reply(loss="low"), "its loss is no float"),
        (reply(loss=True), "its loss is no float"),
        (reply(n_steps=0.5), "its n_steps is no int"),
        (reply(metrics={"x": 1}), "its metrics is no Dict"),
        (reply(metrics=wrapped("Optimizer", {})), "it holds a 'Optimizer'"),
        (reply(metrics=wrapped(["x"], {})), "it holds a \"['x']\""),
        (reply(metrics=wrapped("int", "x")), "it holds a 'int' that is none"),
        (reply(metrics=wrapped("int", b"x" * 2000)), "it holds a 'int' that is none"),
        (reply(metrics=wrapped("set", integers(9))), "it holds a 'set' that is none"),
        (array(b"", "O", [0]), "it holds a 'np.ndarray' that is none"),
        (array(b"", "f", [0] * 17), "it holds a 'np.ndarray' that is none"),
        (array(b"", "f", [2**40, 0]), "it holds a 'np.ndarray' that is none"),
        (reply(metrics=wrapped("NumpyVector", {"a": 1})), "it holds a 'NumpyVector' that is none"),
        (reply(metrics=wrapped("NumpyVector", [])), "it holds a 'NumpyVector' that is none"),
        (array(b"", "f", [-1]), "it holds a 'np.ndarray' that is none"),
        (array(b"", "e", [2**40, 0]), "it holds a 'np.ndarray' that is none"),
        (array(b"xx", "e", [2**40]), "it holds a 'np.ndarray' that is none"),
        (array(b"xxxx", "f", [2]), "it can't be read (cannot reshape array of size 1 into shape (2,))"),
        (reply(metrics=[0] * (MOST + 1)), "it can't be read (1001 exceeds max_array_len(1000))"),
        (reply(metrics=[[[0] * 300] * 4]), "it holds too many things"),
        (reply(metrics=[{}] * MOST), "it holds too many things"),
    ],
)
def test_what_no_message_holds_is_told(content: bytes, reason: str) -> None:
    """Each way in which bytes are no message, or hold what no reply does, is one line, with the sender's name."""
    with pytest.raises(UnreadableError) as caught:
        read(content)
    assert (caught.value.sender, caught.value.reason) == ("a", f"unreadable message ({reason})")


def test_small_bytes_stay_small() -> None:
    """A megabyte of nested lists, maps and numbers takes a few megabytes at most while it is refused."""
    header = b"\x0aeval_reply\x81\xa7metrics"
    for filling in (b"\x80", b"\x90", b"\xc0", b"\xcd\x7f\xff", b"\x91", b"\xdd\x00\x00\x03\x00"):
        content = header + b"\xdd" + (2**20).to_bytes(4, "big") + filling * 2**20
        deep = header + filling * 2**20
        for bomb in (content, deep):
            tracemalloc.start()
            with pytest.raises(UnreadableError):
                read(bomb)
            assert tracemalloc.get_traced_memory()[1] < 8e6
            tracemalloc.stop()


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    """Whatever comes, a request is read or is none, and a message is read or is unreadable."""
    read_request(content)
    for candidate in (content, b"\x0aeval_reply" + content):
        try:
            read(candidate)
        except UnreadableError:
            continue


def subclasses(kind: type[Any]) -> list[type[Any]]:
    """List all classes below one."""
    return [each for below in kind.__subclasses__() for each in (below, *subclasses(below))]


def test_the_types_of_every_message_are_known() -> None:
    """The declared type of each field of each message, and of what messages hold, can be looked up."""
    kinds = subclasses(Message) + subclasses(Aggregate)
    assert len(kinds) > 50
    for kind in kinds:
        assert isinstance(_declared(cast("Hashable", kind)), dict)
