"""Message packs, read strictly: plain data, so many items of it at most.

declearn's reader builds whatever type a message names. A megabyte of nested maps becomes a hundred in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

VECTORS = frozenset({"NumpyVector", "TensorflowVector"})
"""Types of declearn's that hold weights."""

NUMBERS = frozenset("?bBhHiIlLqQefd")
"""Types of numpy arrays (`numpy.dtype.char`) that hold numbers."""

MOST_DIMENSIONS = 16
"""Dimensions of an array; numpy has 32."""

LONGEST_EMPTY = 1000
"""Items that an array without any may claim to have along its other dimensions: who goes along those has no end."""

LONGEST_INTEGER = 1024
"""Bytes of an integer that is too long for msgpack; Joye-Libert's have 512."""


def unpack(content: bytes | memoryview, most: int, build: Callable[[dict[Any, Any]], Any] | None = None) -> Any:
    """Unpack bytes into plain data: numbers, texts, bytes, and lists and maps of these.

    Args:
        content: what was sent.
        most: items that its lists and maps may have, all in all.
        build: makes of each map what it stands for, the innermost first; without it a map stays one.

    Raises:
        ValueError: it is no message pack, or has more, or `build` refuses a map; told in words that begin with "it".
    """
    left = most

    def count(items: int) -> None:
        nonlocal left
        left -= items + 1
        if left < 0:
            raise ValueError("it holds too many things")

    def of_list(value: list[Any]) -> list[Any]:
        count(len(value))
        return value

    def of_map(value: dict[Any, Any]) -> Any:
        count(len(value))
        return value if build is None else build(value)

    def extended(code: int, data: bytes) -> Any:
        raise ValueError(f"it holds {len(data)} bytes of an unknown type {code}")

    try:
        return msgpack.unpackb(
            content,
            object_hook=of_map,
            list_hook=of_list,
            ext_hook=extended,
            max_array_len=most,
            max_map_len=most,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as exc:
        words = str(exc) or type(exc).__name__
        raise ValueError(words if words.startswith("it ") else f"it can't be read ({words})") from exc


def is_sound(kind: str, dump: Any) -> bool:
    """Tell whether declearn should make an object of `kind`, as it is called on the wire, of a dump."""
    match kind:
        case "int":
            return isinstance(dump, bytes) and len(dump) <= LONGEST_INTEGER
        case "set":
            # numbers can be chosen so that a set of them takes hours to build; the hash of texts is random
            return isinstance(dump, list) and all(isinstance(item, str) for item in dump)
        case "np.ndarray":
            return _is_array(dump)
        case _ if kind in VECTORS:
            # as a list, declearn reads a few values of a tensor of any size
            return isinstance(dump, dict) and all(
                isinstance(name, str) and isinstance(array, np.ndarray) for name, array in dump.items()
            )
        case _:
            return True


def _is_array(dump: Any) -> bool:
    match dump:
        case [bytes(data), str(code), list(shape)] if code in NUMBERS and len(shape) <= MOST_DIMENSIONS:
            if not all(type(length) is int and length >= 0 for length in shape):
                return False
            items: int = math.prod(max(length, 1) for length in shape)
            return items <= max(len(data), LONGEST_EMPTY)
        case _:
            return False
