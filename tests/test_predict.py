"""`fed predict`: what a run's model takes images for, and what it says where it can't tell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest

from services import predict
from services.errors import DataError, UsageError
from services.experiment import Plan
from services.server.engines.sklearn import SklearnEngine
from services.server.engines.tensorflow import TensorflowEngine
from services.server.model import build_model
from tests.report import made

TOP, BOTTOM = "top", "bottom"


def network(shape: tuple[int, ...]) -> keras.Model:
    """Make a network of two classes: whether there is more light in the upper half of a gray image, or in the lower."""
    inputs = keras.Sequential(
        [keras.layers.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    )
    half = np.zeros(shape[:2], np.float32)
    half[: shape[0] // 2], half[shape[0] // 2 :] = 1.0, -1.0
    flat = np.repeat(half.ravel(), shape[2]) / 20
    inputs.layers[-1].set_weights([np.stack([flat, -flat], axis=1), np.zeros(2)])
    return inputs


def run(results: Path, name: str = "a", shape: tuple[int, ...] = (28, 28, 1), **summary: Any) -> Path:
    """Write a run with such a network."""
    folder = results / name
    image_shape = list(shape[:2]) if shape[2] == 1 else list(shape)
    made.write(folder, classes=(TOP, BOTTOM), **{"dataset": "fashion-mnist", "image_shape": image_shape} | summary)
    network(shape).save(folder / "model.keras")
    return folder


def draw(path: Path, *, upper: bool = True, dark: bool = False, size: int = 90) -> Path:
    """Draw a light bar in the upper or the lower half of a dark image, or the other way about."""
    pixels = np.zeros((size, size), np.uint8)
    first = size // 8 if upper else size - size // 4
    pixels[first : first + size // 8, size // 4 : -size // 4] = 255
    PIL.Image.fromarray(255 - pixels if dark else pixels).save(path)
    return path


def told(word: str | Path, *images: Path, results: Path = Path("results")) -> list[list[str]]:
    """Predict, and take each line apart."""
    return [line.split("\t") for line in predict.run(str(word), images, results)]


def test_each_image_is_a_line(tmp_path: Path) -> None:
    """File, name of the class and probability; dark ink on a light ground is taken as the light that it means."""
    run(tmp_path)
    (tmp_path / "latest").symlink_to("a")
    images = [
        draw(tmp_path / "one.png"),
        draw(tmp_path / "two.png", upper=False),
        draw(tmp_path / "three.jpg", upper=False, dark=True),
        draw(tmp_path / "four.bmp", size=28),
    ]
    lines = told("latest", *images, results=tmp_path)
    assert [line[:2] for line in lines] == [
        [str(image), name] for image, name in zip(images, (TOP, BOTTOM, BOTTOM, TOP), strict=True)
    ]
    assert all(re.fullmatch(r"0\.\d{4}", chance) and float(chance) > 0.5 for _, _, chance in lines)


def test_a_model_is_named_by_file_and_by_run(tmp_path: Path) -> None:
    """The file, the run's id and its folder stand for the same model."""
    folder = run(tmp_path)
    image = draw(tmp_path / "one.png")
    words = (folder / "model.keras", "a", folder)
    assert len({str(told(word, image, results=tmp_path)) for word in words}) == 1


def test_ones_own_images_are_not_inverted(tmp_path: Path) -> None:
    """A light border means nothing where the run's own images may have one."""
    run(tmp_path, dataset="own")
    assert told("a", draw(tmp_path / "one.png", dark=True), results=tmp_path)[0][1] == BOTTOM


def test_a_model_without_its_run_tells_numbers(tmp_path: Path) -> None:
    """A file that lies by itself has no names; one of images as small and gray as MNIST's is taken for one of those."""
    network((28, 28, 1)).save(tmp_path / "model.keras")
    lines = told(tmp_path / "model.keras", draw(tmp_path / "one.png", dark=True, size=28))
    assert lines[0][1] == "0"
    network((30, 30, 1)).save(tmp_path / "model.keras")
    assert told(tmp_path / "model.keras", draw(tmp_path / "one.png", dark=True))[0][1] == "1"


def test_images_in_colour_are_resized_for_their_model(tmp_path: Path) -> None:
    """A model of images in colour takes a gray one too."""
    run(tmp_path, shape=(16, 20, 3), dataset="own")
    assert told("a", draw(tmp_path / "one.png"), results=tmp_path)[0][1] == TOP


