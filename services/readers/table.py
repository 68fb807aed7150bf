"""Examples as a table: a line an example, a column of labels, the values of the example in the others.

A file is read some lines at a time; values stay bytes for as long as all of them are whole numbers from 0 to 255.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.readers.base import (
    CLASSES,
    GRAY,
    Contents,
    Part,
    Reading,
    Rows,
    check_count,
    check_labels,
    checked,
    inside,
    natural,
    read_classes,
    visible,
)

KIND = "a table"
WANTED = "train.csv, or one .csv file of any name"
OPTIONS = ("label", "shape")

LINES = 2000
"""Lines that are read at a time."""

MISSING = {"", "nan", "NaN"}
"""What stands in a table where there is no label."""

SMALLEST_SQUARE = 8
"""Side of the smallest image that a number of columns is taken for when nobody says so."""

logger = logging.getLogger("fed.data")


@dataclass(frozen=True)
class Table:
    """One file, read.

    Attributes:
        path: of it.
        columns: names of the columns, or None where they have none.
        label: name or number of the column of labels.
        values: (n, columns - 1), uint8 where all are whole numbers from 0 to 255, else float32.
        labels: the text of each label.
        lines: number of the line that each example stands in.
    """

    path: Path
    columns: tuple[str, ...] | None
    label: str
    values: NDArray[Any]
    labels: tuple[str, ...]
    lines: tuple[int, ...]

    @property
    def numbered(self) -> bool:
        """Whether labels are numbers, not names."""
        return all(_is_number(label) for label in set(self.labels))

    def line_of(self, label: str) -> str:
        """Tell where a label stands first."""
        return f"{self.path}, line {self.lines[self.labels.index(label)]}"


def files(folder: Path, second: str) -> list[Path]:
    """List the tables in `folder`.

    Raises:
        DataError: one is a link that leads out of it.
    """
    del second
    return [inside(path, folder) for path in visible(folder) if path.suffix.lower() == ".csv"]


def read(folder: Path, second: str, reading: Reading) -> Contents:
    """Read `train.csv`, or the only table there is, and the one beside it (`test.csv`, or `valid.csv` at a site).

    Labels are whole numbers from 0 on, or names; these are numbered as `classes.txt` says, or else as they sort.

    Raises:
        DataError: a file is unreadable, a line is not like the others, or a value is no finite number.
    """
    found = {path.name: path for path in files(folder, second)}
    names = ", ".join(found)
    other = found.pop(f"{second}.csv", None)
    path = found.pop("train.csv", None) or (found.popitem()[1] if len(found) == 1 else None)
    if path is None or (found and second == "test"):
        raise DataError(f"{folder} holds {names}", f"{WANTED}, and {second}.csv if there is one", "rename or move them")
    train = _load(path, reading)
    beside = None if other is None else _load(other, reading)
    if beside is not None and beside.columns != train.columns:
        raise DataError(
            f"{beside.path} has other columns than {path.name}", "the same columns, in the same order", "write it again"
        )
    classes = None
    if not train.numbered:
        classes = read_classes(folder) or tuple(sorted(set(train.labels), key=natural))
        check_count(len(classes), f"column {train.label} of {path}")
    form = _form(train, reading)
    return Contents(_part(train, classes, form), None if beside is None else _part(beside, classes, form), classes)


def _form(table: Table, reading: Reading) -> tuple[int, ...]:
    """Settle the shape of one example: as `data.shape` says, or a square where values are plainly an image's."""
    width = table.values.shape[1]
    side = math.isqrt(width)
    if reading.shape is not None:
        return reading.shape
    if table.values.dtype != np.uint8 or side * side != width or side < SMALLEST_SQUARE:
        return (width,)
    logger.info(
        "%s: %d columns of whole numbers from 0 to 255 taken for images of %d x %d (data.shape: [%d] for features)",
        table.path, width, side, side, width,
    )  # fmt: skip
    return (side, side)


def _part(table: Table, classes: Sequence[str] | None, form: tuple[int, ...]) -> Part:
    values = table.values
    if len(form) < GRAY:  # features are what they are, and not scaled as the bytes of an image
        values = values.astype(np.float32, copy=False)
    labels = _numbers(table) if classes is None else _named(table, classes)
    return Part(checked(Rows.of(values), str(table.path), form), labels)


def _numbers(table: Table) -> NDArray[np.uint8]:
    """Read labels that are numbers."""
    for label in sorted(set(table.labels), key=natural):
        if not _is_number(label) or float(label) != int(float(label)):
            raise DataError(
                f"{table.line_of(label)}: label {label!r} in column {table.label}",
                "whole numbers from 0 on, or names",
                "set data.label to the column that holds the labels",
            )
    return check_labels(
        np.array([int(float(label)) for label in table.labels]), f"column {table.label} of {table.path}"
    )


