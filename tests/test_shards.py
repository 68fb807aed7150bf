"""What roles read: shards, test set, a site's own folder, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services import shards
from services.errors import DataError
from services.experiment import Plan
from services.init import dataset
from services.init.main import prepare
from services.paths import MANIFEST, Paths

AGAIN = "run init again (`fed init`, or `docker compose up`)"


@pytest.fixture
def dealt(small: Paths) -> Paths:
    """A small data set, dealt to up to three clients."""
    prepare(3, 3, Plan(), small)
    return small


def test_manifest_reads_back(dealt: Paths) -> None:
    """The manifest reads back equal, in both folders, and states how the data were dealt."""
    manifest = shards.read_manifest(dealt.shards)
    assert shards.read_manifest(dealt.test) == manifest
    assert (manifest.dataset, manifest.scheme, manifest.seed, manifest.valid_fraction, manifest.alpha) == (
        "mnist",
        "iid",
        0,
        0.2,
        None,
    )
    assert manifest.sizes == (1, 2, 3)
    assert manifest.largest == 3
    assert [seat.train + seat.valid for seat in manifest.cuts[3].seats] == [200, 200, 200]


def test_size_with_an_empty_seat_is_none(dealt: Paths) -> None:
    """A size that leaves a seat with nothing to train on is not among the sizes, and not the largest."""
    manifest = shards.read_manifest(dealt.shards)
    three = manifest.cuts[3]
    empty = replace(three, seats=(*three.seats[:2], replace(three.seats[2], train=0)))
    spoilt = replace(manifest, cuts={**manifest.cuts, 3: empty})
    assert spoilt.sizes == (1, 2)
    assert spoilt.largest == 2
    assert replace(manifest, cuts={}).largest == 0


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    """Without a manifest the reader is told to run init."""
    with pytest.raises(DataError) as caught:
        shards.read_manifest(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / MANIFEST} is missing; wanted the manifest that `fed init` writes;"
        " run init first (`fed init`, or `docker compose up`)"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda _: "null",
        lambda _: "\x00\xff",
        lambda text: text.replace('"cuts"', '"cats"'),
        lambda text: text.replace('"train":', '"train": null, "x":'),
        lambda text: json.dumps(json.loads(text) | {"cuts": {"2": json.loads(text)["cuts"]["3"]}}),
    ],
)
def test_damaged_manifest_is_refused(dealt: Paths, change: Callable[[str], str]) -> None:
    """A manifest that is cut short, or no manifest at all, is refused in one line."""
    path = dealt.shards / MANIFEST
    path.write_text(change(path.read_text()), encoding="latin-1")
    with pytest.raises(DataError) as caught:
        shards.read_manifest(dealt.shards)
    assert str(caught.value) == f"{path} is damaged; wanted the manifest that `fed init` writes; {AGAIN}"


def test_shard_holds_the_images_of_its_indices(dealt: Paths) -> None:
    """A seat's images and labels are those of its indices, copied into memory."""
    data = dataset.load(dealt.raw, dataset.MNIST)
    for seat in range(3):
        train, valid = shards.load_indices(dealt.shards, 3, seat)
        shard = shards.load_shard(dealt.shards, 3, seat)
        assert shard.valid_images is not None
        assert shard.valid_labels is not None
        for array, expected in (
            (shard.train_images, data.train_images[train]),
            (shard.train_labels, data.train_labels[train]),
            (shard.valid_images, data.train_images[valid]),
            (shard.valid_labels, data.train_labels[valid]),
        ):
            assert type(array) is np.ndarray
            assert array.dtype == np.uint8
            np.testing.assert_array_equal(array, expected)


def test_shards_of_a_size_hold_every_image_once(dealt: Paths) -> None:
    """All seats of a size together hold the whole training set."""
    data = dataset.load(dealt.raw, dataset.MNIST)
    for size in (1, 2, 3):
        seats = [shards.load_indices(dealt.shards, size, seat) for seat in range(size)]
        indices = np.concatenate([part for seat in seats for part in seat])
        assert sorted(indices.tolist()) == list(range(len(data.train_labels)))


def test_seat_that_was_not_dealt_is_refused(dealt: Paths) -> None:
    """A seat beyond the size, or a size beyond the largest, is refused by name."""
    with pytest.raises(DataError) as caught:
        shards.load_shard(dealt.shards, 3, 3)
    path = dealt.shards / "3" / "3.npz"
    assert str(caught.value) == f"{path} is missing; wanted the indices of seat 3 in a federation of 3; {AGAIN}"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"no numbers"])
