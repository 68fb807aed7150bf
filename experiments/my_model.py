"""A network of one's own: `model: {module: my_model.py:build}`. Only the server reads this file."""

import keras
from keras import layers


def build(image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build a small convolutional network with a shortcut.

    Args:
        image_shape: (height, width, channels) of one image; intensities are in [0, 1].
        classes: number of classes.

    Returns:
        A model from images to class probabilities.
    """
    images = layers.Input(image_shape)
    first = layers.Conv2D(16, 5, strides=2, padding="same", activation="relu", name="first")(images)
    second = layers.Conv2D(16, 3, padding="same", activation="relu", name="second")(first)
    joined = layers.MaxPool2D(2, name="pool")(layers.Add(name="shortcut")([first, second]))
    hidden = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten(name="flatten")(joined))
    return keras.Model(images, layers.Dense(classes, activation="softmax", name="classes")(hidden), name="my_model")
