"""The IDX files: read whole, or refused in one line."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.errors import DataError
from services.init import dataset
from services.paths import Paths
from services.shards import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from tests.support import RAW, write_source

NAME = "train-labels-idx1-ubyte.gz"


def test_real_files_hold_all_of_mnist(mnist: dataset.Dataset) -> None:
    """The embedded files give 60,000 + 10,000 images with the class counts their authors publish."""
    assert mnist.train_images.shape == (60_000, 28, 28)
    assert mnist.test_images.shape == (10_000, 28, 28)
    assert {
        array.dtype for array in (mnist.train_images, mnist.train_labels, mnist.test_images, mnist.test_labels)
    } == {np.dtype(np.uint8)}
    assert np.bincount(mnist.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_real_files_are_read_as_declearn_reads_them(mnist: dataset.Dataset) -> None:
    """Images and labels are those of declearn's `load_mnist`, before it scales them."""
    from declearn.dataset.examples import load_mnist  # noqa: PLC0415 - takes seconds

    images, labels = load_mnist(train=False, folder=str(RAW))
    np.testing.assert_array_equal((mnist.test_images / 255).astype(np.float32), images)
    np.testing.assert_array_equal(mnist.test_labels, labels)


def test_readme_states_the_digests_that_are_checked() -> None:
    """The README beside the files names every digest and size in the code."""
    text = (RAW / "README.md").read_text()
    source = dataset.MNIST
    for file in (source.train_images, source.train_labels, source.test_images, source.test_labels):
        assert f"| {file.name.removesuffix('.gz')} | {file.size:,} | {file.sha256} |" in text


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _plain(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_missing, "is missing"),
        (_truncated, "is truncated"),
        (_plain, "is no gzip file, or a damaged one"),
        (_flipped, "is no gzip file, or a damaged one"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, damage: Callable[[Path], None], found: str) -> None:
    """A file that is _missing, cut short or damaged is named in one line, with what to do."""
    shutil.copytree(RAW, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / NAME)
    with pytest.raises(DataError) as caught:
        dataset.load_file(tmp_path, dataset.MNIST.train_labels)
    assert str(caught.value) == (
        f"{tmp_path / NAME} {found}; wanted the 60,008 bytes of the original, gzipped;"
        " restore it from the repository (`git checkout data/mnist_raw`)"
    )


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c[:-1] + b"\x09", lambda _: b""])
def test_altered_content_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """A well-formed gzip file of other content is refused with both digests, be it shorter, longer or changed."""
    content = change(gzip.decompress((RAW / NAME).read_bytes()))
    (tmp_path / NAME).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"is altered: its content has SHA-256 [0-9a-f]{64}; wanted 65a50cbbf4e9"):
        dataset.load_file(tmp_path, dataset.MNIST.train_labels)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    """An empty file, which gzip takes for an empty stream, is refused by its digest."""
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(DataError, match="is altered"):
        dataset.load_file(tmp_path, dataset.MNIST.train_labels)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    """What can't be read at all is refused with the system's reason."""
    (tmp_path / NAME).mkdir()
    with pytest.raises(DataError) as caught:
        dataset.load_file(tmp_path, dataset.MNIST.train_labels)
    assert str(caught.value) == f"{tmp_path / NAME} can't be read (Is a directory); mend its permissions"


def test_arrays_are_written_with_their_digests(tmp_path: Path) -> None:
    """What is written reads back equal, and the digests returned are those of the files."""
    source = write_source(tmp_path / "raw", train=30, test=20)
    data = dataset.load(tmp_path / "raw", source)
    files = dataset.write_train(data, tmp_path / "shards") | dataset.write_test(data, tmp_path / "test")
    written = {
        TRAIN_IMAGES: (tmp_path / "shards", data.train_images),
        TRAIN_LABELS: (tmp_path / "shards", data.train_labels),
        TEST_IMAGES: (tmp_path / "test", data.test_images),
        TEST_LABELS: (tmp_path / "test", data.test_labels),
    }
    assert files.keys() == written.keys()
    for name, (where, array) in written.items():
        np.testing.assert_array_equal(np.load(where / name), array)
        assert dataset.digest_file(where / name) == files[name]


def test_data_set_digest_covers_each_file() -> None:
    """Another digest of any of its four files makes another data set."""
    source = dataset.MNIST
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        other = replace(source, **{field: replace(getattr(source, field), sha256="0" * 64)})
        assert other.sha256 != source.sha256


def test_each_data_set_has_a_place_of_its_own(tmp_path: Path) -> None:
    """MNIST is below the root and Fashion-MNIST where Debian puts it, unless DATA names a folder."""
    debian = Path("/usr/share/datasets/fashion-mnist")
    assert dataset.find("mnist", Paths(tmp_path)) == dataset.Known(dataset.MNIST, tmp_path / "data" / "mnist_raw")
    assert dataset.find("fashion-mnist", Paths(tmp_path)) == dataset.Known(dataset.FASHION_MNIST, debian)
    for name in dataset.SOURCES:
        assert dataset.find(name, Paths(tmp_path, tmp_path / "x")).folder == tmp_path / "x"


def test_fashion_mnist_is_not_taken_for_mnist() -> None:
    """The files of MNIST have the names of Fashion-MNIST's, and are refused with where to get the right ones."""
    with pytest.raises(DataError) as caught:
        dataset.load(RAW, dataset.FASHION_MNIST)
    assert str(caught.value) == (
        f"{RAW}/train-images-idx3-ubyte.gz is altered: its content has SHA-256"
        f" {dataset.MNIST.train_images.sha256}; "
        f"wanted {dataset.FASHION_MNIST.train_images.sha256}; `apt-get install dataset-fashion-mnist` and set DATA to"
        " /usr/share/datasets/fashion-mnist, or to another folder of the four files"
    )


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_of_debian_is_that_of_its_authors() -> None:
    """Debian's files have the digests in the code, and as many images of each of the ten classes."""
    data = dataset.load(Path("/usr/share/datasets/fashion-mnist"), dataset.FASHION_MNIST)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * len(data.classes)
