"""Metrics of declearn's on class probabilities, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from declearn.metrics import Metric

from services.client.metrics import ClassMetrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 500).astype(np.uint8)
OUTPUTS = RNG.dirichlet(np.ones(4), 500) * 0.5 + np.eye(4)[LABELS] * 0.5 * RNG.random((500, 1))
OUTPUTS = (OUTPUTS / OUTPUTS.sum(axis=1, keepdims=True)).astype(np.float32)
ONE_HOT = np.eye(4)[LABELS]


def result(name: str, parts: int = 1, **parameters: Any) -> dict[str, Any]:
    """Compute a metric over the images in that many batches."""
    metrics = ClassMetrics([Metric.from_specs(name, parameters)])
    for labels, outputs in zip(np.array_split(LABELS, parts), np.array_split(OUTPUTS, parts), strict=True):
        metrics.update(labels, outputs)
    found: dict[str, Any] = metrics.get_result()
    return found


def expected() -> dict[str, tuple[dict[str, Any], str, float]]:
    """Tell what scikit-learn makes of it: parameters, figure and value by metric."""
    is_two, score = LABELS == 2, OUTPUTS[:, 2]
    return {
        "binary-classif": ({"label": 2, "thresh": 0.4}, "f-score", reference.f1_score(is_two, score >= 0.4)),
        "mse": ({}, "mse", 4 * reference.mean_squared_error(ONE_HOT, OUTPUTS)),
        "mae": ({}, "mae", 4 * reference.mean_absolute_error(ONE_HOT, OUTPUTS)),
        "r2": ({}, "r2", reference.r2_score(ONE_HOT.ravel(), OUTPUTS.ravel())),
        "multi-classif": (
            {"labels": [0, 1, 2, 3]},
            "accuracy",
            reference.accuracy_score(LABELS, OUTPUTS.argmax(axis=1)),
        ),
    }


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("name", ["binary-classif", "mse", "mae", "r2", "multi-classif"])
def test_a_metric_gives_what_scikit_learn_gives(name: str, parts: int) -> None:
    """In one batch or in several, a metric of class probabilities is the one of the books."""
    parameters, figure, value = expected()[name]
    assert result(name, parts, **parameters)[figure] == pytest.approx(value, rel=1e-5)


def test_the_area_under_the_curve_is_that_of_one_class_against_the_rest() -> None:
    """binary-roc takes the probability of its label; a finer scale comes nearer to the exact area."""
    exact = reference.roc_auc_score(LABELS == 2, OUTPUTS[:, 2])
    assert result("binary-roc", label=2, scale=0.01)["roc_auc"] == pytest.approx(exact, abs=0.005)
    assert result("binary-roc", 5, label=2, bound=(0, 1))["roc_auc"] == pytest.approx(exact, abs=0.05)


def test_guessing_alike_is_an_r2_of_zero() -> None:
    """A model that gives all classes the same probability explains nothing, and one that is always right everything."""
    metrics = ClassMetrics([Metric.from_specs("r2", {})])
    metrics.update(LABELS, np.full((500, 4), 0.25))
    assert metrics.get_result()["r2"] == pytest.approx(0)
    metrics.reset()
    metrics.update(LABELS, ONE_HOT)
    assert metrics.get_result()["r2"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["binary-classif", "mse", "mae", "r2"])
def test_weights_of_images_count(name: str) -> None:
    """An image of weight 0 is as good as none."""
    parameters, figure, _ = expected()[name]
    found = []
    for part in (slice(None), slice(0, 100)):
        metrics = ClassMetrics([Metric.from_specs(name, parameters)])
        weights = (np.arange(500) < 100).astype(np.float32)
        metrics.update(LABELS[part], OUTPUTS[part], weights[part])
        found.append(metrics.get_result()[figure])
    assert found[0] == pytest.approx(found[1])


def test_single_outputs_are_left_as_they_are() -> None:
    """What a model of one output gives goes to the metric as it is."""
    metrics = ClassMetrics([Metric.from_specs("mse", {})])
    metrics.update(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert metrics.get_result()["mse"] == 2.0


def test_a_curve_over_outputs_of_any_size_is_refused() -> None:
    """Without bounds a curve has a point for each step of the outputs' range, which a server's model may blow up."""
    metrics = ClassMetrics([Metric.from_specs("binary-roc", {"scale": 0.1})])
    metrics.update(np.array([0, 1]), np.array([[0.0, 100.0], [5.0, 1.0]]))
    with pytest.raises(ValueError, match="outputs on a scale of their own"):
        metrics.update(np.array([0, 1]), np.array([[0.0, 1e9], [5.0, 1.0]]))
