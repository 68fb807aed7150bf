"""One image as a model takes it: sizes, colours, light on dark, and digits that lie anywhere."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from PIL.Image import Image

from services.errors import DataError
from services.init.dataset import Dataset
from services.readers import picture

MIDDLE = 13.5
"""Of 28 pixels."""


def image(pixels: NDArray[np.uint8]) -> Image:
    """Make an image of pixels."""
    return PIL.Image.fromarray(pixels)


def drawing(*, dark_on_light: bool = False, height: int = 300, width: int = 400) -> Image:
    """Draw a bar that is twice as high as wide, at the upper left."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[20:120, 30:80] = 255
    return image(255 - pixels if dark_on_light else pixels)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1)])
def test_an_image_of_the_data_set_is_left_as_it_is(mnist: Dataset, shape: tuple[int, ...]) -> None:
    """What has the right size and light ink is divided by 255, and nothing else is done to it."""
    for pixels in mnist.test_images[:20]:
        found = picture.prepare(image(pixels), shape, "mnist")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, pixels.reshape(shape).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_dark_ink_on_a_light_ground_is_inverted(mnist: Dataset, dataset: str) -> None:
    """An image of the right size with a light border becomes what the same image in light on dark is."""
    pixels = mnist.test_images[0]
    light, dark = (picture.prepare(image(each), (28, 28), dataset) for each in (pixels, 255 - pixels))
    np.testing.assert_array_equal(light, dark)


@pytest.mark.parametrize("dataset", ["own", None])
def test_of_other_data_nothing_is_assumed(dataset: str | None) -> None:
    """A light border may be what one's own images have: they are resized as they were for training, and that is all."""
    found = picture.prepare(drawing(dark_on_light=True), (28, 28), dataset)
    expected = np.asarray(drawing(dark_on_light=True).resize((28, 28)))
    np.testing.assert_array_equal(found, expected.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("dark_on_light", [True, False])
def test_a_digit_is_cut_out_scaled_and_centred(dark_on_light: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Wherever it lies, its longer side takes 20 pixels of 28, and its centre of mass is in the middle."""
    found = picture.prepare(drawing(dark_on_light=dark_on_light), (28, 28), "mnist")
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 23, 9, 18)
    assert found.max() == 1
    for axis in (0, 1):
        weights = found.sum(axis=1 - axis)
        assert (weights * np.arange(28)).sum() / weights.sum() == pytest.approx(MIDDLE, abs=0.5)


def test_a_digit_of_uneven_weight_stays_within_the_image() -> None:
    """A stroke whose mass is at one end is moved as far as the border, and not beyond."""
    pixels = np.zeros((200, 200), np.uint8)
    pixels[10:12, 10:190] = 255
    pixels[10:190, 10:12] = 60
    found = picture.prepare(image(pixels), (28, 28), "mnist")
    assert found.shape == (28, 28)
    assert found.max() == 1


def test_paper_and_its_shadows_are_no_ink(mnist: Dataset) -> None:
    """Gray paper, noise of a camera and a bright reflection leave no trace beside the digit."""
    rng = np.random.default_rng(0)
    pixels = 205 + rng.normal(0, 4, (300, 300))
    pixels[100:200, 140:160] = 40
    pixels[20:40, 20:40] = 255
    found = picture.prepare(image(np.clip(pixels, 0, 255).astype(np.uint8)), (28, 28), "mnist")
    columns = np.flatnonzero(found.any(axis=0))
    assert (columns[0], columns[-1]) == (12, 15)
    assert mnist.test_images.shape[1:] == found.shape


@pytest.mark.parametrize("level", [0, 130, 255])
def test_a_blank_image_is_blank(level: int) -> None:
    """No ink is nothing, whatever the ground, and no division by zero."""
    found = picture.prepare(image(np.full((50, 50), level, np.uint8)), (28, 28), "mnist")
    assert not found.any()


@pytest.mark.parametrize(("shape", "mode"), [((5, 4), "L"), ((5, 4, 1), "L"), ((5, 4, 3), "RGB")])
def test_colours_are_those_of_the_model(shape: tuple[int, ...], mode: str) -> None:
    """An image in colour is made gray for a model of gray ones, and the other way about."""
    colour = image(np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8))
    for each in (colour, colour.convert("L")):
        found = picture.prepare(each, shape, "own")
        expected = np.asarray(each.convert(mode)).reshape(shape).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(30,), (5, 4, 2), (5, 4, 4)])
def test_a_model_of_something_else_is_refused(shape: tuple[int, ...]) -> None:
    """A model of vectors, or of channels that no picture has, takes none."""
    with pytest.raises(DataError) as caught:
        picture.prepare(drawing(), shape, "own")
    assert str(caught.value) == (
        f"the model takes examples of {' x '.join(map(str, shape))} values; wanted height x width, of one channel or"
        " three; choose a model of images"
    )


def test_an_image_is_read_from_a_file_and_from_memory(tmp_path: Path) -> None:
    """Both give the same pixels; what can't be read is called by the name that it was given."""
    drawing().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    one, other = picture.read(tmp_path / "a.png", "a"), picture.read(io.BytesIO(content), "the drawing")
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    with pytest.raises(DataError, match=r"^the drawing is no whole image; "):
        picture.read(io.BytesIO(content[:100]), "the drawing")
