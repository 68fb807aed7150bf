"""A person's own data set, dealt by `init`: what is held out to test on, what is kept, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services import shards
from services.errors import ConflictError, DataError, ExperimentError, UsageError
from services.experiment import Data, Plan
from services.experiment.plan import Train
from services.init import dataset, main, own
from services.paths import Paths
from services.readers.base import Part, Rows
from tests.support import RAW, stats

IMAGES = np.random.default_rng(0).integers(0, 256, (90, 6, 5), dtype=np.uint8)
LABELS = np.arange(90) % 3


def write(folder: Path, images: NDArray[Any] = IMAGES, labels: NDArray[Any] = LABELS, part: str = "train") -> Path:
    """Write a pair of arrays."""
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{part}_data.npy", images)
    np.save(folder / f"{part}_target.npy", labels)
    return folder


def plan(**data: Any) -> Plan:
    """Make a plan of one's own data."""
    return Plan(data=Data(dataset="own", **data), train=Train(batch_size=1))


def prepare(tmp_path: Path, folder: Path, clients: int = 2, **data: Any) -> tuple[shards.Manifest, Paths]:
    """Deal a folder."""
    paths = Paths(tmp_path / "root", folder)
    return main.prepare(clients, 4, plan(**data), paths), paths


def refusal(tmp_path: Path, folder: Path, **data: Any) -> str:
    """Deal a folder, which must fail, and give the line without the folder's name."""
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, folder, **data)
    assert not (tmp_path / "root" / "data" / "shards" / "train_images.npy").exists()
    return str(caught.value).replace(str(folder), "DATA")


def test_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    """Without a test set a tenth of each class is held out; each example is in one place, with its label."""
    manifest, paths = prepare(tmp_path, write(tmp_path / "mine"))
    assert (manifest.dataset, manifest.classes, manifest.image_shape) == ("own", ("0", "1", "2"), (6, 5))
    assert manifest.sizes == (1, 2, 3, 4)
    test_images, test_labels = shards.load_test(paths.test)
    assert np.bincount(test_labels).tolist() == [3, 3, 3]
    shard = shards.load_shard(paths.shards, 1, 0)
    assert shard.valid_images is not None
    assert shard.valid_labels is not None
    parts = [(shard.train_images, shard.train_labels), (shard.valid_images, shard.valid_labels)]
    parts.append((test_images, test_labels))
    held = {
        image.tobytes(): int(label) for images, labels in parts for image, label in zip(images, labels, strict=True)
    }
    assert held == {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS, strict=True)}


