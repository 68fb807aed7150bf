"""scikit-learn's linear models, as declearn trains them: the same figures, a batch of images at a time.

`declearn.model.sklearn.SklearnSGDModel` sends each image of a batch through `partial_fit`: 10 ms an image for ten
classes of 784 pixels, so three minutes for a pass over 16,000. The steps that `partial_fit` takes are few and linear,
and are taken here for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from declearn.model.sklearn import NumpyVector, SklearnSGDModel
from declearn.typing import Batch
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Loss = Callable[[Array, Array, float], tuple[Array, Array]]
"""Of scores, targets and `epsilon`: losses, and their derivatives by the score."""

LARGEST_SLOPE = 1e12
"""Where scikit-learn cuts derivatives off."""


def _log_loss(score: Array, target: Array, _: float) -> tuple[Array, Array]:
    # the sigmoid by tanh, which overflows nowhere
    return np.logaddexp(0, score) - target * score, (1 + np.tanh(score / 2)) / 2 - target


def _hinge(score: Array, target: Array, _: float, threshold: float = 1.0) -> tuple[Array, Array]:
    short = threshold - score * target
    return np.maximum(short, 0), np.where(short >= 0, -target, 0)


def _perceptron(score: Array, target: Array, _: float) -> tuple[Array, Array]:
    return _hinge(score, target, _, threshold=0.0)


def _squared_hinge(score: Array, target: Array, _: float) -> tuple[Array, Array]:
    short = np.maximum(1 - score * target, 0)
    return short**2, -2 * target * short


def _modified_huber(score: Array, target: Array, _: float) -> tuple[Array, Array]:
    margin = score * target
    losses, slopes = _squared_hinge(score, target, _)
    return np.where(margin >= -1, losses, -4 * margin), np.where(margin >= -1, slopes, -4 * target)


def _squared_error(score: Array, target: Array, _: float) -> tuple[Array, Array]:
    return (score - target) ** 2 / 2, score - target


def _huber(score: Array, target: Array, epsilon: float) -> tuple[Array, Array]:
    error = np.abs(score - target)
    losses = np.where(error <= epsilon, error**2 / 2, epsilon * (error - epsilon / 2))
    return losses, np.clip(score - target, -epsilon, epsilon)


def _epsilon_insensitive(score: Array, target: Array, epsilon: float) -> tuple[Array, Array]:
    excess = np.maximum(np.abs(score - target) - epsilon, 0)
    return excess, np.sign(score - target) * (excess > 0)


def _squared_epsilon_insensitive(score: Array, target: Array, epsilon: float) -> tuple[Array, Array]:
    excess = np.maximum(np.abs(score - target) - epsilon, 0)
    return excess**2, 2 * np.sign(score - target) * excess


LOSSES: dict[str, Loss] = {
    "hinge": _hinge,
    "log_loss": _log_loss,
    "modified_huber": _modified_huber,
    "squared_hinge": _squared_hinge,
    "perceptron": _perceptron,
    "squared_error": _squared_error,
    "huber": _huber,
    "epsilon_insensitive": _epsilon_insensitive,
    "squared_epsilon_insensitive": _squared_epsilon_insensitive,
}
"""What `sklearn.linear_model.SGDClassifier` can minimise."""

BINARY = 2
"""Classes that one column of weights tells apart."""


class LinearModel(SklearnSGDModel, register=False):
    """`SklearnSGDModel` of a classifier of images, computed a batch at a time.

    Overrides `compute_batch_gradients` (upstream takes an image after the other), `compute_batch_predictions` (upstream
    wants flat images, and gives one column of scores for two classes, which its metrics take for labels) and
    `loss_function` (upstream measures all losses but one against targets of 0 and 1 where they are made for -1 and 1).
    """

    @classmethod
    def of(cls, model: SklearnSGDModel) -> LinearModel:
        """Wrap the classifier of a model that was built or received; its weights are shared, not copied."""
        return cls(model.get_wrapped_model(), model._dtype)  # noqa: SLF001 - upstream has no getter

    @property
    def image_shape(self) -> tuple[int, ...]:
        """What it takes: the number of intensities of an image."""
        return (int(self._model.coef_.shape[1]),)

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return len(self._model.classes_)

    def reseed(self, seed: int) -> None:
        """Do nothing: nothing in it is drawn at random."""

    def _targets(self, labels: Any) -> Array:
        """Turn labels (n,) into a column of targets for each column of weights: 1 for its class, else 0 or -1."""
        classes = self._model.classes_[1:] if self.classes == BINARY else self._model.classes_
        hits = np.asarray(labels)[:, None] == classes
        return np.where(hits, 1.0, 0.0 if self._model.loss == "log_loss" else -1.0)

    def _scores(self, images: Array) -> Array:
        scores: Array = images @ self._model.coef_.T + self._model.intercept_
        return scores

    def compute_batch_gradients(self, batch: Batch, max_norm: float | None = None) -> NumpyVector:
        images, labels, weights = batch
        images = _flat(images)
        if max_norm is not None or weights is not None:
            return super().compute_batch_gradients((images, labels, weights), max_norm)
        model = self._model
        inputs = images.astype(self._dtype)
        losses, slopes = LOSSES[model.loss](self._scores(inputs), self._targets(labels), model.epsilon)
        self._loss_history.append(float(losses.sum(axis=1).mean()))
        slopes = np.clip(slopes, -LARGEST_SLOPE, LARGEST_SLOPE)
        share = {"l1": 1.0, "elasticnet": model.l1_ratio}.get(model.penalty, 0.0)
        decay = 0.0 if model.penalty is None else min(1.0, (1 - share) * model.alpha)
        if share:
            coef = _truncated(model.coef_, inputs, slopes, decay, share * model.alpha)
        else:
            coef = decay * model.coef_ + slopes.T @ inputs / len(inputs)
        intercept = slopes.mean(axis=0) if model.fit_intercept else np.zeros_like(model.intercept_)
        return NumpyVector({"intercept": intercept.astype(self._dtype), "coef": coef.astype(self._dtype)})

    def compute_batch_predictions(self, batch: Batch) -> tuple[Any, Any, Any]:
        images, labels, weights = batch
        scores = self._scores(_flat(images).astype(self._dtype))
        if self.classes == BINARY:
            scores = np.hstack([-scores, scores])
        return np.asarray(labels), scores, weights

    def loss_function(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        scores = y_pred[:, 1:] if self.classes == BINARY else y_pred
        losses, _ = LOSSES[self._model.loss](scores, self._targets(y_true), self._model.epsilon)
        total: NDArray[Any] = losses.sum(axis=1)
        return total

    def chances(self, scores: NDArray[Any]) -> NDArray[Any] | None:
        """Turn scores (n, classes) into probabilities, as `SGDClassifier.predict_proba` does; None for most losses."""
        if self._model.loss != "log_loss":
            return None
        each: NDArray[Any] = (1 + np.tanh(scores / 2)) / 2
        total = each.sum(axis=1, keepdims=True)
        shares: NDArray[Any] = np.divide(each, total, out=np.full_like(each, 1 / self.classes), where=total > 0)
        return shares


def _flat(images: Any) -> NDArray[Any]:
    array = np.asarray(images)
    return array.reshape(len(array), -1)


def _truncated(weights: Array, images: Array, slopes: Array, decay: float, cut: float) -> Array:
    """Average gradients of steps that end with weights drawn towards zero, no further (Tsuruoka et al. 2009)."""
    total = np.zeros_like(weights)
    for image, slope in zip(images, slopes, strict=True):
        moved = (1 - decay) * weights - slope[:, None] * image
        total += weights - np.sign(moved) * np.maximum(np.abs(moved) - cut, 0)
    mean: Array = total / len(images)
    return mean
