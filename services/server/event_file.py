"""TensorBoard's event files, written so that whatever happens to the server each value stands there once.

The format is TFRecord (tensorflow/core/lib/io/record_writer.h): records with checksums, each of them an `Event` of
TensorFlow's protocol. tensorboardX has the messages and the checksum; its writers begin a new file with every process,
and lose the errors of their thread.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

HEADER = struct.Struct("<QI")
"""Length of a record, and the checksum of these eight bytes."""

CHECK = struct.Struct("<I")
"""Checksum of a record, after it."""

VERSION = "brain.Event:2"


class EventFile:
    """One event file, open to more.

    What a killed process left half-written at its end is cut off.

    Args:
        path: the file; the first values make it, and its folder.

    Attributes:
        step: the last one that has any value; -1 where none has.

    Raises:
        OSError: it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, int] = {}
        self.step = -1
        content = path.read_bytes() if path.exists() else b""
        end = 0
        for end, event in _events(content):  # noqa: B007 - the last end is where the file is cut
            self._note(event)
        if end < len(content):
            os.truncate(path, end)
        self._begun = end > 0

    def append(self, step: int, values: Iterable[Any]) -> None:
        """Write values, but for those whose tag has one of this step or of a later one.

        They are one record, so that they are there together or not at all.

        Args:
            step: number of the round.
            values: messages `Summary.Value`.

        Raises:
            OSError: they can't be written; the file is as it was.
        """
        new = [value for value in values if self._steps.get(value.tag, -1) < step]
        if not new:
            return
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=new))
        version = b"" if self._begun else _record(Event(wall_time=time.time(), file_version=VERSION))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            size = file.tell()
            left = memoryview(version + _record(event))
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise
        self._begun = True
        self._note(event)

    def _note(self, event: Any) -> None:
        for value in event.summary.value:
            self._steps[value.tag] = event.step
            self.step = max(self.step, event.step)


def _record(event: Any) -> bytes:
    content: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join((length, CHECK.pack(masked_crc32c(length)), content, CHECK.pack(masked_crc32c(content))))


def _events(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the events of a file, each with where it ends, up to the first record that is not whole."""
    position = 0
    while position + HEADER.size <= len(content):
        length, check = HEADER.unpack_from(content, position)
        begin = position + HEADER.size
        end = begin + length
        if check != masked_crc32c(content[position : position + 8]) or end + CHECK.size > len(content):
            return
        if CHECK.unpack_from(content, end) != (masked_crc32c(content[begin:end]),):
            return
        position = end + CHECK.size
        yield position, Event.FromString(content[begin:end])
