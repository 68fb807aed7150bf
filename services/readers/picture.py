"""One image of any kind, as a model takes it: a photograph, a scan, a drawing of a person who tries the model.

What a model was trained on is of one size, of one colour of ink and, for digits, in one place. What people have is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from services.errors import DataError
from services.readers.base import COLOUR
from services.readers.images import fitted, upright

if TYPE_CHECKING:
    from PIL.Image import Image

DIGITS = "mnist"
"""Data set of digits in the middle of their image, in a box of 20 of its 28 pixels (LeCun et al. 1998)."""

LIGHT_ON_DARK = (DIGITS, "fashion-mnist")
"""Data sets whose images are light on a dark ground; an image with a light border is the other way about."""

BOX = 20 / 28
"""Share of an image's side that the longer side of a digit takes."""

INK = 0.2
"""Share of the strongest ink above which a pixel belongs to the digit; below are paper and shadows."""

FAINTEST = 16
"""Difference from the ground, of 255, below which an image is blank."""


def read(file: Path | BinaryIO, name: str) -> Image:
    """Decode an image: PNG, JPEG, BMP or WebP, opaque.

    Raises:
        DataError: it can't be read; see `services.readers.images.upright`.
    """
    return upright(file, name)


def prepare(image: Image, shape: tuple[int, ...], dataset: str | None) -> NDArray[np.float32]:
    """Turn an image into what a model of a data set takes.

    It is resized, and made gray where the model's images are. For MNIST and Fashion-MNIST, an image with a light border
    is inverted; for MNIST, one of another size is also cut out, scaled and centred as its makers did.

    Args:
        image: of any size.
        shape: of one image of the model's: (height, width), or (height, width, channels).
        dataset: name of the data set that it was trained on; None for one that is not known.

    Returns:
        Intensities in [0, 1], of that shape.

    Raises:
        DataError: the model takes something else than gray or RGB images.
    """
    channels = shape[2:] or (1,)
    if len(shape) not in {2, COLOUR} or channels not in {(1,), (3,)}:
        raise DataError(
            f"the model takes examples of {' x '.join(map(str, shape))} values",
            "height x width, of one channel or three",
            "choose a model of images",
        )
    gray, size = channels == (1,), shape[:2]
    if gray and dataset == DIGITS and (image.height, image.width) != size:
        pixels = _centred(np.asarray(image.convert("L")), (size[0], size[1]))
    else:
        pixels = fitted(image, size, gray=gray)
        if dataset in LIGHT_ON_DARK and _ground(pixels) > 127:  # noqa: PLR2004 - half of the range
            pixels = 255 - pixels
    return (pixels.astype(np.float32) / np.float32(255)).reshape(shape)


def _ground(pixels: NDArray[np.uint8]) -> float:
    """Tell the usual intensity along the border."""
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def _centred(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut out what differs from the ground, fit it into the box, and put its centre of mass into the middle."""
    ground = _ground(pixels)
    ink = np.abs(pixels.astype(np.float32) - ground)
    if ground > 127:  # noqa: PLR2004 - half of the range; lighter than light paper is a reflection
        ink[pixels > ground] = 0
    else:
        ink[pixels < ground] = 0
    canvas = np.zeros(size, np.uint8)
    if ink.max() < FAINTEST:
        return canvas
    ink /= ink.max()
    ink[ink < INK] = 0
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    digit = PIL.Image.fromarray((ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255).astype(np.uint8))
    scale = BOX * min(size) / max(digit.size)
    width, height = (max(1, round(side * scale)) for side in digit.size)
    small = np.asarray(digit.resize((width, height), PIL.Image.Resampling.BOX if scale < 1 else None)).astype(
        np.float32
    )
    small *= 255 / max(1.0, float(small.max()))
    mass = small.sum()
    middle = [float((small.sum(axis=1 - axis) * np.arange(small.shape[axis])).sum() / mass) for axis in (0, 1)]
    top, left = (
        min(max(0, round((side - 1) / 2 - at)), side - length)
        for side, at, length in zip(size, middle, small.shape, strict=True)
    )
    canvas[top : top + height, left : left + width] = small.round().astype(np.uint8)
    return canvas
