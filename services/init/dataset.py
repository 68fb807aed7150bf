"""The data sets that are known: four IDX files each, checked by digest and kept as plain arrays.

Format of the files: <http://yann.lecun.com/exdb/mnist/> (big-endian header, then one byte a value).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.paths import Paths, writing
from services.readers.base import Rows
from services.shards import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS


@dataclass(frozen=True)
class IdxFile:
    """One gzipped IDX file of bytes.

    Attributes:
        name: of the file, as its authors call it and declearn's `load_mnist` looks for it.
        shape: of the array it holds.
        sha256: of its content once decompressed (gzip streams of the same content differ).
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """The IDX magic number (0x08: unsigned bytes) and the length of each axis."""
        return bytes([0, 0, 8, len(self.shape)]) + np.array(self.shape, dtype=">u4").tobytes()

    @property
    def size(self) -> int:
        """Bytes once decompressed."""
        return len(self.header) + math.prod(self.shape)


DIGITS = tuple("0123456789")
_RESTORE = "restore it from the repository (`git checkout data/mnist_raw`)"


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: two files to train on, two to test on.

    Attributes:
        name: of the data set.
        classes: their names, in the order of the labels.
        remedy: what to do about a file that is missing or altered.
        folder: where its files are when nobody says otherwise, or None for `Paths.raw`.
    """

    name: str
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile
    classes: tuple[str, ...] = DIGITS
    remedy: str = _RESTORE
    folder: Path | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train_images.shape[1:]

    @property
    def sha256(self) -> str:
        """A digest of the whole data set, over those of its four files."""
        files = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()


MNIST = Source(
    "mnist",
    IdxFile(
        "train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    IdxFile(
        "train-labels-idx1-ubyte.gz",
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte.gz",
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST = Source(
    "fashion-mnist",
    IdxFile(
        "train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile(
        "train-labels-idx1-ubyte.gz",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte.gz",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    "`apt-get install dataset-fashion-mnist` and set DATA to /usr/share/datasets/fashion-mnist, or to another folder"
    " of the four files",
    Path("/usr/share/datasets/fashion-mnist"),
)
"""Xiao, Rasul and Vollgraf 2017, MIT licence; where Debian's package `dataset-fashion-mnist` puts it."""

SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in (MNIST, FASHION_MNIST)})


@dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, all of it uint8.

    Attributes:
        name: of the data set.
        sha256: of its content.
        classes: their names, in the order of the labels.
        train_images: (n, height, width[, channels]).
        train_labels: (n,), each below the number of classes.
        test_images: as `train_images`.
        test_labels: (m,), as `train_labels`.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train_images.shape[1:]


class Content(Protocol):
    """What a `Dataset` has, and a person's own data set too, whose examples are read when they are wanted."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the labels."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def train_images(self) -> NDArray[np.uint8] | Rows:
        """Those to train on."""

    @property
    def train_labels(self) -> NDArray[np.uint8]:
        """Their labels, (n,)."""

    @property
    def test_images(self) -> NDArray[np.uint8] | Rows:
        """Those to test on."""

    @property
    def test_labels(self) -> NDArray[np.uint8]:
        """Their labels, (m,)."""


class Origin(Protocol):
    """What a data set is dealt from, known before it is read."""

    @property
    def name(self) -> str:
        """Name of the data set."""

    @property
    def sha256(self) -> str:
        """A digest of its content."""

    @property
    def reading(self) -> Mapping[str, Any]:
        """How it is read, where that is for a person to say."""

    def load(self) -> Content:
        """Read it."""


@dataclass(frozen=True)
class Known:
    """An `Origin` whose files are known by their digests.

    Attributes:
        source: what they are.
        folder: where they are.
    """

    source: Source
    folder: Path

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def sha256(self) -> str:
        return self.source.sha256

    @property
    def reading(self) -> Mapping[str, Any]:
        return {}

    def load(self) -> Dataset:
        return load(self.folder, self.source)


def load(raw: Path, source: Source = MNIST) -> Dataset:
    """Read the four IDX files in the folder `raw` and check each against its digest.

    Raises:
        DataError: a file is missing, unreadable, truncated or altered.
    """
    return Dataset(
        source.name,
        source.sha256,
        source.classes,
        load_file(raw, source.train_images, source.remedy),
        load_file(raw, source.train_labels, source.remedy),
        load_file(raw, source.test_images, source.remedy),
        load_file(raw, source.test_labels, source.remedy),
    )


def load_file(raw: Path, file: IdxFile, remedy: str = _RESTORE) -> NDArray[np.uint8]:
    """Read one IDX file in the folder `raw`; see `load`."""
    path = raw / file.name
    original = f"the {file.size:,} bytes of the original, gzipped"
    try:
        with gzip.open(path) as stream:
            # One byte more than wanted tells a file that goes on, and makes gzip check the stream's own checksum.
            content = stream.read(file.size + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", original, remedy) from None
    except EOFError:
        raise DataError(f"{path} is truncated", original, remedy) from None
    except (gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is no gzip file, or a damaged one", original, remedy) from None
    except OSError as exc:
        raise DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions") from exc
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(f"{path} is altered: its content has SHA-256 {digest}", file.sha256, remedy)
    return np.frombuffer(content, np.uint8, offset=len(file.header)).reshape(file.shape)


def find(name: str, paths: Paths) -> Known:
    """Tell the files of a data set, and the folder that holds them: DATA, or the data set's own place."""
    source = SOURCES[name]
    return Known(source, paths.data or source.folder or paths.raw)


def write_train(dataset: Content, folder: Path) -> dict[str, str]:
    """Write the training arrays into `folder`, each whole or not at all.

    Returns:
        the SHA-256 of each file written, by its name.

    Raises:
        StorageError: the folder can't be written.
    """
    return _write(folder, {TRAIN_IMAGES: dataset.train_images, TRAIN_LABELS: dataset.train_labels})


def write_test(dataset: Content, folder: Path) -> dict[str, str]:
    """Write the held-out test arrays into `folder`; see `write_train`."""
    return _write(folder, {TEST_IMAGES: dataset.test_images, TEST_LABELS: dataset.test_labels})


def digest_file(path: Path) -> str:
    """Give the SHA-256 of the file at `path`, or an empty text when it can't be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _write(folder: Path, arrays: Mapping[str, NDArray[np.uint8] | Rows]) -> dict[str, str]:
    for name, array in arrays.items():
        with writing(folder / name) as file:
            if isinstance(array, Rows):
                array.save(file)
            else:
                np.save(file, array, allow_pickle=False)
    return {name: digest_file(folder / name) for name in arrays}
