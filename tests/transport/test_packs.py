"""Message packs: plain data, and no more of it than was allowed."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from services.transport.packs import unpack


@pytest.mark.parametrize(
    "value", [[[]] * 200, [{str(n): n for n in range(50)}] * 2, [[[[[[[[[1]]]]]]]]] * 8, list(range(101))]
)
def test_the_parts_of_a_message_are_counted(value: Any) -> None:
    """Lists and maps, however they are nested, have a number of items in all; as many as that are read."""
    content = msgpack.packb(value)
    with pytest.raises(ValueError, match=r"it can't be read|it holds too many things"):
        unpack(content, 60)
    assert unpack(content, 1000) == value


@pytest.mark.parametrize("depth", [2000, 100_000])
def test_a_message_may_not_be_nested_without_end(depth: int) -> None:
    """A message of lists within lists is refused, not followed to the end of the stack."""
    with pytest.raises(ValueError, match="it can't be read"):
        unpack(b"\x91" * depth + b"\x01", 10**9)
    with pytest.raises(ValueError, match="it can't be read"):
        unpack(b"\xdd\x7f\xff\xff\xff" * 100, 200_000)
