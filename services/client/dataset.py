"""A client's images as declearn datasets: uint8 in memory, scaled to [0, 1] a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from declearn.dataset import InMemoryDataset

from services.errors import DataError
from services.readers.base import CLASSES
from services.shards import Shard

SCALE = (np.arange(256) / 255).astype(np.float32)
"""The float32 value of each uint8 intensity, rounded as `declearn.dataset.examples.load_mnist` rounds it."""


class ImageDataset(InMemoryDataset, register=False):
    """`InMemoryDataset` of uint8 images that yields float32 batches.

    Overrides `_build_iterator` (upstream keeps all images as float32, four times the memory) and `_samples_batching`
    (upstream fails where there are fewer images than a batch holds and a short batch is to be dropped).
    """

    def reseed(self, seed: int) -> None:
        """Let the order of images from now on depend on `seed` alone."""
        self._rng = np.random.default_rng(seed)

    def _samples_batching(
        self,
        batch_size: int,
        shuffle: bool = False,  # noqa: FBT001, FBT002 - upstream's signature
        replacement: bool = False,  # noqa: FBT001, FBT002
        drop_remainder: bool = True,  # noqa: FBT001, FBT002
    ) -> np.ndarray[Any, Any]:
        enough = len(self.feats) >= batch_size
        order: np.ndarray[Any, Any] = super()._samples_batching(
            batch_size, shuffle, replacement, drop_remainder and enough
        )
        return order

    def _build_iterator(self, data: Any, batch_size: int, order: np.ndarray[Any, Any]) -> Iterator[Any]:
        batches = super()._build_iterator(data, batch_size, order)
        if data is self.feats and data.dtype == np.uint8:
            return (SCALE[np.asarray(batch)] for batch in batches)
        return batches


def datasets(shard: Shard, seed: int | None) -> tuple[ImageDataset, ImageDataset | None]:
    """Wrap a shard's training and validation images.

    Args:
        shard: images of shape (n, height, width), uint8 or float32, and their labels of shape (n,).
        seed: of the order of training images, or None for a random one.

    Returns:
        The training set, and the validation set where there is one.
    """
    train = ImageDataset(shard.train_images, shard.train_labels, expose_classes=False, seed=seed)
    valid = None
    if shard.valid_images is not None and len(shard.valid_images):
        valid = ImageDataset(shard.valid_images, shard.valid_labels, expose_classes=False, seed=seed)
    return train, valid


def check_fit(data: ImageDataset, input_shape: Sequence[int], classes: int, names: Sequence[str] | None = None) -> None:
    """Refuse a site's own images that the federation's model can't be trained on.

    Args:
        data: the site's images and labels.
        input_shape: of one image in the model: (height, width, channels), or (features,).
        classes: number of classes that the model tells apart.
        names: of the site's classes, or None where its labels are bare numbers.

    Raises:
        DataError: the images have another shape, or the classes are others.
    """
    images, labels = data.feats, data.target
    shape = images.shape[1:]
    if tuple(input_shape) not in {tuple(shape), (*shape, 1), (math.prod(shape),)}:
        raise DataError(
            f"this site's images have shape {tuple(shape)}",
            f"{tuple(input_shape)}, which the federation's model takes",
            "write the site's arrays in that shape",
        )
    if names is not None and len(names) != classes:
        raise DataError(
            f"this site names {len(names)} classes",
            f"{classes}, as the federation's model tells {classes} classes apart",
            f"put the federation's list of classes, {CLASSES}, beside the site's data",
        )
    if int(labels.max()) >= classes:
        raise DataError(
            f"this site's labels go up to {labels.max()}",
            f"labels from 0 to {classes - 1}, as the federation's model tells {classes} classes apart",
            "number the site's classes as the federation does",
        )


def nothing() -> ImageDataset:
    """Stand for images that the server has yet to deal."""
    return ImageDataset(np.zeros((0, 1, 1), np.uint8), np.zeros(0, np.uint8), expose_classes=False)
