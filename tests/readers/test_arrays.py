"""Arrays: what is read, and what is refused before it can spoil a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import DataError
from services.readers import arrays as reader
from services.readers.base import Reading
from services.readers.folder import load_site


def _write(folder: Path, **arrays: NDArray[Any]) -> Path:
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
def test_folder_of_floats_reads_as_float32(tmp_path: Path, dtype: type[np.floating[Any]]) -> None:
    """A site's images in floats of any width are read as float32, their labels as uint8."""
    images = np.random.default_rng(1).random((8, 28, 28)).astype(dtype)
    shard = load_site(_write(tmp_path, train_data=images, train_target=np.arange(8)))
    assert shard.train_images.dtype == np.float32
    assert shard.train_labels.dtype == np.uint8
    np.testing.assert_array_equal(shard.train_images, images.astype(np.float32))
    np.testing.assert_array_equal(shard.train_labels, np.arange(8))


def test_folder_of_bytes_stays_bytes(tmp_path: Path) -> None:
    """A site's images in uint8 are left as they are."""
    images = np.random.default_rng(1).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    shard = load_site(_write(tmp_path, train_data=images, valid_data=images[:4]))
    assert shard.train_images.dtype == np.uint8
    np.testing.assert_array_equal(shard.train_images, images)


def test_folder_needs_no_validation_data(tmp_path: Path) -> None:
    """A site may keep no image for validation, but half a pair is a mistake."""
    folder = _write(tmp_path)
    (folder / "valid_data.npy").unlink()
    with pytest.raises(DataError) as caught:
        load_site(folder)
    assert str(caught.value) == f"{folder / 'valid_data.npy'} is missing; write it again with numpy.save"
    (folder / "valid_target.npy").unlink()
    shard = load_site(folder)
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
            {"train_data": np.zeros((8, 2, 2, 2, 2), np.float32)},
            "train_data.npy holds an array of shape (8, 2, 2, 2, 2) as float32; wanted an array of shape (n, feat",
        ),
        ({"train_data": np.zeros((8, 1025, 4097), np.uint8)}, "train_data.npy holds examples of 1025 x 4097 values"),
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
            "train_data.npy holds 8 examples and train_target.npy 7 labels; wanted as many of each; write both",
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
def test_folder_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], found: str
) -> None:
    """What would spoil the model, or can't be trained on, is named before the federation is joined."""
    folder = _write(tmp_path, **arrays)
    with pytest.raises(DataError) as caught:
        load_site(folder)
    assert str(caught.value).startswith(f"{folder}/{found}")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"1,2,3\n", b"PK\x03\x04"])
def test_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no .npy file is refused in one line."""
    folder = _write(tmp_path)
    (folder / "train_data.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"train_data\.npy is no whole \.npy file of plain numbers"):
        load_site(folder)


def test_file_of_several_arrays_is_refused(tmp_path: Path) -> None:
    """An .npz archive under the name of an array is refused."""
    folder = _write(tmp_path)
    with (folder / "train_data.npy").open("wb") as file:
        np.savez(file, one=np.zeros(1), two=np.zeros(1))
    with pytest.raises(DataError, match=r"train_data\.npy holds several arrays; wanted one array"):
        load_site(folder)


def test_vectors_of_any_size_are_features(tmp_path: Path) -> None:
    """Vectors are features, which may be of any size, until `shape` says that they are images."""
    vectors = np.random.default_rng(1).normal(0, 9, (8, 12))
    _write(tmp_path, train_data=vectors, valid_data=vectors[:4])
    np.testing.assert_array_equal(load_site(tmp_path).train_images, vectors.astype(np.float32))
    with pytest.raises(DataError, match=r"train_data\.npy holds values from -.*; wanted floats in \[0, 1\], or uint8"):
        reader.read(tmp_path, "valid", Reading(shape=(3, 4)))


def test_vectors_become_images(tmp_path: Path) -> None:
    """`shape` cuts each vector into the lines of an image; another number of values is refused."""
    vectors = np.random.default_rng(1).integers(0, 256, (8, 12), dtype=np.uint8)
    _write(tmp_path, train_data=vectors, valid_data=vectors[:4])
    rows = reader.read(tmp_path, "valid", Reading(shape=(2, 2, 3))).train.rows
    np.testing.assert_array_equal(rows[np.array([5, 2])], vectors[[5, 2]].reshape(2, 2, 2, 3))
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path, "valid", Reading(shape=(2, 5)))
    assert str(caught.value) == (
        f"{tmp_path}/train_data.npy holds examples of 12 values; wanted 2 x 5 (data.shape);"
        " correct data.shape, or leave it out"
    )


def test_a_pair_may_have_other_names(tmp_path: Path) -> None:
    """`images.npy` and `labels.npy` are read like `train_data.npy` and `train_target.npy`."""
    np.save(tmp_path / "images.npy", np.full((5, 4, 4), 7, np.uint8))
    np.save(tmp_path / "labels.npy", np.array([0, 1, 0, 1, 1]))
    contents = reader.read(tmp_path, "test", Reading())
    assert contents.train.rows.shape == (5, 4, 4)
    assert contents.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert (contents.second, contents.classes) == (None, None)


def test_names_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    """A folder of arrays of other names is refused with the right ones, and one that holds more, with what is right."""
    np.save(tmp_path / "x.npy", np.zeros((5, 4, 4), np.uint8))
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path, "test", Reading())
    assert str(caught.value) == f"{tmp_path} holds x.npy; wanted {reader.WANTED}; name the files so"
    np.save(tmp_path / "images.npy", np.zeros((5, 4, 4), np.uint8))
    with pytest.raises(DataError) as caught:
        reader.read(tmp_path, "test", Reading())
    assert str(caught.value) == (
        f"{tmp_path} holds x.npy beside images.npy and labels.npy; wanted nothing else but test_data.npy and"
        " test_target.npy; rename it, or move it elsewhere"
    )
