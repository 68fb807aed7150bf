"""What `init` has dealt, as the roles read it: the manifest, a client's shard, the held-out test set.

The folder `data/shards` holds the training images once (`train_images.npy`, `train_labels.npy`) and, for every size of
federation, index sets `<size>/<seat>.npz` with `train` and `valid`. `data/test` holds the test images. Both hold the
same `manifest.json`. A site's own folder is read by `services.readers.folder`.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.paths import MANIFEST

TRAIN_IMAGES = "train_images.npy"
TRAIN_LABELS = "train_labels.npy"
TEST_IMAGES = "test_images.npy"
TEST_LABELS = "test_labels.npy"

MAX_CLASSES = 256
"""As many as labels of one byte can tell apart."""

EXAMPLE_RANKS = (2, 3, 4)
"""Axes of an array of examples: (n, features), (n, height, width) of one channel, or (n, height, width, channels)."""

EXAMPLES = "an array of shape (n, features), (n, height, width) or (n, height, width, channels)"

Pixels = NDArray[np.uint8] | NDArray[np.float32]

_AGAIN = "run init again (`fed init`, or `docker compose up`)"

# What numpy and zipfile raise on bytes that are not what they expect.
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Seat:
    """What one member of a federation holds.

    Attributes:
        train: number of training images.
        valid: number of validation images.
        labels: number of training images of each class.
    """

    train: int
    valid: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """The whole training set, dealt to a federation of one size.

    Attributes:
        sha256: of all its indices, seat by seat, training before validation, as little-endian uint32.
        seats: what each member holds.
    """

    sha256: str
    seats: tuple[Seat, ...]

    @property
    def usable(self) -> bool:
        """Whether every member has something to train on and something to validate on."""
        return all(seat.train and seat.valid for seat in self.seats)


@dataclass(frozen=True)
class Manifest:
    """What was dealt, and how.

    Attributes:
        dataset: name of the data set.
        data_sha256: of its content.
        reading: how a person's own data were read (`data.label`, `data.shape` …); empty for a data set that is known.
        image_shape: of one image: (height, width), or (height, width, channels); or (features,).
        classes: their names, in the order of the labels 0, 1, …
        scheme: how training images are split.
        alpha: concentration of the Dirichlet distribution; None with other schemes.
        classes_per_client: pieces dealt to each seat; None with other schemes than `shards`.
        seed: of the split.
        valid_fraction: share of each seat's images kept for validation.
        files: SHA-256 of each array's file, by its name.
        cuts: the cut for each size that could be made.
    """

    dataset: str
    data_sha256: str
    reading: Mapping[str, Any]
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    scheme: str
    alpha: float | None
    classes_per_client: int | None
    seed: int
    valid_fraction: float
    files: Mapping[str, str]
    cuts: Mapping[int, Cut]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of federation that can train, in rising order; a size that leaves a seat empty is not one."""
        return tuple(size for size in sorted(self.cuts) if self.cuts[size].usable)

    @property
    def largest(self) -> int:
        """The largest size that can train, or 0 when none can."""
        return max(self.sizes, default=0)


@dataclass(frozen=True)
class Shard:
    """One client's images and labels.

    Attributes:
        train_images: (n, height, width[, channels]), uint8 in 0 … 255 or float32 in [0, 1]; or (n, features), uint8 or
            float32 of any size.
        train_labels: (n,), uint8, from 0 on.
        valid_images: as `train_images`, or None where a site keeps none for validation.
        valid_labels: as `train_labels`, or None together with `valid_images`.
        classes: their names where a site knows them, or None.
    """

    train_images: Pixels
    train_labels: NDArray[np.uint8]
    valid_images: Pixels | None
    valid_labels: NDArray[np.uint8] | None
    classes: tuple[str, ...] | None = None


def index_file(folder: Path, size: int, seat: int) -> Path:
    """Name the file of the indices that `seat` of a federation of `size` holds."""
    return folder / str(size) / f"{seat}.npz"


def dump_manifest(manifest: Manifest) -> str:
    """Write `manifest` as the JSON text that `read_manifest` reads back into an equal one."""
    content = asdict(manifest)
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items() if key != "cuts"]
    cuts = [f"    {json.dumps(str(size))}: {json.dumps(content['cuts'][size])}" for size in sorted(manifest.cuts)]
    return "{\n" + ",\n".join([*lines, '  "cuts": {\n' + ",\n".join(cuts) + "\n  }"]) + "\n}\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder`, which is `data/shards` or `data/test`.

    Raises:
        DataError: it is missing, or not as `dump_manifest` writes it.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        return _manifest(content)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing",
            "the manifest that `fed init` writes",
            "run init first (`fed init`, or `docker compose up`)",
        ) from None
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except _DAMAGE:
        raise DataError(f"{path} is damaged", "the manifest that `fed init` writes", _AGAIN) from None


