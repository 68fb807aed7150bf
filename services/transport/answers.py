"""What a server answers, read strictly: nothing is built of it but the few actions that a client expects.

declearn builds whatever type a message names, even in the envelope of an answer: models, and all that is in them.
"""

from __future__ import annotations

from typing import Any

import msgpack
from declearn.communication.api.backend.actions import Accept, ActionMessage, Ping, Reject, Send

MOST_FIELDS = 8
"""Items of an envelope; declearn's have two."""


def plain(content: bytes | memoryview, most: int) -> Any:
    """Unpack bytes into plain data: numbers, texts, bytes, and lists and maps of these.

    Args:
        content: what was sent.
        most: items that its lists and maps may have, all in all; a megabyte of nested ones takes a hundred in memory.

    Raises:
        ValueError: it is no message pack, or has more.
    """
    left = most

    def counted(value: Any) -> Any:
        nonlocal left
        left -= len(value) + 1
        if left < 0:
            raise ValueError("it holds too many things")
        return value

    def extended(code: int, data: bytes) -> Any:
        raise ValueError(f"it holds {len(data)} bytes of an unknown type {code}")

    try:
        return msgpack.unpackb(
            content,
            object_hook=counted,
            list_hook=counted,
            ext_hook=extended,
            max_array_len=most,
            max_map_len=most,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as exc:
        raise ValueError(f"it can't be read ({str(exc) or type(exc).__name__})") from exc


def read_answer(content: bytes) -> ActionMessage:
    """Parse what a server answers with.

    Raises:
        ValueError: it is none of declearn's answers.
    """
    match plain(content, MOST_FIELDS):
        case {"action": "ping", **rest} if not rest:
            return Ping()
        case {"action": "send", "content": bytes(inner), **rest} if not rest:
            return Send(inner)
        case {"action": "accept", "flag": str(flag), **rest} if not rest:
            return Accept(flag)
        case {"action": "reject", "flag": str(flag), **rest} if not rest:
            return Reject(flag)
        case _:
            raise ValueError("it is none of declearn's")
