"""Scoring the global model on the held-out test images, which no client ever sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from declearn.model.api import Model
from numpy.typing import NDArray

from services.report import findings
from services.report.findings import Mistake
from services.server.engines import Engine, Scorer
from services.shards import Pixels

BATCH = 1000


@dataclass(frozen=True)
class Score:
    """How a model does on the test images.

    Attributes:
        loss: mean of what clients minimise; of a network the cross-entropy, in nats.
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
        engine: of the models that are scored.
    """

    def __init__(self, images: Pixels, labels: NDArray[np.uint8], classes: int, engine: Engine) -> None:
        self._images = images
        self._labels = labels
        self.classes = classes
        self._engine = engine
        self._scored: tuple[Model[Any], Scorer] | None = None

    def score(self, model: Model[Any]) -> Score:
        """Score `model` on all images; meant to be called in a thread."""
        scorer = self._scorer(model)
        scores = self._predict(scorer)
        return self._score(scores, scorer.losses(self._labels, scores))

    def review(self, model: Model[Any]) -> tuple[Score, list[Mistake]]:
        """Score `model`, and pick its worst mistakes; meant to be called in a thread."""
        scorer = self._scorer(model)
        scores = self._predict(scorer)
        losses = scorer.losses(self._labels, scores)
        mistakes = findings.pick(self._images, self._labels, scores, losses, scorer.chances(scores))
        return self._score(scores, losses), mistakes

    def chances(self, model: Model[Any], image: NDArray[np.float32]) -> NDArray[Any]:
        """Tell how likely each class is (classes,), of an image as the test images are, in [0, 1].

        Where a model tells no probabilities, the class it decides for has all of it.
        """
        scorer = self._scorer(model)
        scores = scorer.predict(image[np.newaxis])
        chances = scorer.chances(scores)
        found: NDArray[Any] = np.eye(scores.shape[1])[scores[0].argmax()] if chances is None else chances[0]
        return found

    def _scorer(self, model: Model[Any]) -> Scorer:
        if self._scored is None or self._scored[0] is not model:
            self._scored = model, self._engine.scorer(model)
        return self._scored[1]

    def _predict(self, scorer: Scorer) -> NDArray[Any]:
        """Give the scores (n, classes) of all images."""
        chunks = []
        for start in range(0, len(self._images), BATCH):
            batch = self._images[start : start + BATCH]
            if batch.dtype == np.uint8:
                batch = batch.astype(np.float32) / np.float32(255)
            chunks.append(scorer.predict(batch))
        return np.concatenate(chunks)

    def _score(self, scores: NDArray[Any], losses: NDArray[Any]) -> Score:
        confusion = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(confusion, (self._labels, scores.argmax(axis=1)), 1)
        return Score(float(losses.mean()), float(np.trace(confusion) / len(self._labels)), confusion)
