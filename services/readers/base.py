"""What every reader gives, and what is checked whatever it read.

Examples are read when they are wanted: a folder of many images, or a large array, is copied block by block and never
held in memory as a whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.shards import EXAMPLE_RANKS, MAX_CLASSES, Pixels

CLASSES = "classes.txt"
"""File that names the classes, one a line, in the order of the labels 0, 1, …"""

BLOCK = 16 * 2**20
"""Bytes of examples that are in memory at a time."""

MAX_VALUES = 2**22
"""Values of one example: an image of 1,182 x 1,182 in three colours; larger ones are a mistake, or an attack."""

VECTOR, GRAY, COLOUR = 1, 2, 3
"""Axes of one example: a vector of features, a gray image, and one with channels."""


@dataclass(frozen=True)
class Reading:
    """How to read what a folder does not say of itself.

    Attributes:
        label: column of a table that holds the labels: its name, or its number from 1 where columns have no names; None
            for `label`, or else the first.
        shape: of one example, for vectors that are images; None where they stay as they are, or are plainly squares.
        size: (height, width) that images are resized to; None where they all have one size.
        grayscale: read images in colour as gray ones.
    """

    label: str | None = None
    shape: tuple[int, ...] | None = None
    size: tuple[int, ...] | None = None
    grayscale: bool = False


class Rows:
    """Examples that are read when they are wanted.

    Args:
        shape: (n, …) of all.
        dtype: uint8 in 0 … 255, or float32.
        fetch: reads those at the places given, (m,), into an array (m, …).
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], fetch: Callable[[NDArray[np.intp]], NDArray[Any]]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._fetch = fetch

    @classmethod
    def of(cls, array: NDArray[Any]) -> Rows:
        """Wrap an array; floats of any width become float32."""
        dtype = np.dtype(np.uint8 if array.dtype == np.uint8 else np.float32)
        return cls(array.shape, dtype, lambda places: array[places].astype(dtype, copy=False))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: NDArray[np.intp]) -> Pixels:
        return self._fetch(places)

    def pick(self, places: NDArray[np.intp]) -> Rows:
        """Give those at the places alone."""
        return Rows((len(places), *self.shape[1:]), self.dtype, lambda some: self._fetch(places[some]))

    def reshaped(self, shape: tuple[int, ...]) -> Rows:
        """Give the same values, each example in another shape."""
        return Rows((len(self), *shape), self.dtype, lambda some: self._fetch(some).reshape(-1, *shape))

    def save(self, file: BinaryIO) -> None:
        """Write all as `numpy.save` writes an array of them."""
        descr = np.lib.format.dtype_to_descr(self.dtype)
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": self.shape})
        file.writelines(np.ascontiguousarray(block).tobytes() for block in self.blocks())

    def blocks(self) -> Iterator[Pixels]:
        """Yield all examples in their order, some at a time."""
        step = max(1, BLOCK // (math.prod(self.shape[1:]) * self.dtype.itemsize))
        for start in range(0, len(self), step):
            yield self._fetch(np.arange(start, min(start + step, len(self))))


@dataclass(frozen=True)
class Part:
    """Examples with their labels.

    Attributes:
        rows: (n, features), (n, height, width) or (n, height, width, channels).
        labels: (n,).
    """

    rows: Rows
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        train: to train on.
        second: to test or to validate on, or None where there is none.
        classes: their names, or None where labels are bare numbers.
    """

    train: Part
    second: Part | None
    classes: tuple[str, ...] | None


def natural(name: str) -> tuple[Any, ...]:
    """Order names as people do: numbers by their value."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name))


def visible(folder: Path) -> list[Path]:
    """List a folder's entries in the order of their names, but for hidden ones.

    Raises:
        DataError: the folder is missing or can't be read.
    """
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith((".", "__"))), key=_by_name)
    except OSError as exc:
        raise DataError(
            f"{folder} can't be read ({exc.strerror or exc})",
            "a folder of data that this user may read",
            "set DATA to one, or mend its permissions",
        ) from exc


def _by_name(path: Path) -> tuple[Any, ...]:
    return natural(path.name)