def _named(table: Table, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Number labels that are names."""
    numbers = {name: number for number, name in enumerate(classes)}
    strange = next((label for label in table.labels if label not in numbers), None)
    if strange is not None:
        raise DataError(
            f"{table.line_of(strange)}: label {strange!r}",
            f"one of {', '.join(classes[:10])}{' …' * (len(classes) > 10)}",  # noqa: PLR2004 - enough to see
            f"correct it, or list all classes in {CLASSES}",
        )
    return np.array([numbers[label] for label in table.labels], np.uint8)


def _load(path: Path, reading: Reading) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse(path, file, reading)
    except OSError as exc:
        raise DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions") from exc
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text", "a table as text, comma-separated", "save it as UTF-8") from None


def _parse(path: Path, file: TextIO, reading: Reading) -> Table:
    lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty", "a line an example", "write it again")
    delimiter = next((d for d in ",;\t" if d in first[1]), ",")
    cells = [cell.strip() for cell in next(csv.reader([first[1]], delimiter=delimiter))]
    columns = tuple(cells) if _is_header(cells, reading.label) else None
    label = _label_column(path, cells, columns, reading.label)
    examples: Iterator[tuple[int, str]] = itertools.chain([first] if columns is None else [], lines)
    name = columns[label] if columns else str(label + 1)
    texts: list[str] = []
    numbers: list[int] = []
    blocks: list[NDArray[Any]] = []
    for block in _batches(examples):
        values = _values(path, block, delimiter, label, columns or len(cells), texts)
        numbers += [number for number, _ in block]
        whole = values.min() >= 0 and values.max() <= 255 and (values == np.trunc(values)).all()  # noqa: PLR2004 - bytes
        blocks.append(values.astype(np.uint8) if whole else values)
    if not blocks:
        raise DataError(f"{path} holds the names of columns alone", "a line an example", "write it again")
    # zeros and ones alone are fractions of a whole, not shades of black
    plain = all(block.dtype == np.uint8 for block in blocks) and max(int(block.max()) for block in blocks) > 1
    values = np.concatenate([block.astype(np.uint8 if plain else np.float32, copy=False) for block in blocks])
    return Table(path, columns, name, values, tuple(texts), tuple(numbers))


def _is_header(cells: Sequence[str], label: str | None) -> bool:
    """Tell names of columns from an example: they name the label, or none of them is a number."""
    return (label or "label") in cells or not any(_is_number(cell) for cell in cells)


def _label_column(path: Path, cells: Sequence[str], columns: Sequence[str] | None, label: str | None) -> int:
    """Find the column of labels: by its name, or by its number from 1."""
    if len(cells) < 2:  # noqa: PLR2004 - a label and a value
        raise DataError(f"{path} has one column", "a column of labels and columns of values", "write it again")
    if columns is not None and (label or "label") in columns:
        return columns.index(label or "label")
    if label is None:
        return 0
    if label.isdecimal() and 1 <= int(label) <= len(cells):
        return int(label) - 1
    known = f"one of {', '.join(columns[:10])}" if columns else f"a number from 1 to {len(cells)}, for want of names"
    raise DataError(f"{path} has no column {label!r}", known, "correct data.label")


def _batches(lines: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while block := list(itertools.islice(lines, LINES)):
        yield block


def _values(
    path: Path,
    block: Sequence[tuple[int, str]],
    delimiter: str,
    label: int,
    columns: Sequence[str] | int,
    texts: list[str],
) -> NDArray[np.float32]:
    """Read the values of some lines, and add their labels to `texts`."""
    width = columns if isinstance(columns, int) else len(columns)
    before = len(texts)

    def take(text: str) -> float:
        texts.append(text.strip())
        return 0.0

    try:
        values = np.loadtxt(
            [line for _, line in block],
            np.float32,
            comments=None,
            delimiter=delimiter,
            quotechar='"',
            converters={label: take},
            encoding=None,
            ndmin=2,
        )
    except ValueError:
        values = np.zeros((0, 0), np.float32)
    labels = texts[before:]
    if values.shape != (len(block), width) or not np.isfinite(values).all() or not MISSING.isdisjoint(labels):
        raise _culprit(path, block, delimiter, label, columns)
    return np.delete(values, label, axis=1)


def _culprit(
    path: Path, block: Sequence[tuple[int, str]], delimiter: str, label: int, columns: Sequence[str] | int
) -> DataError:
    """Find the first line that is not like the others, and word what is wrong with it."""
    width = columns if isinstance(columns, int) else len(columns)
    for number, line in block:
        cells = next(csv.reader([line], delimiter=delimiter))
        where = f"{path}, line {number}"
        if len(cells) != width:
            return DataError(f"{where}: {len(cells)} values", f"{width}, as in the first line", "mend that line")
        for place, cell in enumerate(cells):
            name = place + 1 if isinstance(columns, int) else columns[place]
            if place == label and cell.strip() in MISSING:
                return DataError(f"{where}: no label in column {name}", "a label", "add it, or remove that line")
            if place != label and not (_is_number(cell) and abs(float(cell)) <= np.finfo(np.float32).max):
                return DataError(
                    f"{where}: {cell!r} in column {name}",
                    "a finite number",
                    "mend that line, or set data.label if these are the labels",
                )
    return DataError(f"{path}, lines {block[0][0]} to {block[-1][0]} can't be read", "a plain table", "write it again")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