def test_damaged_indices_are_refused(dealt: Paths, content: bytes) -> None:
    """An index file that is none is refused in one line."""
    path = dealt.shards / "3" / "1.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        shards.load_shard(dealt.shards, 3, 1)
    assert str(caught.value) == f"{path} is damaged; wanted `train` and `valid` indices; {AGAIN}"


def test_indices_of_another_type_are_refused(dealt: Paths) -> None:
    """Indices that are no uint32 vectors are refused, an array of objects without being unpickled."""
    path = dealt.shards / "3" / "1.npz"
    np.savez(path, train=np.zeros(3), valid=np.zeros(3))
    with pytest.raises(DataError, match=r"wanted `train` and `valid` indices as uint32"):
        shards.load_shard(dealt.shards, 3, 1)
    np.savez(path, train=np.array([Path()]), valid=np.array([Path()]))
    with pytest.raises(DataError, match="is damaged"):
        shards.load_shard(dealt.shards, 3, 1)


def test_index_beyond_the_images_is_refused(dealt: Paths) -> None:
    """An index with no image is refused with the numbers that don't fit."""
    np.savez(dealt.shards / "3" / "1.npz", train=np.array([600], np.uint32), valid=np.array([0], np.uint32))
    with pytest.raises(DataError) as caught:
        shards.load_shard(dealt.shards, 3, 1)
    assert str(caught.value) == (
        f"{dealt.shards} holds 600 images, 600 labels and an index of 600; wanted an image and a label for each index;"
        f" {AGAIN}"
    )


def test_truncated_images_are_refused(dealt: Paths) -> None:
    """Training images cut short are refused, although nothing but the header has been read."""
    path = dealt.shards / shards.TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError) as caught:
        shards.load_shard(dealt.shards, 3, 0)
    assert str(caught.value) == (
        f"{path} is no whole .npy file of plain numbers; wanted an array as numpy.save writes it; {AGAIN}"
    )


def test_test_set_reads_back(dealt: Paths) -> None:
    """The held-out images and labels are those of the data set."""
    data = dataset.load(dealt.raw, dataset.MNIST)
    images, labels = shards.load_test(dealt.test)
    assert type(images) is type(labels) is np.ndarray
    np.testing.assert_array_equal(images, data.test_images)
    np.testing.assert_array_equal(labels, data.test_labels)
    np.testing.assert_array_equal(shards.read_labels(dealt.shards), data.train_labels)


def test_damaged_test_set_is_refused(dealt: Paths) -> None:
    """A test set of the wrong type, or with fewer labels than images, is refused."""
    np.save(dealt.test / shards.TEST_LABELS, np.zeros(49, np.uint8))
    with pytest.raises(DataError, match="holds 50 images and 49 labels; wanted as many of each"):
        shards.load_test(dealt.test)
    np.save(dealt.test / shards.TEST_IMAGES, np.zeros((50, 28)))
    with pytest.raises(DataError) as caught:
        shards.load_test(dealt.test)
    assert str(caught.value) == (
        f"{dealt.test / shards.TEST_IMAGES} holds an array of shape (50, 28) as float64;"
        f" wanted an array of shape (n, height, width) or (n, height, width, channels) as uint8; {AGAIN}"
    )


