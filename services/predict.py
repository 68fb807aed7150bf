"""`fed predict`: what a run's model takes images for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from services import runs
from services.errors import DataError, UsageError
from services.readers import picture
from services.report import facts
from services.report.facts import Summary
from services.server import engines
from services.transport.refusals import one_line

MODELS = (runs.KERAS_MODEL, runs.SKLEARN_MODEL)

SMALL_GRAY = (28, 28)
"""Shape of images by which a model without a summary beside it is taken for one of MNIST."""


def run(word: str, images: Sequence[Path], results: Path) -> Iterator[str]:
    """Tell of each image which class the model takes it for.

    Args:
        word: a model's file; or a run, as an id, a folder or `latest`.
        images: files, each an image.
        results: folder of the runs that are named by their id.

    Yields:
        A line an image: file, class and probability, parted by tabs; without the last where the model tells none.

    Raises:
        UsageError: the word is neither a model nor a run that has one.
        DataError: the model, or an image, can't be read, or the model takes no images.
    """
    path = _find(word, results)
    for image in images:
        if not image.is_file():
            raise DataError(f"{image} is missing", "an image file", "correct its name")
    summary = facts.read_summary(path.parent) if (path.parent / runs.SUMMARY).exists() else None
    model = engines.read(path)
    shape, dataset = _form(model.shape, summary)
    for image in images:
        pixels = picture.prepare(picture.read(image, str(image)), shape, dataset)
        scores = model.scorer.predict(pixels[np.newaxis])
        best = int(scores[0].argmax())
        chances = model.scorer.chances(scores)
        told = [str(image), _name(best, summary)]
        yield "\t".join(told if chances is None else [*told, f"{float(chances[0, best]):.4f}"])


def _find(word: str, results: Path) -> Path:
    """Find the model's file."""
    if Path(word).suffix in {Path(name).suffix for name in MODELS}:
        if not Path(word).is_file():
            raise DataError(f"{word} is missing", "a model that a run left", "correct its name")
        return Path(word)
    folder = runs.find_one(word, results)
    found = [folder / name for name in MODELS if (folder / name).is_file()]
    if not found:
        raise UsageError(f"run {folder.name} has no model", "a run that came to one", "choose another")
    return found[0]


def _form(taken: tuple[int, ...], summary: Summary | None) -> tuple[tuple[int, ...], str | None]:
    """Tell the shape of one image of the model's, and which data set it was trained on.

    A linear model takes an image as a vector: its summary tells which image, or else it is a square gray one.
    """
    shape = taken
    if len(taken) == 1:
        if summary is not None and math.prod(summary.image_shape) == taken[0] and len(summary.image_shape) > 1:
            shape = summary.image_shape
        elif (side := math.isqrt(taken[0])) ** 2 == taken[0] and (summary is None or not summary.image_shape):
            shape = (side, side)
    if summary is not None:
        return shape, summary.dataset
    return shape, picture.DIGITS if shape[:2] == SMALL_GRAY and shape[2:] in {(), (1,)} else None


def _name(number: int, summary: Summary | None) -> str:
    names = () if summary is None else summary.classes
    return one_line(names[number]) if number < len(names) else str(number)
