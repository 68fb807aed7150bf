"""A person's own data set: what the folder that DATA names holds, checked, with a part held out to test on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError, UsageError
from services.experiment import Data
from services.init import dataset
from services.init.shards import Recipe
from services.paths import Paths
from services.readers import folder as readers
from services.readers.base import CLASSES, Part, Reading, Rows, check_count, read_classes

NAME = "own"

logger = logging.getLogger("fed.init")


@dataclass(frozen=True)
class Examples:
    """What an `Own` holds, checked: a `dataset.Content`.

    Attributes:
        classes: their names, in the order of the labels.
        train: to train on.
        test: to test on.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.train.rows.shape[1:]

    @property
    def train_images(self) -> Rows:
        return self.train.rows

    @property
    def train_labels(self) -> NDArray[np.uint8]:
        return self.train.labels

    @property
    def test_images(self) -> Rows:
        return self.test.rows

    @property
    def test_labels(self) -> NDArray[np.uint8]:
        return self.test.labels


@dataclass(frozen=True)
class Own:
    """A `dataset.Origin` in a folder of a person's own.

    Attributes:
        folder: the folder, looked through.
        how: how to read it.
        test_fraction: share of the examples of each class that is held out, where the folder holds no test set.
        seed: of the draw of these.
    """

    folder: readers.Folder
    how: Reading
    test_fraction: float
    seed: int | None
    name: str = NAME

    @functools.cached_property
    def sha256(self) -> str:
        """A digest of the files; see `Folder.sha256`."""
        return self.folder.sha256

    @property
    def reading(self) -> Mapping[str, Any]:
        """What the plan says of them, as JSON has it."""
        told = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.how).items()}
        return told | {"test_fraction": self.test_fraction}

    def load(self) -> Examples:
        """Look at all there is, and check it; large arrays and images are read when they are written.

        Raises:
            DataError: it can't be trained on, or not be tested on.
        """
        contents = self.folder.read(self.how)
        train, test = contents.train, contents.second
        where = self.folder.path
        classes = read_classes(where) or contents.classes or tuple(str(n) for n in range(int(train.labels.max()) + 1))
        check_count(len(classes), str(where))
        _check_labels(train.labels, classes, where)
        logger.info("%s holds %s of %d classes: %s", where, self.folder.kind.KIND, len(classes), _some(classes))
        if test is None:
            train, test = hold_out(train, classes, self.test_fraction, self.seed)
            logger.info("%s of its examples are held out to test on", f"{len(test.labels):,}")
        _check_test(test.labels, classes, where)
        return Examples(classes, train, test)


def find(data: Data, paths: Paths, recipe: Recipe) -> Own:
    """Look through the folder that DATA names.

    Raises:
        UsageError: it names none.
        DataError: what is there is not known, or is a data set that has a name.
    """
    if paths.data is None:
        raise UsageError("data.dataset is own, and DATA is not set", "the folder of your data", "set DATA to it")
    folder = readers.look(paths.data, "test")
    for source in dataset.SOURCES.values():
        if any(path.name == source.train_labels.name for path in folder.files):
            _refuse(source, paths.data)
    how = Reading(data.label, data.shape, data.size, data.grayscale)
    return Own(folder, how, data.test_fraction, recipe.seed)


def _refuse(source: dataset.Source, folder: Path) -> None:
    """Refuse a data set that is known by name: DATA has most likely been left as it was."""
    try:
        dataset.load_file(folder, source.train_labels)
    except DataError:
        return
    raise UsageError(
        f"data.dataset is own, and {folder} holds {source.name}",
        "a folder of your own data",
        f"set DATA to it, or data.dataset to {source.name}",
    )


def hold_out(part: Part, classes: Sequence[str], fraction: float, seed: int | None) -> tuple[Part, Part]:
    """Split off a share of the examples of each class, at least one, drawn at random.

    Returns:
        what is left, and what was split off, each in the order in which it was.

    Raises:
        DataError: a class has one example alone.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(part.labels), bool)
    for number, name in enumerate(classes):
        places = np.flatnonzero(part.labels == number)
        if len(places) < 2:  # noqa: PLR2004 - one to train on, one to test on
            raise DataError(
                f"class {name} has one example",
                "at least one to train on and one to test on",
                "add examples, or leave that class out",
            )
        count = min(max(1, round(len(places) * fraction)), len(places) - 1)
        held[rng.permutation(places)[:count]] = True
    return _picked(part, np.flatnonzero(~held)), _picked(part, np.flatnonzero(held))


def _picked(part: Part, places: NDArray[np.intp]) -> Part:
    return Part(part.rows.pick(places), part.labels[places])


def _check_labels(labels: NDArray[np.uint8], classes: Sequence[str], where: Path) -> None:
    """Refuse training labels that leave a class out, or that no class has."""
    _check_range(labels, classes, where)
    absent = np.setdiff1d(np.arange(len(classes)), labels)
    if absent.size:
        raise DataError(
            f"{where} holds no training example of class {classes[absent[0]]}",
            f"examples of each of the {len(classes)} classes: {_some(classes)}",
            f"add some, number the classes without a gap, or list those that are there in {CLASSES}",
        )


def _check_test(labels: NDArray[np.uint8], classes: Sequence[str], where: Path) -> None:
    """Refuse a test set that tells nothing of a class."""
    _check_range(labels, classes, where)
    absent = np.setdiff1d(np.arange(len(classes)), labels)
    if absent.size:
        raise DataError(
            f"{where} holds no test example of class {classes[absent[0]]}",
            f"test examples of each of the {len(classes)} classes",
            "add some, or leave the test set out: then examples to train on are held out",
        )


def _check_range(labels: NDArray[np.uint8], classes: Sequence[str], where: Path) -> None:
    if int(labels.max()) >= len(classes):
        raise DataError(
            f"{where} holds labels up to {labels.max()}",
            f"labels from 0 to {len(classes) - 1}, for the {len(classes)} classes to train on: {_some(classes)}",
            "mend the labels",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + ("" if len(names) <= 10 else f" … {names[-1]}")  # noqa: PLR2004 - a line
