"""Event files: TensorFlow reads them, each value is there once, and what breaks off leaves no trace."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import tensorflow as tf
from tensorboardX.proto.summary_pb2 import Summary

from services.server.event_file import EventFile

Point = tuple[int, str, float]


def value(tag: str, figure: float) -> Summary.Value:
    """Make a value of a curve."""
    return Summary.Value(tag=tag, simple_value=figure)


def points(path: Path) -> list[Point]:
    """Read a file with TensorFlow's own reader, which checks every checksum."""
    records = tf.compat.v1.io.tf_record_iterator(str(path))
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    assert events[0].file_version == "brain.Event:2"
    return [(event.step, each.tag, each.simple_value) for event in events for each in event.summary.value]


def write(path: Path) -> None:
    """Write two steps of two values each."""
    file = EventFile(path)
    file.append(1, [value("a", 1.0), value("b", 2.0)])
    file.append(2, [value("a", 3.0), value("b", 4.0)])


WRITTEN: list[Point] = [(1, "a", 1.0), (1, "b", 2.0), (2, "a", 3.0), (2, "b", 4.0)]


def test_tensorflow_reads_what_is_written(tmp_path: Path) -> None:
    """The file is one that TensorFlow's reader takes, the folder is made with it, and everybody may read it."""
    path = tmp_path / "new" / "folder" / "events"
    write(path)
    assert points(path) == WRITTEN
    assert path.stat().st_mode & 0o444 == 0o444


def test_no_value_stands_twice(tmp_path: Path) -> None:
    """A step that a tag has had is left out, also by who opens the file anew; a new tag and a later step are not."""
    path = tmp_path / "events"
    write(path)
    file = EventFile(path)
    assert file.step == 2
    size = path.stat().st_size
    file.append(2, [value("a", 9.0)])
    file.append(1, [value("b", 9.0)])
    file.append(3, [])
    assert path.stat().st_size == size
    file.append(2, [value("a", 9.0), value("c", 5.0)])
    file.append(3, [value("a", 6.0)])
    assert points(path) == [*WRITTEN, (2, "c", 5.0), (3, "a", 6.0)]


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """To open a file makes none, and no step is in it."""
    assert EventFile(tmp_path / "events").step == -1
    assert not (tmp_path / "events").exists()


def test_a_record_that_broke_off_is_cut_off_wherever_it_did(tmp_path: Path) -> None:
    """Killed after any byte of a step, a file that is opened anew lacks this step whole, and takes it once more."""
    path = tmp_path / "events"
    file = EventFile(path)
    file.append(1, [value("a", 1.0), value("b", 2.0)])
    before = path.stat().st_size
    file.append(2, [value("a", 3.0), value("b", 4.0)])
    whole = path.read_bytes()
    for size in range(before, len(whole)):
        path.write_bytes(whole[:size])
        again = EventFile(path)
        assert (again.step, path.stat().st_size) == (1, before)
        again.append(2, [value("a", 3.0), value("b", 4.0)])
        assert points(path) == WRITTEN


def test_a_file_that_broke_off_at_its_beginning_begins_anew(tmp_path: Path) -> None:
    """A file that has nothing whole is one that has nothing."""
    path = tmp_path / "events"
    write(path)
    path.write_bytes(path.read_bytes()[:7])
    write(path)
    assert points(path) == WRITTEN


@pytest.mark.parametrize("place", [0, 8, 14, -1])
def test_a_damaged_record_is_cut_off(tmp_path: Path, place: int) -> None:
    """A byte that has changed in length, content or checksum of the last record costs this record alone."""
    path = tmp_path / "events"
    file = EventFile(path)
    file.append(1, [value("a", 1.0)])
    before = path.stat().st_size
    file.append(2, [value("a", 3.0)])
    content = bytearray(path.read_bytes())
    content[before + place if place >= 0 else place] ^= 0x41
    path.write_bytes(content)
    assert EventFile(path).step == 1
    assert points(path) == [(1, "a", 1.0)]


def test_a_write_that_fails_halfway_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Where there is room for a part of a record alone, the error is told, no part stays, and the next try succeeds."""
    path = tmp_path / "events"
    file = EventFile(path)
    file.append(1, [value("a", 1.0), value("b", 2.0)])
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            file.append(2, [value("a", 3.0), value("b", 4.0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == content
    file.append(2, [value("a", 3.0), value("b", 4.0)])
    assert points(path) == WRITTEN
