"""What a site's own data are held against before it joins, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.readers.base import CLASSES, COLOUR
from services.shards import Shard


@dataclass(frozen=True)
class Terms:
    """What a federation asks of a site's data.

    Attributes:
        shape: of one example, (height, width), (height, width, channels) or (features,).
        classes: names of the classes, in the order of the labels.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Terms:
        """Take up what `as_json` has given.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        shape = tuple(int(axis) for axis in content["shape"])
        classes = tuple(str(name) for name in content["classes"])
        if not shape or min(shape) < 1 or len(classes) < 2:  # noqa: PLR2004 - what tells nothing apart can't be trained
            raise ValueError(content)
        return cls(shape, classes)

    def as_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {"shape": list(self.shape), "classes": list(self.classes)}


def check(shard: Shard, terms: Terms) -> None:
    """Refuse a site's data that are not what the federation trains on.

    Raises:
        DataError: the examples have another shape, or the classes are others.
    """
    found = tuple(shard.train_images.shape[1:])
    if _gray(found) != _gray(terms.shape):
        raise DataError(
            f"this site's examples have shape {found}",
            f"{terms.shape}, as the federation trains on",
            "write the site's data in that shape",
        )
    if shard.classes is not None and tuple(shard.classes) != terms.classes:
        raise DataError(
            f"this site's classes are {', '.join(shard.classes)}",
            f"{', '.join(terms.classes)}, in this order",
            f"name the folders or labels so, or list the federation's classes in {CLASSES} beside the data",
        )
    labels = [shard.train_labels, *([] if shard.valid_labels is None else [shard.valid_labels])]
    highest = max((int(part.max()) for part in labels if len(part)), default=0)
    if highest >= len(terms.classes):
        raise DataError(
            f"this site's labels go up to {highest}",
            f"labels from 0 to {len(terms.classes) - 1}, for {', '.join(terms.classes)}",
            "number the site's classes as the federation does",
        )


def describe(shard: Shard, terms: Terms | None = None) -> list[str]:
    """Say in a few lines what a site's data are: how many, of which shape, how many of each class."""
    images = shard.train_images
    valid = 0 if shard.valid_labels is None else len(shard.valid_labels)
    names = terms.classes if terms is not None else shard.classes
    if names is None:
        names = tuple(str(number) for number in range(int(shard.train_labels.max()) + 1))
    return [
        f"{len(images):,} examples to train on, {valid:,} to validate on",
        f"shape {tuple(images.shape[1:])} as {images.dtype}, {_range(images)}",
        "of each class: " + ", ".join(f"{name} {n:,}" for name, n in zip(names, _counts(shard, names), strict=True)),
    ]


def _gray(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave the one channel of a gray image away, which files write or not; a vector is no image at any length."""
    return shape[:-1] if len(shape) == COLOUR and shape[-1] == 1 else shape


def _counts(shard: Shard, names: tuple[str, ...]) -> NDArray[np.intp]:
    return np.bincount(shard.train_labels, minlength=len(names))[: len(names)]


def _range(images: NDArray[Any]) -> str:
    return f"values from {images.min():g} to {images.max():g}"
