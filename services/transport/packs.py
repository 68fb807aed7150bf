"""Message packs, read strictly: plain data, so many items of it at most.

declearn's reader builds whatever type a message names. A megabyte of nested maps becomes a hundred in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack


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
