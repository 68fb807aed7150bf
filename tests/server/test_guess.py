"""A picture from the status page, and what a trained model says of it."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from services import shards
from services.errors import DataError
from services.init import dataset
from services.init import main as init
from services.paths import Paths
from services.server import engines
from services.server.evaluation import HeldOut
from services.server.guess import guess
from services.server.model import build_model
from tests.federation import plan


def encoded(pixels: np.ndarray) -> bytes:
    """Write an image as a PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def parts(small: Paths) -> tuple[object, HeldOut, shards.Manifest]:
    """An untrained model, the test images that score it, and their manifest."""
    made = plan()
    manifest = init.prepare(2, 2, made, small)
    images, labels = shards.load_test(small.test)
    held_out = HeldOut(images, labels, len(manifest.classes), engines.of(made))
    return build_model(made, manifest.image_shape, len(manifest.classes), None), held_out, manifest


def test_each_class_has_its_share_the_likeliest_first(
    parts: tuple[object, HeldOut, shards.Manifest], mnist: dataset.Dataset
) -> None:
    """All classes are told, in falling order, and their shares are those of the model for that very image."""
    model, held_out, manifest = parts
    found = guess(encoded(mnist.test_images[0]), model, held_out, manifest)  # type: ignore[arg-type]
    shares = [share for _, share in found]
    assert sorted(name for name, _ in found) == list(manifest.classes)
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    image = mnist.test_images[0].astype(np.float32) / np.float32(255)
    direct = held_out.chances(model, image.reshape(manifest.image_shape))  # type: ignore[arg-type]
    assert dict(found)[manifest.classes[int(direct.argmax())]] == pytest.approx(float(direct.max()))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"nothing of the kind", "the picture"),
        (encoded(np.zeros((280, 280), np.uint8)), "the picture is blank; wanted a drawing; draw something"),
    ],
)
def test_what_is_no_drawing_is_one_line(
    parts: tuple[object, HeldOut, shards.Manifest], content: bytes, line: str
) -> None:
    """Bytes that are no image, and an empty canvas, are refused in a line."""
    with pytest.raises(DataError) as caught:
        guess(content, *parts)  # type: ignore[arg-type]
    assert str(caught.value).startswith(line)
