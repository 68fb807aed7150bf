"""What peers send, read strictly: nothing is built, imported or kept that a message of this kind does not hold.

declearn builds whatever type a message names: it imports modules for it, makes models of a configuration, warns of what
it does not know, once for each name, and keeps the warning. A megabyte of nested maps becomes a hundred in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import numpy as np
from declearn.communication.api.backend.actions import ActionMessage, Drop, Join, Ping, Recv, Send
from declearn.messaging import Message, SerializedMessage
from declearn.model.api import Vector, VectorSpec
from declearn.secagg.api import SecureAggregate
from declearn.utils import Aggregate
from declearn.utils.serialize import list_msgpack_serializable
from declearn.utils.serialize._msgpack import _msgpack_decode

from services.transport.packs import is_sound, unpack
from services.transport.refusals import one_line

LONGEST_NAME = 64
"""Characters of a client's name: as many as a certificate's common name may have (RFC 5280, appendix A.1)."""

REQUESTS: Mapping[str, type[ActionMessage]] = {kind.__name__.lower(): kind for kind in (Drop, Join, Ping, Recv, Send)}
"""What a client may ask of a server, by the name it has on the wire."""

MOST_FIELDS = 8
"""Items of a request; declearn's have three."""

PARTS = (np.ndarray, set, int, Vector, VectorSpec, Aggregate, SecureAggregate)
"""What replies are made of, beside plain values; not models, optimizers or aggregators, which only servers send."""

WRAPPED = {"__type__", "dump"}
"""Keys of a map that stands for an object of declearn's."""


def read_request(content: bytes) -> ActionMessage | None:
    """Parse bytes into a request that a client may make, its fields of the types they should have; else give None."""
    try:
        fields = unpack(content, MOST_FIELDS)
        message = REQUESTS[fields.pop("action")](**fields)
    except Exception:  # noqa: BLE001 - hostile bytes can make a parser raise anything
        return None
    match message:
        case Join(name=str(name), version=str(version)):
            sound = 0 < len(name) <= LONGEST_NAME and name.isprintable() and len(version) <= LONGEST_NAME
        case Recv(timeout=int() | float() as timeout):
            sound = timeout >= 0
        case Send(content=bytes()) | Ping() | Drop(reason=None | str()) | Recv(timeout=None):
            sound = True
        case _:
            sound = False
    return message if sound else None


class UnreadableError(ValueError):
    """A client's message is none, or holds what no message of its kind does.

    Attributes:
        sender: name of the client.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, sender: str, reason: str) -> None:
        self.sender = sender
        self.reason = reason
        super().__init__(f"{sender} sent an {reason}")


class ReceivedMessage(SerializedMessage[Any]):
    """A message of a client, of which only the kind is read yet.

    Overrides `deserialize`: upstream builds any type it knows, in any number, and takes fields of any type.

    Attributes:
        sender: name of the client.
        most_parts: items that its lists and maps may have, all in all.
    """

    sender: str = ""
    most_parts: int = 0

    @classmethod
    def of(cls, sender: str, content: bytes, most_parts: int) -> ReceivedMessage:
        """Read of what kind a message is.

        Raises:
            UnreadableError: it is none, or of a kind that nobody knows.
        """
        try:
            message = cls.from_bin_message(content)
        except (KeyError, TypeError) as exc:
            raise UnreadableError(sender, f"unreadable message ({one_line(exc)})") from None
        message.sender, message.most_parts = sender, most_parts
        return message

    def deserialize(self) -> Message:
        """Parse the message.

        Raises:
            UnreadableError: it is none, holds what no reply does, or too many things.
        """
        try:
            payload = memoryview(self.bin_data)[self.payload_start :]
            fields = unpack(payload, self.most_parts, functools.partial(_built, _known()))
            message: Message = self.message_cls.from_kwargs(**fields)
            _check(message)
        except Exception as exc:  # noqa: BLE001 - hostile bytes can make a parser raise anything
            words = one_line(exc if isinstance(exc, ValueError) else f"{type(exc).__name__}: {exc}")
            raise UnreadableError(self.sender, f"unreadable message ({words})") from None
        return message


def _known() -> frozenset[str]:
    """Name what replies are made of, asked anew each time: the types of a framework come with its import."""
    return frozenset(name for name, kind in list_msgpack_serializable() if issubclass(kind, PARTS))


def _built(known: frozenset[str], value: dict[Any, Any]) -> Any:
    """Build what a map stands for, if it is one of the things that replies are made of."""
    if value.keys() != WRAPPED:
        return value
    name, dump = value["__type__"], value["dump"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"it holds a {str(name)[:60]!r}")
    if not is_sound(name, dump):
        raise ValueError(f"it holds a {name!r} that is none")
    return _msgpack_decode(value)


def _check(value: Any) -> None:
    """Compare the fields of a dataclass with their declared types, and so on within them.

    Raises:
        ValueError: a field is of another type.
    """
    for name, hint in _declared(cast("Hashable", type(value))).items():
        if not _fits(getattr(value, name), hint):
            raise ValueError(f"its {name} is no {_words(hint)}")


@functools.cache
def _declared(kind: Hashable) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", kind))}


def _words(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint)).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether `value` is of the type that an annotation names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    kind = origin or hint
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        return False
    match value:
        case dict():
            of_keys, of_values = arguments or (Any, Any)
            return all(_fits(key, of_keys) and _fits(item, of_values) for key, item in value.items())
        case list() | set():
            return all(_fits(item, arguments[0] if arguments else Any) for item in value)
        case _:
            fields = _declared(cast("Hashable", type(value))) if dataclasses.is_dataclass(value) else {}
            return all(_fits(getattr(value, name), each) for name, each in fields.items())
