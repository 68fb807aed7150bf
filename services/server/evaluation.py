"""Scoring the global model on the held-out test images, which no client ever sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from declearn.model.tensorflow import TensorflowModel
from numpy.typing import NDArray

from services.shards import Pixels

BATCH = 1000


@dataclass(frozen=True)
class Score:
    """How a model does on the test images.

    Attributes:
        loss: mean cross-entropy, in nats.
        accuracy: share of images whose most probable class is right, in [0, 1].
        confusion: counts of shape (classes, classes); row: true class, column: predicted one.
    """

    loss: float
    accuracy: float
    confusion: NDArray[np.int64]


class HeldOut:
    """The test images.

    Args:
        images: as in a `services.shards.Shard`.
        labels: shape (n,), uint8.
        classes: number of classes.
    """

    def __init__(self, images: Pixels, labels: NDArray[np.uint8], classes: int) -> None:
        self._images = images
        self._labels = labels
        self.classes = classes
        self._network: Any = None
        self._predict: Any = None

    def score(self, model: TensorflowModel) -> Score:
        """Score `model` on all images; meant to be called in a thread."""
        network = model.get_wrapped_model()
        if self._network is not network:
            self._network = network
            self._predict = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)
        chunks = []
        for start in range(0, len(self._images), BATCH):
            batch = self._images[start : start + BATCH]
            if batch.dtype == np.uint8:
                batch = batch.astype(np.float32) / np.float32(255)
            chunks.append(self._predict(tf.constant(batch)).numpy())
        probabilities = np.concatenate(chunks)
        rows = np.arange(len(self._labels))
        # Keras clips probabilities the same way before it takes the logarithm
        loss = -np.log(np.clip(probabilities[rows, self._labels], 1e-7, 1 - 1e-7)).mean()
        confusion = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(confusion, (self._labels, probabilities.argmax(axis=1)), 1)
        return Score(float(loss), float(np.trace(confusion) / len(self._labels)), confusion)