def inside(path: Path, root: Path) -> Path:
    """Refuse a symbolic link that leads out of the folder `root`.

    Raises:
        DataError: it does.
    """
    try:
        strays = path.is_symlink() and not path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # a link that leads to itself
        strays = True
    if strays:
        raise DataError(
            f"{path} is a link that leads out of its folder", "files that lie in it", "put the file itself there"
        )
    return path


def read_classes(folder: Path) -> tuple[str, ...] | None:
    """Read `classes.txt`, or give None where there is none.

    Raises:
        DataError: it can't be read, names a class twice, or holds too few or too many names.
    """
    path = inside(folder / CLASSES, folder)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions") from exc
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text", "a name of a class a line", "write it again") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise DataError(f"{path} names {twice} twice", "each class once", "remove one of them")
    check_count(len(names), str(path))
    return names


def check_count(classes: int, where: str) -> None:
    """Refuse fewer than two classes, and more than labels of one byte tell apart.

    Raises:
        DataError: names the number.
    """
    if not 2 <= classes <= MAX_CLASSES:  # noqa: PLR2004 - one class leaves nothing to tell apart
        raise DataError(
            f"{where} holds {classes} class{'es' * (classes != 1)}",
            f"from 2 to {MAX_CLASSES} classes",
            "add another class" if classes < 2 else "merge some",  # noqa: PLR2004
        )


def check_labels(labels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Refuse labels that are no whole numbers from 0 to 255.

    Args:
        labels: (n,), of any type.
        where: what to call them.

    Raises:
        DataError: names what was found.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where} holds an array of shape {labels.shape} as {labels.dtype}",
            "one whole number an example",
            "write the labels as integers of shape (n,)",
        )
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES):
        raise DataError(
            f"{where} holds labels from {labels.min()} to {labels.max()}",
            f"labels from 0 to {MAX_CLASSES - 1}",
            "number the classes from 0 on",
        )
    return labels.astype(np.uint8)


def paired(rows: Rows, labels: NDArray[np.uint8], images: str, targets: str) -> Part:
    """Refuse examples and labels that are not as many.

    Raises:
        DataError: names both numbers.
    """
    if len(rows) != len(labels):
        raise DataError(
            f"{images} holds {len(rows)} examples and {targets} {len(labels)} labels",
            "as many of each",
            "write both files again from the same data",
        )
    return Part(rows, labels)


def checked(rows: Rows, where: str, shape: Sequence[int] | None) -> Rows:
    """Put examples into the shape asked for, and refuse what would spoil a model.

    Args:
        rows: examples.
        where: what to call them.
        shape: of one example, or None for the shape they have.

    Raises:
        DataError: they can't have that shape, are too large, hold NaN or an infinite number, or are images of floats
            outside of [0, 1].
    """
    if shape is not None and rows.shape[1:] != tuple(shape):
        if math.prod(rows.shape[1:]) != math.prod(shape):
            raise DataError(
                f"{where} holds examples of {_times(rows.shape[1:])} values",
                f"{_times(shape)} (data.shape)",
                "correct data.shape, or leave it out",
            )
        rows = rows.reshaped(tuple(shape))
    if len(rows.shape) not in EXAMPLE_RANKS or math.prod(rows.shape[1:]) > MAX_VALUES:
        raise DataError(
            f"{where} holds examples of {_times(rows.shape[1:])} values",
            f"at most {MAX_VALUES:,} of them, as features, height x width, or height x width x channels",
            "make them smaller",
        )
    if rows.dtype == np.uint8:
        return rows
    low, high, broken = math.inf, -math.inf, 0
    for block in rows.blocks():
        finite = np.isfinite(block)
        if not finite.all():
            broken += int((~finite).sum())
        else:
            low, high = min(low, float(block.min())), max(high, float(block.max()))
    if broken:
        raise DataError(
            f"{where} holds {broken} values that are NaN or infinite",
            "finite numbers only",
            "remove those examples, or mend them",
        )
    if len(rows.shape) - 1 > VECTOR and (low < 0 or high > 1):
        raise DataError(
            f"{where} holds values from {low:g} to {high:g}",
            "floats in [0, 1], or uint8",
            "divide by the largest possible value",
        )
    return rows


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(axis) for axis in shape)