def load_indices(folder: Path, size: int, seat: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Read the indices into the training arrays that `seat` of a federation of `size` holds.

    Returns:
        training and validation indices, each of shape (n,).

    Raises:
        DataError: the file is missing, unreadable or damaged.
    """
    path = index_file(folder, size, seat)
    try:
        with np.load(path, allow_pickle=False) as content:
            train, valid = content["train"], content["valid"]
    except FileNotFoundError:
        raise DataError(f"{path} is missing", f"the indices of seat {seat} in a federation of {size}", _AGAIN) from None
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except _DAMAGE:
        raise DataError(f"{path} is damaged", "`train` and `valid` indices", _AGAIN) from None
    if not all(indices.dtype == np.uint32 and indices.ndim == 1 for indices in (train, valid)):
        raise DataError(f"{path} is damaged", "`train` and `valid` indices as uint32", _AGAIN)
    return train, valid


def read_labels(folder: Path) -> NDArray[np.uint8]:
    """Read the labels of all training images, (n,); raise DataError when the file is missing or damaged."""
    return np.array(_mapped_labels(folder / TRAIN_LABELS))


def load_shard(folder: Path, size: int, seat: int) -> Shard:
    """Copy one seat's images out of the training arrays, of which nothing else is read into memory.

    Args:
        folder: `data/shards`.
        size: number of clients in the federation.
        seat: which of them, from 0 to `size` - 1.

    Raises:
        DataError: a file is missing, unreadable or damaged, or no such seat was dealt.
    """
    train, valid = load_indices(folder, size, seat)
    images = _mapped_images(folder / TRAIN_IMAGES)
    labels = _mapped_labels(folder / TRAIN_LABELS)
    beyond = max((int(indices.max()) for indices in (train, valid) if indices.size), default=-1)
    if len(images) != len(labels) or beyond >= len(images):
        raise DataError(
            f"{folder} holds {len(images)} images, {len(labels)} labels and an index of {beyond}",
            "an image and a label for each index",
            _AGAIN,
        )
    return Shard(images[train], labels[train], images[valid], labels[valid])


def load_test(folder: Path) -> tuple[Pixels, NDArray[np.uint8]]:
    """Read the held-out test set.

    Args:
        folder: `data/test`.

    Returns:
        images as in a `Shard`, and labels (n,).

    Raises:
        DataError: a file is missing, unreadable or damaged.
    """
    images = cast("Pixels", np.array(_mapped_images(folder / TEST_IMAGES)))
    labels = np.array(_mapped_labels(folder / TEST_LABELS))
    if len(images) != len(labels):
        raise DataError(f"{folder} holds {len(images)} images and {len(labels)} labels", "as many of each", _AGAIN)
    return images, labels


def count_test(folder: Path) -> int:
    """Count the held-out test images in `folder`, or 0 where there are none that can be read."""
    try:
        return len(_mapped_labels(folder / TEST_LABELS))
    except DataError:
        return 0


def _manifest(content: Any) -> Manifest:
    """Build a manifest from JSON; anything amiss surfaces as ValueError, TypeError, KeyError or AttributeError."""
    cuts = {
        int(size): Cut(
            str(cut["sha256"]),
            tuple(Seat(int(s["train"]), int(s["valid"]), tuple(int(n) for n in s["labels"])) for s in cut["seats"]),
        )
        for size, cut in content["cuts"].items()
    }
    if any(len(cut.seats) != size for size, cut in cuts.items()):
        raise ValueError(cuts)
    return Manifest(
        dataset=str(content["dataset"]),
        data_sha256=str(content["data_sha256"]),
        reading=dict(content["reading"]),
        image_shape=tuple(int(axis) for axis in content["image_shape"]),
        classes=tuple(str(name) for name in content["classes"]),
        scheme=str(content["scheme"]),
        alpha=None if content["alpha"] is None else float(content["alpha"]),
        classes_per_client=None if content["classes_per_client"] is None else int(content["classes_per_client"]),
        seed=int(content["seed"]),
        valid_fraction=float(content["valid_fraction"]),
        files={str(name): str(digest) for name, digest in content["files"].items()},
        cuts=cuts,
    )


def _unreadable(path: Path, exc: OSError) -> DataError:
    return DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions, then start again")


def open_array(path: Path, remedy: str, *, mapped: bool) -> NDArray[Any]:
    """Read one .npy file, into memory or as a map of it; pickled objects are never loaded.

    Raises:
        DataError: it is missing, unreadable or no such file.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "", remedy) from None
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except _DAMAGE:
        raise DataError(
            f"{path} is no whole .npy file of plain numbers", "an array as numpy.save writes it", remedy
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} holds several arrays", "one array as numpy.save writes it", remedy)
    return array


def _mapped_images(path: Path) -> Pixels:
    array = open_array(path, _AGAIN, mapped=True)
    if array.dtype not in (np.uint8, np.float32) or array.ndim not in EXAMPLE_RANKS:
        raise DataError(f"{path} holds {described(array)}", f"{EXAMPLES} as uint8 or float32", _AGAIN)
    return array


def _mapped_labels(path: Path) -> NDArray[np.uint8]:
    array = open_array(path, _AGAIN, mapped=True)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise DataError(f"{path} holds {described(array)}", "an array of shape (n,) as uint8", _AGAIN)
    return array


def described(array: NDArray[Any]) -> str:
    """Word what an array is."""
    return f"an array of shape {array.shape} as {array.dtype}"