@pytest.mark.parametrize("loss", ["log_loss", "hinge"])
def test_a_linear_model_tells_what_it_can(tmp_path: Path, loss: str) -> None:
    """Its summary tells which images its vectors are; margins are no probability, and none is told."""
    folder = made.write(tmp_path / "a", classes=(TOP, BOTTOM), dataset="own", image_shape=[8, 18])
    (folder / "model.keras").unlink()
    model = build_model(Plan.model_validate({"model": {"sklearn": {"loss": loss}}}), (8, 18), 2)
    model.get_wrapped_model().coef_ = np.repeat([-1.0, 1.0], 72)[np.newaxis]
    (folder / "model.npz").write_bytes(SklearnEngine().dump(model))
    (line,) = told("a", draw(tmp_path / "one.png", upper=False), results=tmp_path)
    assert line[1] == BOTTOM
    assert len(line) == (3 if loss == "log_loss" else 2)
    (folder / "summary.json").unlink()
    (line,) = told(folder / "model.npz", draw(tmp_path / "one.png", upper=False))
    assert line[1] == "1"


def test_a_vector_that_is_no_square_needs_its_summary(tmp_path: Path) -> None:
    """What an image is made of is not guessed."""
    model = build_model(Plan.model_validate({"model": {"sklearn": {}}}), (8, 17), 2)
    (tmp_path / "model.npz").write_bytes(SklearnEngine().dump(model))
    with pytest.raises(DataError, match=r"^the model takes examples of 136 values; "):
        told(tmp_path / "model.npz", draw(tmp_path / "one.png"))


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    """The name of a class that would command a terminal does not."""
    folder = run(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"classes": ["\x1b[31mred\n", "x"]}))
    assert told("a", draw(tmp_path / "one.png"), results=tmp_path)[0][1] == "[31mred"


def _missing_model(folder: Path) -> list[Any]:
    return [folder / "other.keras", folder / "one.png"]


def _no_model(folder: Path) -> list[Any]:
    (folder / "a" / "model.keras").unlink()
    return ["a", folder / "one.png"]


def _missing_image(folder: Path) -> list[Any]:
    return ["a", folder / "one.png", folder / "two.png"]


def _no_image(folder: Path) -> list[Any]:
    (folder / "two.png").write_bytes(b"no image")
    return ["a", folder / "two.png"]


def _no_run(folder: Path) -> list[Any]:
    return ["b", folder / "one.png"]


def _damaged_summary(folder: Path) -> list[Any]:
    (folder / "a" / "summary.json").write_text("{}")
    return ["a", folder / "one.png"]


@pytest.mark.parametrize(
    ("make", "error", "line"),
    [
        (_missing_model, DataError, "other.keras is missing; wanted a model that a run left; correct its name"),
        (_no_model, UsageError, "run a has no model; wanted a run that came to one; choose another"),
        (_missing_image, DataError, "two.png is missing; wanted an image file; correct its name"),
        (
            _no_image,
            DataError,
            (
                "two.png is no whole image; wanted an image that can be decoded; restore it from where it came, or"
                " leave it out"
            ),
        ),
        (
            _no_run,
            UsageError,
            "b is no run and no sweep; wanted a run's id or folder, `latest`, or a sweep; look into .",
        ),
        (
            _damaged_summary,
            DataError,
            (
                "a/summary.json can't be read (run_id: Field required); wanted a file as the server writes it; leave"
                " that run out"
            ),
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], list[Any]],
    error: type[Exception],
    line: str,
) -> None:
    """A model, a run or an image that is missing or damaged is told in one line."""
    run(tmp_path)
    draw(tmp_path / "one.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        told(*make(Path()), results=Path())
    assert str(caught.value).replace(f"{tmp_path}/", "") == line


def test_digits_drawn_large_and_dark_are_read(tmp_path: Path) -> None:
    """What the preset's file takes is what is prepared: shapes agree from end to end."""
    folder = made.write(tmp_path / "a")
    model = build_model(Plan(seed=1))
    (folder / "model.keras").write_bytes(TensorflowEngine().dump(model))
    (line,) = told("a", draw(tmp_path / "one.png", dark=True, size=300), results=tmp_path)
    assert line[1] in made.DIGITS
