"""What the trained model says of a picture that somebody draws on the status page."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from declearn.model.api import Model

from services.errors import DataError
from services.readers import picture
from services.server.evaluation import HeldOut
from services.shards import Manifest


def guess(content: bytes, model: Model[Any], held_out: HeldOut, manifest: Manifest) -> list[tuple[str, float]]:
    """Tell how likely each class is, the likeliest first; meant to be called in a thread.

    Args:
        content: of an image file.
        model: the trained model.
        held_out: scores it.
        manifest: of the data set that it was trained on.

    Raises:
        DataError: it is no image that can be read.
    """
    pixels = picture.prepare(picture.read(io.BytesIO(content), "the picture"), manifest.image_shape, manifest.dataset)
    if not pixels.any():
        raise DataError("the picture is blank", "a drawing", "draw something")
    chances = held_out.chances(model, pixels)
    return [(manifest.classes[number], float(chances[number])) for number in np.argsort(-chances, kind="stable")]
