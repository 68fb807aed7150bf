"""Examples as IDX files, gzipped or not, under the names of MNIST's.

Format: <http://yann.lecun.com/exdb/mnist/> (big-endian header, then one byte a value).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.readers.base import Contents, Part, Reading, Rows, checked, inside, paired, visible

KIND = "IDX files"
WANTED = "train-images-idx3-ubyte and train-labels-idx1-ubyte, gzipped or not"
OPTIONS = ("shape",)

MAX_BYTES = 2**32
"""Bytes of one file once decompressed; more would fill the memory."""

_PREFIXES = {"train": "train", "test": "t10k", "valid": "valid"}
_BYTES = 8
"""IDX's number for unsigned bytes."""

_MEND = "write it again, or restore it"


def files(folder: Path, second: str) -> list[Path]:
    """List the IDX files in `folder`.

    Raises:
        DataError: one is a link that leads out of it.
    """
    del second
    return [inside(path, folder) for path in visible(folder) if path.name.removesuffix(".gz").endswith("-ubyte")]


def read(folder: Path, second: str, reading: Reading) -> Contents:
    """Read the images and labels to train on, and those beside them (`t10k-…` to test, `valid-…` to validate).

    Raises:
        DataError: a file is missing, unreadable or damaged.
    """
    train = _part(folder, _PREFIXES["train"], reading)
    prefix = _PREFIXES[second]
    there = any(path.name.startswith(f"{prefix}-") for path in files(folder, second))
    return Contents(train, _part(folder, prefix, reading) if there else None, None)


def _part(folder: Path, prefix: str, reading: Reading) -> Part:
    images, pixels = _file(folder, f"{prefix}-images-idx3-ubyte")
    labels, numbers = _file(folder, f"{prefix}-labels-idx1-ubyte")
    if numbers.ndim != 1:
        raise DataError(f"{labels} holds an array of shape {numbers.shape}", "labels of shape (n,)", _MEND)
    rows = checked(Rows.of(pixels), str(images), reading.shape)
    return paired(rows, numbers, str(images), labels.name)


def _file(folder: Path, name: str) -> tuple[Path, NDArray[np.uint8]]:
    """Read one file, gzipped or not."""
    plain, packed = folder / name, folder / f"{name}.gz"
    path = packed if packed.exists() else plain
    try:
        with gzip.open(path) if path == packed else path.open("rb") as stream:
            return path, _array(path, cast("BinaryIO", stream))
    except FileNotFoundError:
        raise DataError(f"{plain} is missing", f"{name}, gzipped or not", "put it there") from None
    except EOFError:
        raise DataError(f"{path} is truncated", "a whole file", _MEND) from None
    except (gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is no gzip file, or a damaged one", "a whole file", _MEND) from None
    except OSError as exc:
        raise DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions") from exc


def _array(path: Path, stream: BinaryIO) -> NDArray[np.uint8]:
    start = stream.read(4)
    rank = start[3] if len(start) == 4 else 0  # noqa: PLR2004 - two zeros, the type, the number of axes
    if start[:3] != bytes([0, 0, _BYTES]) or not 1 <= rank <= 4:  # noqa: PLR2004 - (n, height, width, channels)
        raise DataError(f"{path} begins with {start.hex(' ') or 'nothing'}", "an IDX file of bytes (00 00 08 …)", _MEND)
    header = stream.read(4 * rank)
    if len(header) < 4 * rank:
        raise EOFError
    shape = tuple(int(axis) for axis in np.frombuffer(header, ">u4"))
    count = math.prod(shape)
    if not 0 < count <= MAX_BYTES:
        raise DataError(f"{path} holds {count:,} values by its header", f"from 1 to {MAX_BYTES:,}", _MEND)
    # One byte more than wanted tells a file that goes on, and makes gzip check the stream's own checksum.
    content = stream.read(count + 1)
    if len(content) != count:
        more = "more" if len(content) > count else f"{len(content):,}"
        raise DataError(f"{path} holds {more} values", f"the {count:,} that its header tells of", _MEND)
    return np.frombuffer(content, np.uint8).reshape(shape)
