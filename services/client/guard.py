"""What a client takes from its server: read as plain data, looked at, and only then made into anything.

declearn's messages rebuild whatever type they name, wherever it stands: a model in place of a batch's size would be
built, and any layer of Keras with it. Here a message may name a model, an optimizer and an aggregator where it sets a
client up, each in its place (`services.client.blueprint`), and else nothing but numbers. What is refused ends the
client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from declearn import messaging
from declearn.messaging import Message, SerializedMessage
from declearn.model.api import Model, Vector
from declearn.utils.serialize._msgpack import _msgpack_decode

from services.architecture import Size
from services.client import blueprint, requests
from services.client.blueprint import KEYS, Limits
from services.errors import DistrustError
from services.transport.client import FIRST_MESSAGES
from services.transport.packs import VECTORS, is_sound, unpack
from services.transport.precision import types_of, widened
from services.transport.refusals import one_line

MOST_PARTS = 200_000
"""Items of a message's lists and maps, all in all; a layer's configuration has about eighty."""

COPIES = 8
"""How many times the model's weights a message may weigh: with auxiliary variables, or an optimizer's state."""

NUMERIC = VECTORS | {"AuxVar>ScaffoldAuxVar", "int", "np.ndarray", "set"}
"""Types of declearn's that hold numbers, or names, and nothing else."""


class GuardedMessage(SerializedMessage[Any]):
    """A message of the server, not yet parsed.

    Overrides `deserialize`: upstream builds any type that a message names, and takes fields of any type.

    Attributes:
        open: parses it.
    """

    open: Callable[[GuardedMessage], Message]

    def deserialize(self) -> Message:
        return self.open(self)


