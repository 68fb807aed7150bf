"""What the server keeps of its last scoring of the model: what it takes for what, and its worst mistakes.

The test images are the server's alone, and no part of a run's folder; of a few, small pictures are kept in it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, Field, TypeAdapter

from services.shards import MAX_CLASSES, Pixels
from services.tables import damaged, lines

CONFUSION, MISTAKES = "confusion.csv", "mistakes.json"

MOST = 24
"""Mistakes that are kept."""

SIDE = 96
"""Pixels of the longer side of a kept picture, at most."""

COLOURS = 3
"""Channels of a colour image; of more, the first three are shown, of fewer the first."""


@dataclass(frozen=True)
class Mistake:
    """A test image that the model takes for something else.

    Attributes:
        image: its place among the test images, from 0.
        true: its class.
        predicted: what the model takes it for.
        confidence: probability that the model gives to that, in [0, 1]; None where it tells none.
        picture: the image as a PNG, or None of a vector.
    """

    image: int
    true: int
    predicted: int
    confidence: float | None
    picture: bytes | None


def pick(
    images: Pixels,
    labels: NDArray[np.uint8],
    scores: NDArray[Any],
    losses: NDArray[Any],
    chances: NDArray[Any] | None,
    most: int = MOST,
) -> list[Mistake]:
    """Pick the mistakes of the highest loss, the worst first.

    Args:
        images: (n, height, width[, channels]), uint8 or float32 in [0, 1]; or (n, features).
        labels: (n,), the true classes.
        scores: (n, classes), the highest for the likeliest class.
        losses: (n,).
        chances: probabilities (n, classes), or None where there are none.
        most: number of mistakes that are picked.
    """
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero((predicted != labels) & np.isfinite(losses))
    worst = wrong[np.argsort(-losses[wrong], kind="stable")][:most]
    return [
        Mistake(
            image=int(place),
            true=int(labels[place]),
            predicted=int(predicted[place]),
            confidence=None if chances is None else min(1.0, float(chances[place, predicted[place]])),
            picture=_picture(images[place]),
        )
        for place in worst
    ]


def _picture(image: Pixels) -> bytes | None:
    if image.ndim == 1:
        return None
    pixels = image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == COLOURS:
        pixels = pixels[..., :COLOURS] if pixels.shape[2] >= COLOURS else pixels[..., 0]
    shown = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    shown.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    shown.save(file, "PNG", optimize=True)
    return file.getvalue()


def dump_mistakes(mistakes: Iterable[Mistake]) -> str:
    """Write mistakes as JSON: a list, the worst first; `png` is in base64."""
    told = [
        {
            "image": each.image,
            "true": each.true,
            "predicted": each.predicted,
            "confidence": each.confidence,
            "png": None if each.picture is None else base64.b64encode(each.picture).decode(),
        }
        for each in mistakes
    ]
    return json.dumps(told, indent=1) + "\n"


Class = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]


class _Kept(BaseModel):
    image: Annotated[int, Field(ge=0)]
    true: Class
    predicted: Class
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    png: Base64Bytes | None


def load_mistakes(path: Path) -> list[Mistake]:
    """Read what `dump_mistakes` wrote; none where the file is not there.

    Raises:
        DataError: it can't be read, or is damaged, be it in one picture.
    """
    try:
        kept = TypeAdapter(list[_Kept]).validate_json(path.read_bytes())
        for each in kept:
            if each.png is not None:
                with PIL.Image.open(io.BytesIO(each.png), formats=["PNG"]) as picture:
                    if max(picture.size) > SIDE:
                        raise damaged(path)
                    picture.load()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise damaged(path, exc) from None
    except (ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        raise damaged(path) from None
    return [Mistake(each.image, each.true, each.predicted, each.confidence, each.png) for each in kept[:MOST]]


def dump_confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Write counts (classes, classes) as CSV: a row a true class, a column a predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    return text.getvalue()


def load_confusion(path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Read what `dump_confusion` wrote: counts, and names of the classes; None where the file is not there.

    Raises:
        DataError: it can't be read, or is damaged.
    """
    found = lines(path)
    if not found:
        return None
    head, *rows = found
    names = tuple(head[1:])
    try:
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
    except (ValueError, OverflowError):
        raise damaged(path) from None
    if not names or tuple(row[0] for row in rows) != names or len(names) > MAX_CLASSES or counts.min() < 0:
        raise damaged(path)
    return counts, names