def _write_own(folder: Path, **arrays: NDArray[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    default: dict[str, NDArray[Any]] = {
        "train_data": rng.random((8, 28, 28), dtype=np.float32),
        "train_target": np.arange(8, dtype=np.uint8),
        "valid_data": rng.random((4, 28, 28), dtype=np.float32),
        "valid_target": np.arange(4, dtype=np.uint8),
    }
    for name, array in (default | arrays).items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_own_folder_of_floats_reads_as_float32(tmp_path: Path, dtype: type[np.floating[Any]]) -> None:
    """A site's images in floats of any width are read as float32, their labels as uint8."""
    images = np.random.default_rng(1).random((8, 28, 28)).astype(dtype)
    shard = shards.load_folder(_write_own(tmp_path, train_data=images, train_target=np.arange(8)))
    assert shard.train_images.dtype == np.float32
    assert shard.train_labels.dtype == np.uint8
    np.testing.assert_array_equal(shard.train_images, images.astype(np.float32))
    np.testing.assert_array_equal(shard.train_labels, np.arange(8))


def test_own_folder_of_bytes_stays_bytes(tmp_path: Path) -> None:
    """A site's images in uint8 are left as they are."""
    images = np.random.default_rng(1).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    shard = shards.load_folder(_write_own(tmp_path, train_data=images))
    assert shard.train_images.dtype == np.uint8
    np.testing.assert_array_equal(shard.train_images, images)


def test_own_folder_needs_no_validation_data(tmp_path: Path) -> None:
    """A site may keep no image for validation, but half a pair is a mistake."""
    folder = _write_own(tmp_path)
    (folder / "valid_data.npy").unlink()
    with pytest.raises(DataError) as caught:
        shards.load_folder(folder)
    assert str(caught.value) == f"{folder / 'valid_data.npy'} is missing; {shards._OWN}"
    (folder / "valid_target.npy").unlink()
    shard = shards.load_folder(folder)
    assert shard.valid_images is None
    assert shard.valid_labels is None


def _with_value(value: float) -> NDArray[np.float32]:
    images = np.zeros((8, 28, 28), np.float32)
    images[2, 3, 4] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        (
            {"train_data": np.zeros((8, 784), np.float32)},
            "train_data.npy holds an array of shape (8, 784) as float32; wanted an array of shape (n, height, ",
        ),
        ({"train_data": np.zeros((0, 28, 28), np.float32)}, "train_data.npy holds an array of shape (0, 28, 28)"),
        (
            {"train_data": np.zeros((8, 28, 28), np.int64)},
            "train_data.npy holds an array of shape (8, 28, 28) as int64",
        ),
        ({"train_data": np.zeros((8, 28, 28), np.complex64)}, "train_data.npy holds an array"),
        ({"train_data": np.array(0.5)}, "train_data.npy holds an array of shape () as float64"),
        (
            {"train_data": _with_value(np.nan)},
            "train_data.npy holds 1 values that are NaN or infinite; wanted finite numbers only; remove those",
        ),
        ({"valid_data": _with_value(np.inf)[:4]}, "valid_data.npy holds 1 values that are NaN or infinite"),
        (
            {"train_data": _with_value(255)},
            "train_data.npy holds values from 0 to 255; wanted floats in [0, 1], or uint8; divide by",
        ),
        ({"train_data": _with_value(-0.5)}, "train_data.npy holds values from -0.5 to 0; "),
        (
            {"train_target": np.arange(7)},
            "train_data.npy holds 8 images and train_target.npy 7 labels; wanted as many of each; write both",
        ),
        (
            {"train_target": np.arange(8.0)},
            "train_target.npy holds an array of shape (8,) as float64; wanted one whole",
        ),
        ({"train_target": np.zeros((8, 10), int)}, "train_target.npy holds an array of shape (8, 10) as int64"),
        (
            {"train_target": np.arange(250, 258)},
            "train_target.npy holds labels from 250 to 257; wanted labels from 0 to 255; ",
        ),
        ({"valid_target": np.arange(-1, 3)}, "valid_target.npy holds labels from -1 to 2; "),
        ({"train_target": np.array([None] * 8)}, "train_target.npy is no whole .npy file of plain numbers"),
    ],
)
def test_own_folder_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], found: str
) -> None:
    """What would spoil the model, or can't be trained on, is named before the federation is joined."""
    folder = _write_own(tmp_path, **arrays)
    with pytest.raises(DataError) as caught:
        shards.load_folder(folder)
    assert str(caught.value).startswith(f"{folder}/{found}")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"1,2,3\n", b"PK\x03\x04"])
def test_own_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no .npy file is refused in one line."""
    folder = _write_own(tmp_path)
    (folder / "train_data.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"train_data\.npy is no whole \.npy file of plain numbers"):
        shards.load_folder(folder)


def test_own_file_of_several_arrays_is_refused(tmp_path: Path) -> None:
    """An .npz archive under the name of an array is refused."""
    folder = _write_own(tmp_path)
    with (folder / "train_data.npy").open("wb") as file:
        np.savez(file, one=np.zeros(1), two=np.zeros(1))
    with pytest.raises(DataError, match=r"train_data\.npy holds several arrays; wanted one array"):
        shards.load_folder(folder)


def test_file_that_cannot_be_read_is_refused(dealt: Paths) -> None:
    """What the system refuses to read is refused with its reason."""
    for path, read in (
        (dealt.shards / "3" / "0.npz", lambda: shards.load_shard(dealt.shards, 3, 0)),
        (dealt.test / shards.TEST_LABELS, lambda: shards.load_test(dealt.test)),
        (dealt.shards / MANIFEST, lambda: shards.read_manifest(dealt.shards)),
    ):
        path.unlink()
        path.mkdir()
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value) == f"{path} can't be read (Is a directory); mend its permissions, then start again"
