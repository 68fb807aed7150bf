"""Sums of clipped per-sample gradients, at a small multiple of what one plain gradient costs.

DP-SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133) bounds what one image can change: the norm of its own
gradient, over all weights at once, is clipped. No gradient is computed image by image for that. One backward pass gives
the gradient of each image's loss by each layer's output; with the layer's input, that is enough for its weights, one
contraction a layer (Goodfellow 2015, https://arxiv.org/abs/1510.01799; Rochette et al. 2019,
https://arxiv.org/abs/1912.06015). A layer of another kind falls back on a vectorized map over the images, and so does a
network that is more than a sequence of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Weighed = Callable[[tf.Tensor], list[tf.Tensor]]
"""Given a factor an image, (n,): the sum of a layer's gradients times those, one tensor a weight."""


class ClippedGradients:
    """Sums clipped per-sample gradients of one network; compiled for batches of one size.

    Args:
        network: a built Keras model, compiled with a loss that is not reduced over the images.
        size: images a call takes, padding included.
    """

    def __init__(self, network: Any, size: int) -> None:
        self.size = size
        self._network = network
        self._weights = [weight.value for weight in network.trainable_weights]
        labels = tf.TensorSpec((size,), tf.uint8)
        images = tf.TensorSpec((size, *network.input_shape[1:]), tf.float32)
        self._compiled = tf.function(
            self._sum,
            input_signature=[images, labels, tf.TensorSpec((size,), tf.float32), tf.TensorSpec((), tf.float32)],
        )

    def __call__(self, images: Any, labels: Any, there: Any, max_norm: float) -> list[tf.Tensor]:
        """Sum the clipped gradients of a padded batch.

        Args:
            images: (size, *input shape), float32.
            labels: (size,), uint8.
            there: (size,), float32; 1 for an image, 0 for padding.
            max_norm: what the Euclidean norm of one image's gradient, over all weights, is clipped to.

        Returns:
            One tensor a trainable weight, in the network's order.
        """
        total: list[tf.Tensor] = self._compiled(images, labels, there, tf.constant(max_norm, tf.float32))
        return total

    def _sum(self, images: tf.Tensor, labels: tf.Tensor, there: tf.Tensor, max_norm: tf.Tensor) -> list[tf.Tensor]:
        by_layer = _sequence(self._network)
        if by_layer is None:
            squares, weighed = self._mapped(images, labels)
        else:
            squares, weighed = self._layered(by_layer, images, labels)
        norms = tf.sqrt(squares)
        return weighed(there * tf.minimum(1.0, max_norm / tf.maximum(norms, 1e-30)))

    def _layered(self, layers: list[Any], images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Weighed]:
        """Run the network layer by layer, and contract each layer's input with the gradient of its output."""
        outputs: list[tf.Tensor] = []
        inputs: list[tf.Tensor] = []
        trained = [layer for layer in layers if layer.trainable_weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            flow = images
            for layer in layers:
                if not layer.trainable_weights:
                    flow = layer(flow, training=True)
                    continue
                inputs.append(flow)
                linear = _linear(layer)
                output = layer(flow, training=True) if linear is None else linear(layer, flow)
                tape.watch(output)
                outputs.append(output)
                flow = output if linear is None else layer.activation(output)
            loss = tf.reduce_sum(self._network.compute_loss(y=labels, y_pred=flow))
        slopes = tape.gradient(loss, outputs)
        squares = tf.zeros(self.size)
        parts: list[tuple[list[Any], Weighed]] = []
        for layer, before, slope in zip(trained, inputs, slopes, strict=True):
            square, weighed = _contract(layer, before, slope)
            squares += square
            parts.append(([weight.value for weight in layer.trainable_weights], weighed))

        def all_weighed(factors: tf.Tensor) -> list[tf.Tensor]:
            found = {
                id(weight): gradient
                for weights, weighed in parts
                for weight, gradient in zip(weights, weighed(factors), strict=True)
            }
            return [found[id(weight)] for weight in self._weights]

        return squares, all_weighed

    def _mapped(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Weighed]:
        """Compute each image's gradient, all weights at once."""

        def one(image_and_label: tuple[tf.Tensor, tf.Tensor]) -> list[tf.Tensor]:
            image, label = image_and_label
            with tf.GradientTape() as tape:
                output = self._network(image[None], training=True)
                loss = tf.reduce_sum(self._network.compute_loss(y=label[None], y_pred=output))
            gradients: list[tf.Tensor] = tape.gradient(loss, self._weights, unconnected_gradients="zero")
            return gradients

        return _each(tf.vectorized_map(one, (images, labels)))


def _sequence(network: Any) -> list[Any] | None:
    """List the layers of a network that is a sequence of them and shares no weight; None where it is not."""
    if not isinstance(network, keras.Sequential):
        return None
    layers = list(network.layers)
    weights = [id(weight) for layer in layers for weight in layer.trainable_weights]
    return layers if len(weights) == len(set(weights)) else None


def _dense(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    output = tf.tensordot(inputs, layer.kernel.value, 1)
    return output if layer.bias is None else output + layer.bias.value


def _convolution(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    output = tf.nn.conv2d(inputs, layer.kernel.value, layer.strides, layer.padding.upper(), "NHWC", layer.dilation_rate)
    return output if layer.bias is None else output + layer.bias.value


def _linear(layer: Any) -> Callable[[Any, tf.Tensor], tf.Tensor] | None:
    """Tell what a layer does before its activation, where its weights can be contracted directly; else None."""
    if type(layer) is keras.layers.Dense:
        return _dense
    if type(layer) is keras.layers.Conv2D and layer.groups == 1 and layer.data_format == "channels_last":
        return _convolution
    return None


def _contract(layer: Any, inputs: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, Weighed]:
    """Give the squared norm of each image's gradient by a layer's weights, (n,), and their weighed sum.

    Args:
        layer: a layer with trainable weights.
        inputs: what it was given, (n, …).
        slope: gradient of each image's loss by its output, before the activation where `_linear` knows it.
    """
    linear, size = _linear(layer), inputs.shape[0]
    if linear is _dense and inputs.shape.rank == 2:  # noqa: PLR2004 - (n, features)
        return _outer(inputs, slope, bias=layer.bias is not None)
    if linear is not None:
        places = tf.reshape(inputs, (size, -1, inputs.shape[-1])) if linear is _dense else _patches(layer, inputs)
        return _products(layer, places, tf.reshape(slope, (size, -1, slope.shape[-1])))

    def one(input_and_slope: tuple[tf.Tensor, tf.Tensor]) -> list[tf.Tensor]:
        given, wanted = input_and_slope
        weights = [weight.value for weight in layer.trainable_weights]
        with tf.GradientTape() as tape:
            output = layer(given[None], training=True)
        gradients: list[tf.Tensor] = tape.gradient(
            output, weights, output_gradients=wanted[None], unconnected_gradients="zero"
        )
        return gradients

    return _each(tf.vectorized_map(one, (inputs, slope)))


def _outer(inputs: tf.Tensor, slope: tf.Tensor, *, bias: bool) -> tuple[tf.Tensor, Weighed]:
    """Handle gradients that are outer products, whose norms need no product: |a b'| = |a| |b|."""
    squares = tf.reduce_sum(slope**2, 1) * (tf.reduce_sum(inputs**2, 1) + (1.0 if bias else 0.0))

    def weighed(factors: tf.Tensor) -> list[tf.Tensor]:
        scaled = slope * factors[:, None]
        kernel = tf.matmul(inputs, scaled, transpose_a=True)
        return [kernel, tf.reduce_sum(scaled, 0)] if bias else [kernel]

    return squares, weighed


def _products(layer: Any, places: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, Weighed]:
    """Handle gradients that are sums over places: one matrix product an image.

    Args:
        layer: it applies one kernel at each place.
        places: (n, places, inputs to one application).
        slope: (n, places, outputs of one application).
    """
    kernels = tf.matmul(places, slope, transpose_a=True)
    squares = tf.reduce_sum(kernels**2, (1, 2))
    shape = layer.kernel.shape
    biases = None if layer.bias is None else tf.reduce_sum(slope, 1)
    if biases is not None:
        squares += tf.reduce_sum(biases**2, 1)

    def weighed(factors: tf.Tensor) -> list[tf.Tensor]:
        kernel = tf.reshape(tf.tensordot(factors, kernels, 1), shape)
        return [kernel] if biases is None else [kernel, tf.tensordot(factors, biases, 1)]

    return squares, weighed


_SMALL = 75
"""Numbers in a patch up to which it is cut out faster by a convolution than by the operation made for it."""


def _patches(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """Cut out what the kernel of a convolution sees at each place: (n, places, height x width x channels)."""
    size, channels, padding = layer.kernel_size, inputs.shape[-1], layer.padding.upper()
    count = size[0] * size[1] * channels
    if count <= _SMALL:
        kernel = tf.reshape(tf.eye(count), (*size, channels, count))
        patches = tf.nn.conv2d(inputs, kernel, layer.strides, padding, "NHWC", layer.dilation_rate)
    else:
        patches = tf.image.extract_patches(
            inputs, (1, *size, 1), (1, *layer.strides, 1), (1, *layer.dilation_rate, 1), padding
        )
    return tf.reshape(patches, (inputs.shape[0], -1, count))


def _each(gradients: list[tf.Tensor]) -> tuple[tf.Tensor, Weighed]:
    """Handle gradients that are there for each image: (n, *weight) a weight."""
    squares = tf.add_n([tf.reduce_sum(tf.reshape(each, (each.shape[0], -1)) ** 2, 1) for each in gradients])
    return squares, lambda factors: [tf.tensordot(factors, each, 1) for each in gradients]
