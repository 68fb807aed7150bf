"""The plans in experiments/, and what some of them need beside the default settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from services.init import dataset
from tests.support import RAW, REPOSITORY

RECIPES = {path.stem: path for path in sorted((REPOSITORY / "experiments").glob("*.yml"))}
"""Each recipe's file, by its name."""

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


def settings(name: str, folder: Path) -> dict[str, Any]:
    """Give what `.env` would say for a recipe; `folder` receives data that are made for it."""
    if name == "own-data":
        return {"DATA": digits(folder / "digits")}
    return {"fashion-mnist": {"DATA": FASHION}}.get(name, {})


def digits(folder: Path, count: int = 6000) -> Path:
    """Write the first images of MNIST as a person might have them: PNG files, in a folder a class."""
    images, labels = (dataset.load_file(RAW, file) for file in (dataset.MNIST.train_images, dataset.MNIST.train_labels))
    for number in range(count):
        (folder / str(labels[number])).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(folder / str(labels[number]) / f"{number}.png")
    return folder
