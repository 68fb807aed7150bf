"""Examples as numpy arrays: a file for the examples, one for the labels, as `numpy.save` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.errors import DataError
from services.readers.base import Contents, Part, Reading, Rows, check_labels, checked, inside, paired, visible
from services.shards import EXAMPLE_RANKS, EXAMPLES, described, open_array

KIND = "arrays"
WANTED = "train_data.npy with train_target.npy, or images.npy with labels.npy"
OPTIONS = ("shape",)

_AGAIN = "write it again with numpy.save"
_PAIRS = (("train_data.npy", "train_target.npy"), ("images.npy", "labels.npy"))


def files(folder: Path, second: str) -> list[Path]:
    """List the arrays in `folder`.

    Raises:
        DataError: one is a link that leads out of it.
    """
    del second
    return [inside(path, folder) for path in visible(folder) if path.suffix == ".npy"]


def read(folder: Path, second: str, reading: Reading) -> Contents:
    """Read `train_data.npy` and `train_target.npy`, or `images.npy` and `labels.npy`, and what they may be beside.

    Raises:
        DataError: a file is missing, unreadable, or its array can't be trained on.
    """
    names = [path.name for path in files(folder, second)]
    pair = next((pair for pair in _PAIRS if any(name in names for name in pair)), None)
    if pair is None:
        raise DataError(f"{folder} holds {', '.join(names[:3])}", WANTED, "name the files so")
    other = (f"{second}_data.npy", f"{second}_target.npy")
    stray = [name for name in names if name not in {*pair, *other}]
    if stray and second == "test":
        raise DataError(
            f"{folder} holds {stray[0]} beside {' and '.join(pair)}",
            f"nothing else but {' and '.join(other)}",
            "rename it, or move it elsewhere",
        )
    train = _pair(folder, pair, reading)
    return Contents(train, _pair(folder, other, reading) if any(name in names for name in other) else None, None)


def _pair(folder: Path, names: tuple[str, str], reading: Reading) -> Part:
    data, target = (folder / name for name in names)
    array = open_array(data, _AGAIN, mapped=True)
    floats = np.issubdtype(array.dtype, np.floating)
    if array.ndim not in EXAMPLE_RANKS or not array.size or not (floats or array.dtype == np.uint8):
        raise DataError(
            f"{data} holds {described(array)}", f"{EXAMPLES} as uint8, or as floats", "write it again in that form"
        )
    rows = checked(Rows.of(array), str(data), reading.shape)
    labels = check_labels(open_array(target, _AGAIN, mapped=False), str(target))
    return paired(rows, labels, str(data), target.name)
