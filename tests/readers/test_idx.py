"""IDX files: MNIST's format, with any number of images of any size."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import DataError
from services.readers import idx
from services.readers.base import Reading

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def content(array: NDArray[np.uint8]) -> bytes:
    """Write an array as IDX."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write(folder: Path, prefix: str = "train", images: Any = IMAGES, labels: Any = LABELS) -> Path:
    """Write a pair of files, the images gzipped and the labels plain."""
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content(images)))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(content(labels))
    return folder


def refusal(folder: Path) -> str:
    """Read a folder, which must fail, and give the line without the folder's name."""
    with pytest.raises(DataError) as caught:
        idx.read(folder, "test", Reading())
    return str(caught.value).replace(f"{folder}/", "")


def test_files_are_read_gzipped_or_not(tmp_path: Path) -> None:
    """Images and labels come as they were written, and those to test on beside them."""
    contents = idx.read(write(tmp_path), "test", Reading())
    np.testing.assert_array_equal(contents.train.rows[np.arange(6)], IMAGES)
    np.testing.assert_array_equal(contents.train.labels, LABELS)
    assert (contents.second, contents.classes) == (None, None)
    second = idx.read(write(tmp_path, "t10k", IMAGES[:3], LABELS[:3]), "test", Reading()).second
    assert second is not None
    np.testing.assert_array_equal(second.rows[np.arange(3)], IMAGES[:3])


@pytest.mark.parametrize("colours", [1, 3])
def test_images_may_have_channels(tmp_path: Path, colours: int) -> None:
    """A fourth axis is that of the channels."""
    images = np.repeat(IMAGES[..., None], colours, axis=3)
    assert idx.read(write(tmp_path, images=images), "test", Reading()).train.rows.shape == (6, 5, 4, colours)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (b"", "begins with nothing; wanted an IDX file of bytes (00 00 08 …); write it again, or restore it"),
        (b"\0\0\x0d\x03", "begins with 00 00 0d 03; wanted an IDX file of bytes (00 00 08 …); write it again"),
        (b"\0\0\x08\x01\0\0", "is truncated; wanted a whole file; write it again"),
        (content(LABELS)[:-1], "holds 5 values; wanted the 6 that its header tells of; write it again"),
        (content(LABELS) + b"\0", "holds more values; wanted the 6 that its header tells of; write it again"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "holds 0 values; wanted the 4,294,967,295 that its header tells of;"),
        (
            b"\0\0\x08\x02\xff\xff\xff\xff\0\0\0\x02",
            "holds 8,589,934,590 values by its header; wanted from 1 to 4,294,",
        ),
        (content(LABELS.reshape(2, 3)), "holds an array of shape (2, 3); wanted labels of shape (n,); write it again"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, changed: bytes, line: str) -> None:
    """A file of another format, or that ends too early or late, or claims more than memory holds, is named."""
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(changed)
    assert refusal(tmp_path).startswith(f"train-labels-idx1-ubyte {line}")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """A gzip stream that is cut short, or is none, is named."""
    path = write(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert refusal(tmp_path) == f"{path.name} is truncated; wanted a whole file; write it again, or restore it"
    path.write_bytes(content(IMAGES))
    assert refusal(tmp_path).startswith(f"{path.name} is no gzip file, or a damaged one; wanted a whole file")


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    """Images without labels, or as many of each as there are not, are refused."""
    write(tmp_path, labels=LABELS[:5])
    assert refusal(tmp_path).startswith("train-images-idx3-ubyte.gz holds 6 examples and train-labels-idx1-ubyte 5")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert refusal(tmp_path) == (
        "train-labels-idx1-ubyte is missing; wanted train-labels-idx1-ubyte, gzipped or not; put it there"
    )
