"""A server's answers: the few that there are, and nothing that they might name."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from declearn.communication.api.backend.actions import Accept, ActionMessage, Join, Ping, Recv, Reject, Send
from declearn.model.sklearn import SklearnSGDModel
from declearn.utils.serialize._base import _DESERIAL_REGISTRY
from hypothesis import given, settings
from hypothesis import strategies as st

from services.transport.answers import read_answer


@pytest.mark.parametrize("answer", [Ping(), Send(b"\x00" * 10), Accept("welcome"), Reject("no")])
def test_an_answer_of_declearn_is_read(answer: ActionMessage) -> None:
    """Each answer that an honest server gives comes out as declearn made it."""
    assert read_answer(answer.serialize()) == answer


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\xc1",
        b"hello",
        Join("client_0", "2").serialize(),
        Recv(1.0).serialize(),
        *(
            msgpack.packb(fields)
            for fields in (
                3,
                [1, 2],
                {},
                {"action": "send"},
                {"action": "send", "content": "text"},
                {"action": "ping", "more": 1},
                {"action": "accept", "flag": 3},
                {"action": ["ping"]},
                {"action": "send", "content": b"", "more": {"a": [1, 2, 3, 4, 5, 6]}},
                {"action": "ping", 3: msgpack.Timestamp(1)},
            )
        ),
    ],
)
def test_what_is_no_answer_is_refused(content: bytes) -> None:
    """Bytes that are no message pack, other actions, and fields that are none are a ValueError of one line."""
    with pytest.raises(ValueError, match="it ") as caught:
        read_answer(content)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    """Whatever bytes come, they are an answer or a ValueError."""
    try:
        answer = read_answer(content)
    except ValueError:
        return
    assert isinstance(answer, Ping | Send | Accept | Reject)


def test_nothing_is_built_of_what_an_answer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in an answer's envelope, which declearn builds before it looks at the answer, is never made."""
    built: list[Any] = []
    spec = _DESERIAL_REGISTRY["msgpack"][SklearnSGDModel.__name__]
    monkeypatch.setattr(spec, "decoder", built.append)
    content = msgpack.packb({"action": "ping", "x": {"__type__": SklearnSGDModel.__name__, "dump": {}}})
    with pytest.raises(TypeError):
        ActionMessage.deserialize(content)
    assert len(built) == 1, "declearn's own parser builds it"
    with pytest.raises(ValueError, match=r"it is none of declearn's"):
        read_answer(content)
    assert len(built) == 1
