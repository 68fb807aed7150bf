"""Scoring on the test images: the figures are those of their definitions."""

from __future__ import annotations

from typing import cast

import keras
import numpy as np
import pytest
import tensorflow as tf
from declearn.model.tensorflow import TensorflowModel
from numpy.typing import NDArray

from services.client.dataset import SCALE
from services.experiment import Plan
from services.server import evaluation
from services.server.engines.sklearn import SklearnEngine
from services.server.engines.tensorflow import TensorflowEngine
from services.server.evaluation import HeldOut
from services.server.model import build_model

ENGINE = TensorflowEngine()


def network(weight: float, bias: list[float]) -> keras.Sequential:
    """Give three classes from one pixel: softmax of (weight * pixel, 0, -weight * pixel) + bias."""
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Sequential([keras.layers.Input((1, 1)), keras.layers.Flatten(), dense])
    dense.set_weights([np.array([[weight, 0, -weight]]), np.array(bias)])
    return model


def wrap(inner: keras.Sequential) -> TensorflowModel:
    """Wrap a network as declearn does."""
    return TensorflowModel(inner, loss="sparse_categorical_crossentropy")


def pixels(*values: int) -> NDArray[np.uint8]:
    """Make images of one pixel each."""
    return np.array(values, np.uint8).reshape(-1, 1, 1)


def test_figures_are_those_of_keras() -> None:
    """Loss and accuracy are what plain Keras gives for the scaled images."""
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 1), dtype=np.uint8)
    labels = (np.arange(50) % 3).astype(np.uint8)
    model = network(3.0, [0.5, 0.2, 1.0])
    score = HeldOut(images, labels, 3, ENGINE).score(wrap(model))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(images / 255, labels, verbose=0)
    assert score.loss == pytest.approx(loss, rel=1e-5)
    assert score.accuracy == pytest.approx(accuracy)


def test_confusion_has_the_true_class_in_rows() -> None:
    """A row a true class, a column a predicted one; accuracy is the share on the diagonal."""
    images, labels = pixels(255, 255, 0, 0, 0), np.array([0, 2, 1, 1, 2], np.uint8)
    score = HeldOut(images, labels, 3, ENGINE).score(wrap(network(10.0, [0.0, 1.0, 0.0])))
    np.testing.assert_array_equal(score.confusion, [[1, 0, 0], [0, 2, 0], [1, 1, 0]])
    assert score.accuracy == 0.6


@pytest.mark.parametrize("batch", [1, 2, 5, 6])
def test_the_batch_changes_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """However the images are cut into batches, a short last one included, the figures are the same."""
    images, labels = pixels(0, 50, 100, 150, 200), np.array([0, 1, 2, 0, 1], np.uint8)
    held_out, model = HeldOut(images, labels, 3, ENGINE), wrap(network(3.0, [0.5, 0.2, 1.0]))
    whole = held_out.score(model)
    monkeypatch.setattr(evaluation, "BATCH", batch)
    cut = held_out.score(model)
    assert cut.loss == pytest.approx(whole.loss)
    np.testing.assert_array_equal(cut.confusion, whole.confusion)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    """A probability of zero for the true class is clipped as Keras clips it."""
    score = HeldOut(pixels(255), np.array([2], np.uint8), 3, ENGINE).score(wrap(network(500.0, [0.0, 0.0, 0.0])))
    assert score.loss == pytest.approx(-np.log(1e-7))


def test_a_model_that_is_not_finite_is_told() -> None:
    """NaN in the weights is NaN in the loss, not a mistake that looks like a figure."""
    score = HeldOut(pixels(255), np.array([2], np.uint8), 3, ENGINE).score(wrap(network(float("nan"), [0.0, 0.0, 0.0])))
    assert np.isnan(score.loss)


def test_weights_and_model_count_as_they_are_now() -> None:
    """New weights in the same network count at the next score, and so does another network."""
    held_out = HeldOut(pixels(255), np.array([0], np.uint8), 3, ENGINE)
    model = wrap(network(10.0, [0.0, 0.0, 0.0]))
    assert held_out.score(model).accuracy == 1
    model.get_wrapped_model().layers[-1].set_weights([np.array([[-10.0, 0.0, 10.0]]), np.zeros(3)])
    assert held_out.score(model).accuracy == 0
    assert held_out.score(wrap(network(10.0, [0.0, 0.0, 0.0]))).accuracy == 1


def test_images_are_scaled_as_clients_scale_theirs() -> None:
    """Every intensity becomes the very float32 that a client trains on."""
    seen = []

    def keep(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(batch.copy())
        return np.ones((len(batch), 3), np.float32)

    class Model:
        """As much of a model as scoring needs."""

        def get_wrapped_model(self) -> object:
            return lambda batch, training: tf.numpy_function(keep, [batch], tf.float32)  # noqa: ARG005

    HeldOut(pixels(*range(256)), np.zeros(256, np.uint8), 3, ENGINE).score(cast("TensorflowModel", Model()))
    np.testing.assert_array_equal(np.concatenate(seen).ravel(), SCALE)


def test_floats_are_scored_as_they_are() -> None:
    """A person's own images in floats are not divided a second time."""
    images, labels = pixels(*range(0, 256, 5)), np.arange(52, dtype=np.uint8) % 3
    model = wrap(network(3.0, [0.1, 0.0, 0.2]))
    scores = [HeldOut(each, labels, 3, ENGINE).score(model) for each in (images, SCALE[images])]
    assert scores[0].loss == scores[1].loss
    np.testing.assert_array_equal(scores[0].confusion, scores[1].confusion)


def test_a_review_is_a_score_with_the_worst_mistakes() -> None:
    """The figures are those of a score, and mistakes come the worst first, with the probability they were made with."""
    images, labels = pixels(255, 128, 0, 255), np.array([2, 2, 1, 0], np.uint8)
    held_out, model = HeldOut(images, labels, 3, ENGINE), wrap(network(3.0, [0.0, 1.0, 0.0]))
    score, mistakes = held_out.review(model)
    whole = held_out.score(model)
    assert (score.loss, score.accuracy) == (whole.loss, whole.accuracy)
    assert [(each.image, each.true, each.predicted) for each in mistakes] == [(0, 2, 0), (1, 2, 0)]
    chances = [np.exp(3.0) / (np.exp(3.0) + np.e + np.exp(-3.0)), 0.5]
    assert mistakes[0].confidence == pytest.approx(chances[0], rel=1e-5)
    assert mistakes[0].picture is not None


def test_margins_tell_no_confidence() -> None:
    """A linear model that minimises hinge loss is reviewed without probabilities, one of logistic loss with them."""
    images, labels = pixels(255, 0, 128), np.array([1, 0, 1], np.uint8)
    for loss, told in (("hinge", False), ("log_loss", True)):
        model = build_model(Plan.model_validate({"model": {"sklearn": {"loss": loss}}}), (1, 1), 2)
        model.get_wrapped_model().coef_ = np.array([[-1.0]])
        score, mistakes = HeldOut(images, labels, 2, SklearnEngine()).review(model)
        assert score.accuracy == pytest.approx(1 / 3)
        assert [each.image for each in mistakes] == [0, 2]
        assert [each.confidence is not None for each in mistakes] == [told, told]
