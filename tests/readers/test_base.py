"""What every reader gives: examples that are read when they are wanted, and lists of classes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import DataError
from services.readers import base
from services.readers.base import Rows

ARRAY = np.random.default_rng(0).integers(0, 256, (10, 3, 2), dtype=np.uint8)


def counted(array: NDArray[np.uint8], asked: list[int]) -> Rows:
    """Give rows that note how many are read at a time."""

    def fetch(places: NDArray[np.intp]) -> NDArray[np.uint8]:
        asked.append(len(places))
        return array[places]

    return Rows(array.shape, array.dtype, fetch)


def test_rows_are_saved_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is what `numpy.save` writes of the whole, and never more than a block is in memory."""
    monkeypatch.setattr(base, "BLOCK", 4 * 6)
    asked: list[int] = []
    file, expected = io.BytesIO(), io.BytesIO()
    counted(ARRAY, asked).save(file)
    np.save(expected, ARRAY)
    assert file.getvalue() == expected.getvalue()
    assert asked == [4, 4, 2]


def test_an_example_larger_than_a_block_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large an example is, at least one is read at a time."""
    monkeypatch.setattr(base, "BLOCK", 1)
    assert [block.shape for block in Rows.of(ARRAY).blocks()] == [(1, 3, 2)] * 10


def test_picked_rows_are_read_alone() -> None:
    """Rows at some places, in another shape, are those of the whole, of which no other is read."""
    asked: list[int] = []
    rows = counted(ARRAY, asked).pick(np.array([7, 1, 3])).reshaped((2, 3))
    assert rows.shape == (3, 2, 3)
    np.testing.assert_array_equal(rows[np.array([2, 0])], ARRAY[[3, 7]].reshape(2, 2, 3))
    assert asked == [2]


def test_floats_are_single() -> None:
    """Floats of double precision are written in single."""
    file = io.BytesIO()
    Rows.of(np.array([[0.1, 2]])).save(file)
    file.seek(0)
    written = np.load(file)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, np.array([[0.1, 2]], np.float32))


def test_names_are_ordered_as_people_do() -> None:
    """Numbers in names count by their value, and any two names can be compared."""
    names = ["b", "10", "a2", "9", "a10", "", "2b"]
    assert sorted(names, key=base.natural) == ["", "2b", "9", "10", "a2", "a10", "b"]


def test_a_list_of_classes_is_one_a_line(tmp_path: Path) -> None:
    """Names stand a line each, blank lines and spaces around them apart; without the file there are none."""
    assert base.read_classes(tmp_path) is None
    (tmp_path / "classes.txt").write_bytes("\ufeffT-shirt\r\n\r\n ankle boot \r\nBüchse".encode())
    assert base.read_classes(tmp_path) == ("T-shirt", "ankle boot", "Büchse")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a\nb\na\n", "classes.txt names a twice; wanted each class once; remove one of them"),
        (b"a\n", "classes.txt holds 1 class; wanted from 2 to 256 classes; add another class"),
        (b"", "classes.txt holds 0 classes; wanted from 2 to 256 classes; add another class"),
        (
            "\n".join(map(str, range(257))).encode(),
            "classes.txt holds 257 classes; wanted from 2 to 256 classes; merge",
        ),
        (b"\xff", "classes.txt is no UTF-8 text; wanted a name of a class a line; write it again"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, line: str) -> None:
    """A class that stands twice, too few, too many, or no text at all is refused."""
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        base.read_classes(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/{line}")


def test_broken_numbers_are_counted_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN and infinite values are found wherever they stand."""
    monkeypatch.setattr(base, "BLOCK", 8)
    array = np.zeros((9, 2), np.float32)
    array[[3, 8], [0, 1]] = np.nan, -np.inf
    with pytest.raises(DataError, match=r"^x holds 2 values that are NaN or infinite; wanted finite numbers only;"):
        base.checked(Rows.of(array), "x", None)
