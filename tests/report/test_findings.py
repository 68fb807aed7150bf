"""What is kept of the last scoring: the worst mistakes as small pictures, and the confusion matrix."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from services.errors import DataError
from services.report import findings
from services.report.findings import Mistake


def decoded(picture: bytes | None) -> NDArray[np.uint8]:
    """Decode a picture that is there."""
    assert picture is not None
    return np.asarray(PIL.Image.open(io.BytesIO(picture)))


def picked(images: Any, most: int = 24) -> list[Mistake]:
    """Pick from images that are all taken for class 1, which is right of the first, and each more surely."""
    count = len(images)
    labels = np.array([1] + [0] * (count - 1), np.uint8)
    sure = np.linspace(0.6, 0.9, count)
    chances = np.stack([1 - sure, sure], axis=1)
    return findings.pick(images, labels, chances, -np.log(1 - sure), chances, most)


def test_the_worst_come_first() -> None:
    """Mistakes alone are picked, those of the highest loss first, with what the model took them for and how surely."""
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    found = picked(images, most=3)
    assert [(each.image, each.true, each.predicted) for each in found] == [(4, 0, 1), (3, 0, 1), (2, 0, 1)]
    assert [each.confidence for each in found] == pytest.approx([0.9, 0.825, 0.75])
    np.testing.assert_array_equal(decoded(found[0].picture), images[4])


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((9, 5), (9, 5)),
        ((9, 5, 1), (9, 5)),
        ((9, 5, 2), (9, 5)),
        ((9, 5, 3), (9, 5, 3)),
        ((9, 5, 4), (9, 5, 3)),
        ((192, 100), (96, 50)),
        ((1, 500, 3), (1, 96, 3)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_any_kind_become_small_pictures(shape: tuple[int, ...], shown: tuple[int, ...], dtype: Any) -> None:
    """Gray or in colour, of bytes or floats: a PNG of at most 96 pixels a side, whose intensities are the image's."""
    level = 200 if dtype is np.uint8 else 200 / 255
    found = picked(np.full((2, *shape), level, dtype))
    pixels = decoded(found[0].picture)
    assert pixels.shape == shown
    assert (pixels == 200).all()


def test_vectors_have_no_picture() -> None:
    """A row of a table is told by its place alone."""
    assert [(each.image, each.picture) for each in picked(np.zeros((3, 30), np.float32))] == [(2, None), (1, None)]


def test_scores_that_tell_no_probability_tell_no_confidence() -> None:
    """Margins, as of a hinge loss, are nothing to be sure by."""
    images, scores = np.zeros((1, 2, 2), np.uint8), np.array([[-1.0, 3.0]])
    (mistake,) = findings.pick(images, np.zeros(1, np.uint8), scores, np.array([4.0]), None)
    assert (mistake.predicted, mistake.confidence) == (1, None)


def test_a_model_that_is_not_finite_has_no_worst_mistake() -> None:
    """Where losses are no numbers, nothing can be ranked, and nothing is picked."""
    images, scores = np.zeros((3, 2, 2), np.uint8), np.full((3, 2), np.nan)
    assert findings.pick(images, np.ones(3, np.uint8), scores, np.full(3, np.nan), scores) == []


def test_mistakes_read_back_as_they_were(tmp_path: Path) -> None:
    """The file gives the very mistakes that were written; no file is no mistake."""
    path = tmp_path / "mistakes.json"
    assert findings.load_mistakes(path) == []
    found = [*picked(np.zeros((3, 4, 4), np.uint8)), Mistake(9, 1, 0, None, None)]
    path.write_text(findings.dump_mistakes(found))
    assert findings.load_mistakes(path) == found


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    "changes",
    [
        {"image": -1},
        {"true": 256},
        {"predicted": "a"},
        {"confidence": 1.5},
        {"png": "no base64 <script>"},
        {"png": "AAAA"},
        {"png": PNG[:60]},
        {"png": "large"},
    ],
    ids=["place", "class", "text", "confidence", "no base64", "no picture", "torn", "large"],
)
def test_a_damaged_mistake_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What the server never writes is not shown: numbers out of range, pictures that are none, or are large."""
    path = tmp_path / "mistakes.json"
    sound = {"image": 1, "true": 0, "predicted": 1, "confidence": 0.5, "png": PNG}
    path.write_text(json.dumps([sound]))
    assert len(findings.load_mistakes(path)) == 1
    if changes.get("png") == "large":
        file = io.BytesIO()
        PIL.Image.new("L", (97, 2)).save(file, "PNG")
        changes = {"png": base64.b64encode(file.getvalue()).decode()}
    path.write_text(json.dumps([sound, sound | changes]))
    with pytest.raises(DataError, match=r"mistakes.json can't be read \(it is damaged\)"):
        findings.load_mistakes(path)


def test_a_confusion_matrix_reads_back_as_it_was(tmp_path: Path) -> None:
    """Counts keep their places and names, whatever those hold; no file is no matrix."""
    path = tmp_path / "confusion.csv"
    assert findings.load_confusion(path) is None
    counts = np.array([[8, 2], [0, 10]])
    path.write_text(findings.dump_confusion(counts, ("a, b", 'the "true"')))
    found = findings.load_confusion(path)
    assert found is not None
    np.testing.assert_array_equal(found[0], counts)
    assert found[1] == ("a, b", 'the "true"')


@pytest.mark.parametrize(
    "content",
    ["true\n", "true,a,b\na,1,2\n", "true,a,b\na,1,2\nc,3,4\n", "true,a,b\na,1,2\nb,3,-4\n", f"true,a\na,{10**30}\n"],
    ids=["no class", "a row missing", "another name", "below zero", "beyond int64"],
)
def test_a_damaged_confusion_matrix_is_refused(tmp_path: Path, content: str) -> None:
    """A matrix has a row and a column for each class, of counts."""
    path = tmp_path / "confusion.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"confusion.csv can't be read \(it is damaged\)"):
        findings.load_confusion(path)
