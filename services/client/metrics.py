"""Metrics of declearn's that were not made for class probabilities, fed what they can make sense of."""

from __future__ import annotations

from typing import Any

import numpy as np
from declearn.metrics import BinaryRocAUC, Metric, MetricSet
from numpy.typing import NDArray

ONE_VS_REST = ("binary-classif", "binary-roc")
"""Metrics of one class, their `label`, against all others."""

ONE_HOT = ("mae", "mse")
"""Metrics of numbers that sum over channels: here of the probabilities against 0 and 1; `mse` is the Brier score."""

FLAT = ("r2",)
"""Metrics of one number a sample: here of each probability, so that 0 is a guess that gives all classes the same."""

MOST_THRESHOLDS = 100_000
"""Points of a curve; without bounds declearn makes as many as the outputs' range holds."""


class ClassMetrics(MetricSet):
    """`MetricSet` for a model that gives the probability of each class.

    Overrides `update`: upstream's metrics for one score or one number fail with several columns.
    """

    def update(self, y_true: NDArray[Any], y_pred: NDArray[Any], s_wght: NDArray[Any] | None = None) -> None:
        for metric in self.metrics:
            metric.update(*_fitted(metric, y_true, y_pred, s_wght))


def _fitted(
    metric: Metric[Any], labels: NDArray[Any], outputs: NDArray[Any], weights: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Turn labels (n,) and probabilities (n, classes) into what `metric` compares.

    Raises:
        ValueError: the outputs are so large that a curve over them has no end of points.
    """
    if isinstance(metric, BinaryRocAUC) and metric.bound is None and np.ptp(outputs) > MOST_THRESHOLDS * metric.scale:
        raise ValueError("outputs on a scale of their own; binary-roc needs bounds for them")
    if outputs.ndim == 1:
        return labels, outputs, weights
    if metric.name in ONE_VS_REST:
        return labels, outputs[:, metric.get_config()["label"]], weights
    if metric.name in ONE_HOT + FLAT:
        truth = np.eye(outputs.shape[1])[labels.astype(np.int64)]
        if metric.name in ONE_HOT:
            return truth, outputs, weights
        return truth.ravel(), outputs.ravel(), None if weights is None else np.repeat(weights, outputs.shape[1])
    return labels, outputs, weights
