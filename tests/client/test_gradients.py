"""Sums of clipped per-sample gradients: what a loop over the images gives, for every kind of layer."""

from __future__ import annotations

from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from services.client.gradients import ClippedGradients
from services.experiment import Plan
from services.experiment.model import Preset
from services.server.model import build_model

SIZE, THERE = 6, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.random((SIZE, 28, 28, 1)).astype(np.float32)
LABELS = RNG.integers(0, 10, SIZE, dtype=np.uint8)
MASK = np.array([1.0] * THERE + [0.0] * (SIZE - THERE), np.float32)


def compiled(network: Any) -> Any:
    """Compile a network as declearn does, its loss one an image; without dropout, which would draw anew each time."""
    for layer in network._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    network.compile(loss=keras.losses.SparseCategoricalCrossentropy(reduction="none"))
    return network


def by_loop(network: Any, max_norm: float) -> tuple[list[Any], list[float]]:
    """Clip and sum gradients one image at a time; also gives their norms."""
    weights = [weight.value for weight in network.trainable_weights]
    total = [np.zeros(weight.shape, np.float32) for weight in weights]
    norms = []
    for image, label in zip(IMAGES[:THERE], LABELS[:THERE], strict=True):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network.compute_loss(y=label[None], y_pred=network(image[None], training=True)))
        gradients = [gradient.numpy() for gradient in tape.gradient(loss, weights)]
        norms.append(float(np.sqrt(sum((gradient**2).sum() for gradient in gradients))))
        total = [
            sum_ + gradient * min(1.0, max_norm / norms[-1]) for sum_, gradient in zip(total, gradients, strict=True)
        ]
    return total, norms


def check(network: Any) -> None:
    """Hold the sums to those of the loop, where some images are clipped and where none is."""
    sums = ClippedGradients(network, SIZE)
    _, norms = by_loop(network, 1.0)
    for max_norm in (float(np.median(norms)), 0.01, 1e6):
        expected, _ = by_loop(network, max_norm)
        scale = max(float(abs(total).max()) for total in expected)
        for mine, theirs in zip(sums(IMAGES, LABELS, MASK, max_norm), expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_gradients_of_every_preset_are_those_of_a_loop(preset: str) -> None:
    """For each preset the sum equals that of a loop over the images, to 1e-5; padding adds nothing."""
    check(compiled(build_model(Plan.model_validate({"model": preset})).get_wrapped_model()))


LAYERS: dict[str, list[Any]] = {
    "convolution without bias, strided, not padded": [
        layers.Conv2D(4, (5, 3), strides=(3, 2), use_bias=False, activation="tanh"),
        layers.Flatten(),
    ],
    "dilated convolution": [layers.Conv2D(3, 3, dilation_rate=2), layers.Activation("relu"), layers.Flatten()],
    "depthwise convolution, by the map": [layers.DepthwiseConv2D(5, strides=4, depth_multiplier=2), layers.Flatten()],
    "dense at each place": [layers.Reshape((28, 28)), layers.Dense(5, activation="relu"), layers.Flatten()],
    "layer normalization, by the map": [layers.Flatten(), layers.LayerNormalization()],
    "frozen layer": [layers.Conv2D(2, 3, strides=3, trainable=False), layers.Flatten(), layers.Dense(8, "tanh")],
    "nested network, by the map": [keras.Sequential([layers.Flatten(), layers.Dense(8, activation="tanh")])],
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_every_kind_of_layer_are_those_of_a_loop(name: str) -> None:
    """Whatever the layer, contracted or mapped, the sum equals that of a loop over the images, to 1e-5."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([layers.Input((28, 28, 1)), *LAYERS[name], layers.Dense(10, activation="softmax")])
    check(compiled(network))


def test_gradients_of_a_network_with_branches_are_those_of_a_loop() -> None:
    """A network that is no sequence of layers, and uses one of them twice, is handled as well."""
    keras.utils.set_random_seed(0)
    images = layers.Input((28, 28, 1))
    flat = layers.Flatten()(layers.AveragePooling2D(4)(images))
    shared = layers.Dense(49, activation="tanh")
    joined = layers.Add()([shared(flat), shared(shared(flat)), flat])
    check(compiled(keras.Model(images, layers.Dense(10, activation="softmax")(joined))))


def test_no_image_counts_for_more_than_the_norm() -> None:
    """The sum over one image alone has the clipping norm over all weights together, not over each of them."""
    network = compiled(build_model(Plan.model_validate({"model": "cnn"})).get_wrapped_model())
    alone = np.zeros(SIZE, np.float32)
    alone[0] = 1
    total = ClippedGradients(network, SIZE)(IMAGES, LABELS, alone, 0.01)
    assert float(tf.linalg.global_norm(total)) == pytest.approx(0.01, rel=1e-4)


def test_padding_alone_is_nothing() -> None:
    """A batch of nothing but padding sums to zero."""
    network = compiled(build_model(Plan.model_validate({"model": "cnn"})).get_wrapped_model())
    total = ClippedGradients(network, SIZE)(IMAGES, LABELS, np.zeros(SIZE, np.float32), 1.0)
    assert all(not part.numpy().any() for part in total)