class Guard:
    """What one client accepts.

    Args:
        max_parameters: numbers that a model may have in its weights.
    """

    def __init__(self, max_parameters: int) -> None:
        self._limits = Limits(max_parameters)
        self._size: Size | None = None
        self._shapes: Mapping[str, tuple[int, ...]] | None = None
        self._types: Mapping[str, np.dtype[Any]] = {}

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, content: bytes) -> GuardedMessage:
        """Tell of which kind a message is.

        Raises:
            DistrustError: it is none of declearn's, nor ours.
        """
        try:
            message: GuardedMessage = GuardedMessage.from_bin_message(content)
        except (KeyError, RuntimeError, TypeError) as exc:
            raise DistrustError(f"the server's message is none: {one_line(exc)}") from exc
        message.open = self.open
        return message

    def open(self, message: SerializedMessage[Any]) -> Message:
        """Parse a message; one that holds a model takes TensorFlow's import, and is meant to be parsed in a thread.

        Raises:
            DistrustError: it holds what a client does not take.
        """
        kind = message.message_cls
        fields = self._unpacked(memoryview(message.bin_data)[message.payload_start :], kind.typekey)
        if issubclass(kind, messaging.InitRequest):
            fields, self._size = blueprint.checked(fields, self._limits)
            try:
                parts = {key: _msgpack_decode(fields[key]) for key in ("model", "optim", "aggrg")}
                made: Message = kind.from_kwargs(**{**fields, **parts})
            except Exception as exc:  # declearn's own, of parameters that are none
                raise DistrustError(f"the server's {kind.typekey} can't be read ({one_line(repr(exc))})") from exc
            return made
        requests.check(kind, fields)
        built = self._built(fields, kind.typekey)
        self._check_fit(built)
        if isinstance(built.get("weights"), Vector):
            built["weights"] = widened(built["weights"], self._types)
        try:
            parsed: Message = kind.from_kwargs(**built)
        except Exception as exc:  # whatever a constructor makes of fields of a kind that a protocol judges
            raise DistrustError(f"the server's {kind.typekey} can't be read ({one_line(repr(exc))})") from exc
        return parsed

    def state(self, content: bytes) -> dict[str, Any]:
        """Parse the state of an optimizer, which a server keeps for its client.

        Raises:
            DistrustError: it is none.
        """
        name = "state of an optimizer"
        state = self._built(self._unpacked(content, name), name)
        if not isinstance(state, dict) or state.keys() != {"lrate", "w_decay", "modules"}:
            raise DistrustError(f"the server's {name} is none")
        for key in ("lrate", "w_decay"):
            counters = state[key]
            if not isinstance(counters, dict) or not all(_is_counter(count) for count in counters.values()):
                raise DistrustError(f"the server's {name} has counters {one_line(counters)} of {key}")
        if not isinstance(state["modules"], list) or not all(_is_module(module) for module in state["modules"]):
            raise DistrustError(f"the server's {name} has modules that are none")
        self._check_vectors(state["modules"])
        state["modules"] = [tuple(module) for module in state["modules"]]
        return state

    @staticmethod
    def _unpacked(content: bytes | memoryview, name: str) -> Any:
        try:
            return unpack(content, MOST_PARTS)
        except ValueError as exc:
            raise DistrustError(f"the server's {name} is none: {one_line(exc)}") from exc

    @staticmethod
    def _built(value: Any, name: str) -> Any:
        """Make what `value` stands for, of numbers alone."""
        try:
            return _build(value)
        except DistrustError:
            raise
        except Exception as exc:  # numpy's and declearn's own, of what is not what it says
            raise DistrustError(f"the server's {name} can't be read ({one_line(repr(exc))})") from exc

    # -- what fits the model --------------------------------------------------------------------------------------

    def accept(self, model: Model[Any]) -> int:
        """Take note of the model that was set up, by which whatever comes is judged from now on.

        Returns:
            Bytes that a message of the server may have from now on.
        """
        vector = model.get_weights(trainable=True)
        weights = {name: np.asarray(value) for name, value in vector.coefs.items()}
        self._types = types_of(vector)
        self._shapes = {name: weight.shape for name, weight in weights.items()}
        return FIRST_MESSAGES + COPIES * sum(weight.nbytes for weight in weights.values())

    def check_work(self, batch_size: int, images: int) -> None:
        """Refuse batches that take too much, and work without images, which has no end.

        Raises:
            DistrustError: names what is asked for.
        """
        if images == 0:
            raise DistrustError("the server asks for a round before it has dealt any images")
        if self._size is not None:
            blueprint.check_batch(self._size, min(batch_size, images), self._limits)

    def _check_fit(self, fields: Mapping[str, Any]) -> None:
        """Refuse weights that are not the model's; before there is one, a round is refused anyway."""
        weights = fields.get("weights")
        if isinstance(weights, Vector) and self._shapes is not None and weights.coefs.keys() != self._shapes.keys():
            strange = sorted(map(str, weights.coefs.keys() ^ self._shapes.keys()))
            raise DistrustError(f"the server's weights lack, or add, {one_line(strange[0])}", "those of its model")
        self._check_vectors(fields)

    def _check_vectors(self, value: Any) -> None:
        """Refuse vectors, wherever they stand, that do not go with the model."""
        if self._shapes is None:
            return
        if isinstance(value, Vector):
            for name, array in value.coefs.items():
                if name not in self._shapes:
                    raise DistrustError(f"the server sent {one_line(name)}, which its model does not have")
                shape, found = self._shapes[name], tuple(np.shape(array))
                if shape != found:
                    raise DistrustError(
                        f"the server sent {one_line(name)} of shape {found}", f"{shape}, as in its model"
                    )
        elif isinstance(value, Mapping):
            self._check_vectors(list(value.values()))
        elif isinstance(value, list | tuple):
            for item in value:
                self._check_vectors(item)
        elif hasattr(value, "to_dict"):
            self._check_vectors(vars(value))


def _build(value: Any) -> Any:
    if isinstance(value, list):
        return [_build(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != set(KEYS):
        return {key: _build(item) for key, item in value.items()}
    kind, dump = value["__type__"], _build(value["dump"])
    if not isinstance(kind, str) or kind not in NUMERIC:
        raise DistrustError(f"the server's message holds {one_line(repr(kind), 60)}", "numbers alone, past the set-up")
    if not is_sound(kind, dump) or not isinstance(dump, bytes | list | dict):
        raise DistrustError(f"the server's message holds {one_line(kind)} that is none")
    return _msgpack_decode({"__type__": kind, "dump": dump})


def _is_counter(count: Any) -> bool:
    return type(count) is int and -1 <= count <= requests.MOST * requests.MOST


def _is_module(module: Any) -> bool:
    match module:
        case [str(), dict()]:
            return True
        case _:
            return False
