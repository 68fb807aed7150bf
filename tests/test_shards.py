"""What roles read: shards, test set, a site's own folder, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
        f" wanted an array of shape (n, features), (n, height, width) or (n, height, width, channels) as uint8 or"
        f" float32; {AGAIN}"
    )


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