def test_a_test_set_of_ones_own_is_kept_apart(tmp_path: Path) -> None:
    """With a test set, that is what the server tests on, and all other examples are dealt."""
    folder = write(tmp_path / "mine")
    write(folder, IMAGES[:6] // 2, LABELS[:6], "test")
    manifest, paths = prepare(tmp_path, folder)
    np.testing.assert_array_equal(shards.load_test(paths.test)[0], IMAGES[:6] // 2)
    assert sum(seat.train + seat.valid for seat in manifest.cuts[2].seats) == 90


def test_floats_and_features_are_dealt(tmp_path: Path) -> None:
    """Vectors of floats reach a client as they were."""
    vectors = np.random.default_rng(0).normal(0, 100, (90, 4)).astype(np.float32)
    manifest, paths = prepare(tmp_path, write(tmp_path / "mine", vectors))
    assert manifest.image_shape == (4,)
    shard = shards.load_shard(paths.shards, 2, 1)
    assert shard.train_images.dtype == np.float32
    assert {row.tobytes() for row in shard.train_images} < {row.tobytes() for row in vectors}
    assert shards.load_test(paths.test)[0].dtype == np.float32


def test_classes_have_names(tmp_path: Path) -> None:
    """`classes.txt` names the classes of bare numbers."""
    folder = write(tmp_path / "mine")
    (folder / "classes.txt").write_text("red\ngreen\nblue\n")
    assert prepare(tmp_path, folder)[0].classes == ("red", "green", "blue")


def test_a_second_run_touches_nothing(tmp_path: Path) -> None:
    """The same folder, read the same way, is kept; what is lost of it is mended with the very bytes."""
    folder = write(tmp_path / "mine")
    manifest, paths = prepare(tmp_path, folder)
    before = stats(paths.root)
    assert prepare(tmp_path, folder)[0] == manifest
    assert stats(paths.root) == before
    digest = dataset.digest_file(paths.test / shards.TEST_IMAGES)
    (paths.test / shards.TEST_IMAGES).unlink()
    prepare(tmp_path, folder)
    assert dataset.digest_file(paths.test / shards.TEST_IMAGES) == digest


@pytest.mark.parametrize(
    ("data", "found", "wanted"),
    [
        ({"test_fraction": 0.2}, "test_fraction 0.1", "test_fraction 0.2"),
        ({"shape": (5, 6)}, "shape None", "shape [5, 6]"),
        ({"scheme": "labels", "label": "3"}, "scheme iid, label None", "scheme labels, label 3"),
    ],
)
def test_reading_it_otherwise_is_a_conflict(tmp_path: Path, data: dict[str, Any], found: str, wanted: str) -> None:
    """Kept shards that were read otherwise are an error that names the key with both values."""
    folder = write(tmp_path / "mine")
    prepare(tmp_path, folder)
    with pytest.raises(ConflictError) as caught:
        prepare(tmp_path, folder, **data)
    assert f"was dealt with {found}; wanted {wanted} as asked now" in str(caught.value)


def test_a_changed_folder_is_a_conflict(tmp_path: Path) -> None:
    """One example more makes another data set, which is not dealt under the clients that have the old one."""
    folder = write(tmp_path / "mine")
    prepare(tmp_path, folder)
    write(folder, np.concatenate([IMAGES, IMAGES[:1]]), np.append(LABELS, 0))
    with pytest.raises(
        ConflictError, match=r"was dealt with data_sha256 [0-9a-f]{64}; wanted data_sha256 [0-9a-f]{64}"
    ):
        prepare(tmp_path, folder)


def test_own_data_are_not_mnist(tmp_path: Path, small: Paths) -> None:
    """Shards of MNIST are a conflict with one's own data, told in one word."""
    main.prepare(2, 2, Plan(), small)
    folder = write(tmp_path / "mine")
    with pytest.raises(ConflictError, match="was dealt with dataset mnist; wanted dataset own as asked now"):
        main.prepare(2, 2, plan(), Paths(small.root, folder))


def test_data_must_be_set(tmp_path: Path) -> None:
    """Without DATA, or with one that holds a data set that has a name, the plan is not followed in silence."""
    with pytest.raises(UsageError) as caught:
        main.prepare(2, 2, plan(), Paths(tmp_path))
    assert (
        str(caught.value) == "data.dataset is own, and DATA is not set; wanted the folder of your data; set DATA to it"
    )
    with pytest.raises(UsageError) as caught:
        main.prepare(2, 2, plan(), Paths(tmp_path, RAW))
    assert str(caught.value) == (
        f"data.dataset is own, and {RAW} holds mnist; wanted a folder of your own data;"
        " set DATA to it, or data.dataset to mnist"
    )


def test_files_in_the_format_of_mnist_are_read(tmp_path: Path, noise: tuple[Path, dataset.Source]) -> None:
    """Other images under MNIST's four names are a data set of one's own."""
    folder = tmp_path / "mine"
    shutil.copytree(noise[0], folder)
    manifest, paths = prepare(tmp_path, folder)
    assert (manifest.image_shape, len(manifest.classes), shards.count_test(paths.test)) == ((28, 28), 10, 50)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (
            np.where(LABELS == 1, 3, LABELS),
            "DATA holds no training example of class 1; wanted examples of each of the 4",
        ),
        (LABELS * 0, "DATA holds 1 class; wanted from 2 to 256 classes; add another class"),
        (np.append(LABELS[:-1] % 2, 2), "class 2 has one example; wanted at least one to train on and one to test on"),
    ],
)
def test_labels_that_leave_a_class_out_are_refused(tmp_path: Path, labels: NDArray[Any], line: str) -> None:
    """A class without an example to learn it by, or one to test it by, is named."""
    assert refusal(tmp_path, write(tmp_path / "mine", labels=labels)).startswith(line)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([0, 1, 1], "DATA holds no test example of class 2; wanted test examples of each of the 3 classes; add some,"),
        (
            [0, 1, 3],
            "DATA holds labels up to 3; wanted labels from 0 to 2, for the 3 classes to train on: 0, 1, 2; mend",
        ),
    ],
)
def test_a_test_set_of_other_classes_is_refused(tmp_path: Path, labels: list[int], line: str) -> None:
    """A test set that lacks a class, or has one more, is refused."""
    folder = write(tmp_path / "mine")
    write(folder, IMAGES[:3], np.array(labels), "test")
    assert refusal(tmp_path, folder).startswith(line)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    """More clients than can each have an example to train on and one to validate on are refused before all else."""
    folder = write(tmp_path / "mine", IMAGES[:8], LABELS[:8] % 2)
    with pytest.raises(UsageError, match="CLIENTS is 4, and scheme iid with seed 0 leaves client"):
        prepare(tmp_path, folder, clients=4)
    manifest, _ = prepare(tmp_path, folder, clients=2)
    assert manifest.sizes == (1, 2, 3)


def test_idle_options_are_refused(tmp_path: Path) -> None:
    """An option for another kind of data is a mistake in the experiment file, with its exit code."""
    with pytest.raises(ExperimentError, match=r"data\.size is set, and .* holds arrays; wanted images by class"):
        prepare(tmp_path, write(tmp_path / "mine"), size=(3, 3))


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_held_out_examples_are_drawn_by_the_seed(fraction: float) -> None:
    """The same seed draws the same examples, another one others, and each class keeps one on either side."""
    part = Part(Rows.of(IMAGES), LABELS.astype(np.uint8))

    def held(seed: int) -> list[bytes]:
        train, test = own.hold_out(part, ("0", "1", "2"), fraction, seed)
        assert len(train.labels) + len(test.labels) == 90
        for each in (train, test):
            assert np.bincount(each.labels, minlength=3).min() >= 1
            np.testing.assert_array_equal(each.rows[np.arange(len(each.labels))].shape[0], len(each.labels))
        return [image.tobytes() for image in test.rows[np.arange(len(test.labels))]]

    assert held(1) == held(1) != held(2)
    assert len(held(1)) == 3 * min(29, max(1, round(30 * fraction)))
