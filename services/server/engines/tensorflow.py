"""Networks of Keras on TensorFlow: presets, and those that a user's own function returns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from declearn.model.api import Model
from declearn.model.tensorflow import TensorflowModel
from keras import layers
from numpy.typing import NDArray

from services.errors import ExperimentError
from services.experiment import Plan
from services.runs import KERAS_MODEL
from services.server import own_model
from services.server.engines import Kept, unreadable
from services.source import Source


def _cnn(classes: int) -> list[keras.layers.Layer]:
    """Build the layers of declearn's own MNIST example: 54,410 parameters."""
    return [
        layers.Conv2D(32, 3, activation="relu", name="conv"),
        layers.MaxPool2D(2, name="pool"),
        layers.Dropout(0.25, name="dropout"),
        layers.Flatten(name="flatten"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _cnn_strided(classes: int) -> list[keras.layers.Layer]:
    """Build layers that see the whole digit after a strided convolution: 106,122 parameters, no more time a step."""
    return [
        layers.Conv2D(16, 5, strides=2, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPool2D(2, name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dropout(0.25, name="dropout"),
        layers.Dense(64, activation="relu", name="hidden"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _cnn_large(classes: int) -> list[keras.layers.Layer]:
    """Build layers that come above 99.2 % on MNIST: two pairs of convolutions: 218,490 parameters."""
    return [
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPool2D(2, name="pool1"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv3"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv4"),
        layers.MaxPool2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dropout(0.4, name="dropout1"),
        layers.Dense(128, activation="relu", name="hidden"),
        layers.Dropout(0.4, name="dropout2"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _mlp(classes: int) -> list[keras.layers.Layer]:
    """Build the layers of the 2NN of McMahan et al. (2017): 199,210 parameters."""
    return [
        layers.Flatten(name="flatten"),
        layers.Dense(200, activation="relu", name="hidden1"),
        layers.Dense(200, activation="relu", name="hidden2"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _logistic(classes: int) -> list[keras.layers.Layer]:
    """Build multinomial logistic regression, whose loss is convex: 7,850 parameters."""
    return [layers.Flatten(name="flatten"), layers.Dense(classes, activation="softmax", name="classes")]


def _cnn_tanh(classes: int) -> list[keras.layers.Layer]:
    """Build layers for DP-SGD (Papernot et al. 2020): few parameters to noise, activations that keep gradients small.

    26,010 parameters; https://arxiv.org/abs/2007.14191.
    """
    return [
        layers.Conv2D(16, 8, strides=2, padding="same", activation="tanh", name="conv1"),
        layers.MaxPool2D(2, strides=1, name="pool1"),
        layers.Conv2D(32, 4, strides=2, activation="tanh", name="conv2"),
        layers.MaxPool2D(2, strides=1, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dense(32, activation="tanh", name="hidden"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


LOSS = "sparse_categorical_crossentropy"
"""Of probabilities and labels."""

GRAY = 2
"""Axes of one image without channels; a network takes it with a third, and a vector of features as it is."""

# layers have names of their own: those that Keras makes up count on within a process, and a checkpoint goes by them
PRESETS: dict[str, Callable[[int], list[keras.layers.Layer]]] = {
    "cnn": _cnn,
    "cnn-strided": _cnn_strided,
    "cnn-large": _cnn_large,
    "mlp": _mlp,
    "logistic": _logistic,
    "cnn-tanh": _cnn_tanh,
}


class TensorflowEngine:
    """Keras models, through declearn's `TensorflowModel`."""

    file = KERAS_MODEL

    def build(self, plan: Plan, image_shape: tuple[int, ...], classes: int, source: Source | None) -> Model[Any]:
        """Build a network: images (n, *image_shape), the axis of a single channel optional, to probabilities."""
        input_shape = (*image_shape, 1) if len(image_shape) == GRAY else image_shape
        if source is not None:
            return own_model.build(source, input_shape, classes, plan.seed, LOSS)
        keras.utils.set_random_seed(plan.seed)
        name = plan.model.preset
        assert name is not None  # noqa: S101 - the schema leaves a plan without a module its preset
        try:
            network = keras.Sequential([layers.Input(input_shape), *PRESETS[name](classes)], name=name)
        except ValueError as exc:
            raise ExperimentError(
                f"model {name} can't take images of shape {image_shape} ({str(exc).splitlines()[0]})",
                "larger images, or another model"
                if len(input_shape) > 1
                else "model mlp or logistic, which take vectors",
                "correct model in the experiment file",
            ) from exc
        return TensorflowModel(network, loss=LOSS)

    def scorer(self, model: Model[Any]) -> _Scorer:
        """Score by a compiled graph."""
        return _Scorer(model.get_wrapped_model())

    def dump(self, model: Model[Any]) -> bytes:
        """Write a file that plain Keras loads, ready to be evaluated and trained on."""
        network = model.get_wrapped_model()
        # a copy: declearn compiles without metrics, and with an optimizer that is never used and fails to load
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        copy.compile(optimizer="sgd", loss=LOSS, metrics=["accuracy"])
        copy.optimizer.build(copy.trainable_variables)
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / self.file
            copy.save(saved)
            return saved.read_bytes()

    def read(self, path: Path) -> Kept:
        """Read a network; Keras' safe mode refuses code in it."""
        try:
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
            taken, given = network.input_shape, network.output_shape
            shape = tuple(int(axis) for axis in taken[1:])
            sound = len(given) == 2 and len(shape) in {1, 3}  # noqa: PLR2004 - probabilities of vectors, or of images
        except OSError as exc:
            raise unreadable(path, exc.strerror or "it is damaged") from exc
        except Exception as exc:  # noqa: BLE001 - Keras raises whatever a damaged file leads to
            raise unreadable(path, " ".join(str(exc).split())[:120] or "it is damaged") from None
        if not sound:
            raise unreadable(path, f"it takes {taken} and gives {given}")
        return Kept(_Scorer(network), shape)


class _Scorer:
    def __init__(self, network: keras.Model) -> None:
        self._predict: Any = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)

    def predict(self, images: NDArray[Any]) -> NDArray[Any]:
        probabilities: NDArray[Any] = self._predict(tf.constant(images)).numpy()
        return probabilities

    def losses(self, labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
        # Keras clips probabilities the same way before it takes the logarithm
        losses: NDArray[Any] = -np.log(np.clip(scores[np.arange(len(labels)), labels], 1e-7, 1 - 1e-7))
        return losses

    def chances(self, scores: NDArray[Any]) -> NDArray[Any]:
        return scores
