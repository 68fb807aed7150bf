"""A client's images: the very numbers that declearn trains on, in a quarter of the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from declearn.dataset import InMemoryDataset
from declearn.dataset.examples import load_mnist
from numpy.typing import NDArray

from services.client.dataset import SCALE, ImageDataset, check_fit, datasets, nothing
from services.errors import DataError
from services.init import dataset
from services.paths import Paths
from services.shards import Shard

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
LABELS = np.arange(10, dtype=np.uint8)
SHARD = Shard(IMAGES[:7], LABELS[:7], IMAGES[7:], LABELS[7:])

Array = NDArray[Any]


def batches(of: InMemoryDataset, size: int, **kwargs: bool) -> list[tuple[Array, Array]]:
    """List the batches of a data set, images and labels; there are no weights."""
    found: list[Any] = list(of.generate_batches(size, **kwargs))
    assert all(weights is None for *_, weights in found)
    return [(images, labels) for images, labels, _ in found]


def test_every_intensity_is_scaled_as_declearn_scales_it() -> None:
    """The table holds declearn's own figure for each of the 256 intensities, to the last bit."""
    assert SCALE.dtype == np.float32
    np.testing.assert_array_equal(SCALE, (np.arange(256, dtype=np.uint8) / 255).astype(np.single))


def test_batches_are_those_of_declearns_loader(small: Paths) -> None:
    """The same files, read by declearn's own loader and batched by its own data set, give the same batches."""
    theirs = InMemoryDataset(*load_mnist(train=True, folder=str(small.raw)))
    raw = dataset.load(small.raw, dataset.MNIST)
    ours = ImageDataset(raw.train_images, raw.train_labels)
    mine, others = (batches(each, 64, drop_remainder=False) for each in (ours, theirs))
    for arrays, expected in zip(mine, others, strict=True):
        for one, two in zip(arrays, expected, strict=True):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
    assert sum(len(images) for images, _ in mine) == 600


def test_images_stay_as_bytes_in_memory() -> None:
    """What is kept is the array that was given, not a copy of it in floats."""
    train, _ = datasets(SHARD, 0)
    assert train.feats is SHARD.train_images


def test_floats_are_batched_as_they_are() -> None:
    """A site's own images that are floats already are not scaled a second time."""
    images = SCALE[IMAGES]
    train, _ = datasets(Shard(images, LABELS, None, None), 0)
    (batch,) = batches(train, 10)
    assert batch[0].dtype == np.float32
    np.testing.assert_array_equal(batch[0], images)


def test_labels_of_bytes_are_not_scaled() -> None:
    """Labels, bytes as the images are, come as they are."""
    (batch,) = batches(ImageDataset(IMAGES, LABELS), 10)
    assert batch[1].dtype == np.uint8
    np.testing.assert_array_equal(batch[1], LABELS)


@pytest.mark.parametrize(("drop", "sizes"), [(True, [3, 3]), (False, [3, 3, 1])])
def test_batches_have_the_size_asked_for(*, drop: bool, sizes: list[int]) -> None:
    """Batches follow the order of the images; the last one is short, or dropped."""
    train, _ = datasets(SHARD, 0)
    found = batches(train, 3, drop_remainder=drop)
    assert [len(images) for images, _ in found] == sizes
    assert np.concatenate([labels for _, labels in found]).tolist() == list(range(sum(sizes)))


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    """A client that holds less than a batch trains on what it holds, where upstream would fail."""
    train, _ = datasets(SHARD, 0)
    ((_, labels),) = batches(train, 8)
    assert labels.tolist() == list(range(7))


def test_a_seed_gives_its_order_again() -> None:
    """The same seed shuffles alike, pass by pass, and images keep their labels; passes and other seeds differ."""

    def orders(seed: int) -> list[list[int]]:
        train, _ = datasets(Shard(IMAGES, LABELS, None, None), seed)
        passes = []
        for _ in range(2):
            found = batches(train, 5, shuffle=True)
            order = np.concatenate([labels for _, labels in found])
            np.testing.assert_array_equal(np.concatenate([images for images, _ in found]), SCALE[IMAGES[order]])
            passes.append(order.tolist())
        return passes

    first = orders(1)
    assert orders(1) == first
    assert first[0] != first[1]
    assert orders(2)[0] != first[0]
    assert sorted(first[0]) == sorted(first[1]) == list(range(10))


def test_a_shard_has_two_parts() -> None:
    """Training and validation images are told apart; a site that validates on none has no validation set."""
    train, valid = datasets(SHARD, 0)
    assert train.get_data_specs().n_samples == 7
    assert valid is not None
    assert valid.get_data_specs().n_samples == 3
    assert datasets(Shard(IMAGES, LABELS, None, None), 0)[1] is None
    assert datasets(Shard(IMAGES, LABELS, IMAGES[:0], LABELS[:0]), 0)[1] is None


def test_what_the_server_learns_of_the_data_is_little() -> None:
    """Number and shape of the images are told, neither their classes nor their type."""
    specs = datasets(SHARD, 0)[0].get_data_specs()
    assert (specs.n_samples, specs.features_shape, specs.classes) == (7, (28, 28), None)


def test_nothing_stands_for_what_is_not_dealt_yet() -> None:
    """Before anything is dealt there is a data set of no image."""
    assert nothing().get_data_specs().n_samples == 0


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 28, 28, 1)])
def test_a_site_fits_with_or_without_the_axis_of_channels(shape: tuple[int, ...]) -> None:
    """Gray images fit a model of one channel, whether or not their array has an axis for it."""
    check_fit(ImageDataset(np.zeros(shape, np.uint8), LABELS[:5]), (28, 28, 1), 10)


@pytest.mark.parametrize(
    ("shape", "labels", "line"),
    [
        (
            (5, 32, 32, 3),
            LABELS[:5],
            (
                "this site's images have shape (32, 32, 3); wanted (28, 28, 1), which the federation's model takes;"
                " write the site's arrays in that shape"
            ),
        ),
        (
            (5, 28, 28),
            LABELS[5:],
            (
                "this site's labels go up to 9; wanted labels from 0 to 6, as the federation's model tells 7 classes"
                " apart; number the site's classes as the federation does"
            ),
        ),
    ],
)
def test_a_site_that_does_not_fit_is_refused(shape: tuple[int, ...], labels: Array, line: str) -> None:
    """Images of another shape, or a label that the model does not know, are refused before training."""
    with pytest.raises(DataError) as caught:
        check_fit(ImageDataset(np.zeros(shape, np.uint8), labels), (28, 28, 1), 7)
    assert str(caught.value) == line


def test_a_site_that_names_other_classes_is_refused() -> None:
    """Names are numbered as they sort, so a site must name as many classes as the model tells apart."""
    data = ImageDataset(np.zeros((2, 28, 28), np.uint8), LABELS[:2])
    check_fit(data, (28, 28, 1), 3, ("a", "b", "c"))
    with pytest.raises(DataError) as caught:
        check_fit(data, (28, 28, 1), 3, ("a", "c"))
    assert str(caught.value) == (
        "this site names 2 classes; wanted 3, as the federation's model tells 3 classes apart;"
        " put the federation's list of classes, classes.txt, beside the site's data"
    )
