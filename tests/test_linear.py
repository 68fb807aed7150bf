"""Linear models a batch at a time: the very figures of declearn's wrapper, which takes each image apart."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from declearn.model.sklearn import SklearnSGDModel
from numpy.typing import NDArray

from services.experiment.model import SklearnLoss
from services.linear import LOSSES, LinearModel

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 3, 4), np.float32)
FLAT = IMAGES.reshape(8, -1)


def models(classes: int, **parameters: Any) -> tuple[LinearModel, SklearnSGDModel, NDArray[np.uint8]]:
    """Make a model with weights drawn at random, ours and upstream's around one classifier, and labels."""
    stock = SklearnSGDModel.from_parameters("classifier", l1_ratio=0.3, epsilon=0.2, **parameters)
    stock.initialize({"features_shape": (12,), "classes": list(range(classes))})
    wrapped = stock.get_wrapped_model()
    wrapped.coef_ = RNG.normal(size=wrapped.coef_.shape)
    if wrapped.fit_intercept:
        wrapped.intercept_ = RNG.normal(size=wrapped.intercept_.shape)
    return LinearModel.of(stock), stock, RNG.integers(0, classes, 8).astype(np.uint8)


def test_every_loss_can_be_minimised() -> None:
    """The losses that a file may name are those there are formulas for."""
    assert set(LOSSES) == set(get_args(SklearnLoss))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", None])
@pytest.mark.parametrize(("classes", "intercept"), [(2, True), (3, True), (3, False)])
def test_gradients_are_those_of_partial_fit(loss: str, penalty: str | None, classes: int, *, intercept: bool) -> None:
    """A batch's gradient is the mean of the steps that `partial_fit` takes, image after image, as upstream does."""
    ours, stock, labels = models(classes, loss=loss, penalty=penalty, alpha=0.05, fit_intercept=intercept)
    mine = ours.compute_batch_gradients((IMAGES, labels, None)).coefs
    theirs = stock.compute_batch_gradients((FLAT, labels, None)).coefs
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        assert mine[key].dtype == value.dtype
        np.testing.assert_allclose(mine[key], value, atol=1e-10)


@pytest.mark.parametrize("more", [{"max_norm": 0.1}, {"weights": np.arange(8.0)}])
def test_weighted_and_clipped_gradients_are_those_of_upstream(more: dict[str, Any]) -> None:
    """What is rarely asked for is left to upstream, with flat images."""
    ours, stock, labels = models(3, loss="hinge")
    weights, norm = more.get("weights"), more.get("max_norm")
    mine = ours.compute_batch_gradients((IMAGES, labels, weights), norm)
    assert mine == stock.compute_batch_gradients((FLAT, labels, weights), norm)


def test_the_loss_of_logistic_regression_is_upstreams() -> None:
    """Where upstream measures right, for log_loss, so do we, to rounding."""
    ours, stock, labels = models(3, loss="log_loss")
    truth, scores, _ = ours.compute_batch_predictions((IMAGES, labels, None))
    np.testing.assert_array_equal(truth, labels)
    np.testing.assert_allclose(scores, stock.compute_batch_predictions((FLAT, labels, None))[1])
    np.testing.assert_allclose(ours.loss_function(truth, scores), stock.loss_function(truth, scores))


def test_hinge_losses_are_against_minus_one_and_one() -> None:
    """A score of two against a class costs three by hinge loss, and one of two for it nothing."""
    ours, _, _ = models(3, loss="hinge")
    scores = np.array([[2.0, -2.0, -2.0], [2.0, -2.0, 2.0]])
    np.testing.assert_allclose(ours.loss_function(np.array([0, 1]), scores), [0, 9])


@pytest.mark.parametrize("score", [-1e4, 1e4])
def test_log_loss_of_any_score_is_finite(score: float) -> None:
    """However sure a mistake is, loss and slope are numbers."""
    for figure in LOSSES["log_loss"](np.array([[score]]), np.array([[1.0]]), 0.0):
        assert np.isfinite(figure).all()


def test_two_classes_have_a_score_each() -> None:
    """Two classes are told apart by one column of weights, and scored in two, as metrics take them."""
    ours, stock, labels = models(2, loss="hinge")
    _, scores, _ = ours.compute_batch_predictions((IMAGES, labels, None))
    assert scores.shape == (8, 2)
    np.testing.assert_array_equal(scores.argmax(axis=1), stock.get_wrapped_model().predict(FLAT))
    assert ours.loss_function(labels, scores).shape == (8,)


def test_it_tells_what_it_takes_and_shares_its_weights() -> None:
    """Shape and classes are those it was built for, and weights set in one wrapper count in the other."""
    ours, stock, labels = models(3, loss="hinge")
    assert (ours.image_shape, ours.classes) == ((12,), 3)
    stock.set_weights(stock.get_weights() * 0.0)
    assert not ours.compute_batch_predictions((IMAGES, labels, None))[1].any()
