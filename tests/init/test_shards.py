"""Dealing: declearn's own cut, complete, disjoint and repeatable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.errors import UsageError
from services.experiment import Scheme
from services.init import dataset, shards
from services.init.shards import Recipe
from services.shards import index_file, load_indices

CLASSES = 10
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
LABELS: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 10, 400, dtype=np.uint8)

recipes = st.builds(Recipe, st.sampled_from(SCHEMES), st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))


def _everything(seats: shards.Deal) -> list[int]:
    return sorted(int(index) for seat in seats for indices in seat for index in indices)


@settings(max_examples=60, deadline=None)
@given(recipe=recipes, size=st.integers(1, CLASSES))
def test_each_image_is_dealt_exactly_once(recipe: Recipe, size: int) -> None:
    """Whatever the scheme, size and seed, the seats hold every image, and none twice."""
    seats = shards.deal(LABELS, size, recipe)
    assert len(seats) == size
    assert _everything(seats) == list(range(len(LABELS)))


@settings(max_examples=30, deadline=None)
@given(recipe=recipes, size=st.integers(1, CLASSES))
def test_same_seed_deals_the_same(recipe: Recipe, size: int) -> None:
    """The same recipe deals the same, in the same order; another seed does not."""
    once, again = (shards.digest(shards.deal(LABELS, size, recipe)) for _ in range(2))
    assert once == again
    assert recipe.seed is not None
    other = replace(recipe, seed=(recipe.seed + 1) % 2**32)
    assert shards.digest(shards.deal(LABELS, size, other)) != once


@pytest.mark.parametrize("scheme", ["iid", "labels", "biased", "dirichlet"])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_cut_is_that_of_declearn_on_images(scheme: Any, size: int) -> None:
    """Taking images by our indices gives the arrays that declearn's splitter gives for the images themselves."""
    from declearn.dataset.utils import split_multi_classif_dataset  # noqa: PLC0415 - takes seconds

    images = np.random.default_rng(2).random((len(LABELS), 4), dtype=np.float32)
    options = {"alpha": 0.3} if scheme == "dirichlet" else {}
    theirs = split_multi_classif_dataset((images, LABELS), size, scheme, p_valid=0.25, seed=7, **options)
    ours = shards.deal(LABELS, size, Recipe(scheme, 7, 0.25, alpha=0.3))
    assert len(ours) == len(theirs)
    for (train, valid), ((x_train, y_train), (x_valid, y_valid)) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(images[train], x_train)
        np.testing.assert_array_equal(LABELS[train], y_train)
        np.testing.assert_array_equal(images[valid], x_valid)
        np.testing.assert_array_equal(LABELS[valid], y_valid)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_real_data_is_dealt_whole_at_every_size(mnist: dataset.Dataset, scheme: Scheme) -> None:
    """For MNIST and every size prepared by default, each of the 60,000 images is held by exactly one client."""
    recipe = Recipe(scheme, 0)
    for size in shards.sizes(32, scheme, CLASSES):
        seats = shards.deal(mnist.train_labels, size, recipe)
        counts = np.zeros(60_000, dtype=np.int64)
        for indices in (indices for seat in seats for indices in seat):
            counts[indices] += 1
        assert (counts == 1).all(), size
        cut = shards.describe(mnist.train_labels, seats, CLASSES)
        assert cut.usable, size
        for seat, (train, valid) in zip(cut.seats, seats, strict=True):
            assert (seat.train, seat.valid, sum(seat.labels)) == (len(train), len(valid), len(train))


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_shards_scheme_gives_each_client_few_classes(mnist: dataset.Dataset, pieces: int) -> None:
    """With scheme `shards` clients hold equally many images, of few classes, validation images included."""
    seats = shards.deal(mnist.train_labels, 20, Recipe("shards", 3, classes_per_client=pieces))
    assert {len(train) + len(valid) for train, valid in seats} == {3000}
    for train, valid in seats:
        held = np.concatenate([train, valid])
        assert len(valid) == 600
        # no piece of 3000 / pieces images reaches over a whole class of 5400 or more
        assert len(np.unique(mnist.train_labels[held])) <= 2 * pieces
    alone = [len(np.unique(mnist.train_labels[train])) for train, _ in seats]
    assert min(alone) <= pieces


def test_labels_scheme_gives_each_client_classes_of_its_own() -> None:
    """With scheme `labels` no class is on two clients, validation images included."""
    seats = shards.deal(LABELS, 4, Recipe("labels", 3))
    classes = [{int(label) for indices in seat for label in LABELS[indices]} for seat in seats]
    assert sum(len(held) for held in classes) == len(set.union(*classes)) == CLASSES


def test_labels_scheme_ends_at_the_number_of_classes() -> None:
    """Scheme `labels` prepares ten sizes, and refuses an eleventh client with both facts in the line."""
    assert list(shards.sizes(32, "labels", CLASSES)) == list(range(1, 11))
    assert list(shards.sizes(4, "labels", CLASSES)) == [1, 2, 3, 4]
    assert list(shards.sizes(32, "iid", CLASSES)) == list(range(1, 33))
    shards.check_size(10, "labels", CLASSES)
    with pytest.raises(UsageError) as caught:
        shards.check_size(11, "labels", CLASSES)
    assert str(caught.value) == (
        "CLIENTS is 11 and the scheme is labels; wanted at most 10 clients, one for each class of images;"
        " lower CLIENTS, or choose another scheme"
    )


def test_client_without_images_is_refused() -> None:
    """A draw that leaves a client with nothing is refused, naming the client, the scheme and the seed."""
    recipe = Recipe("dirichlet", 5, alpha=0.01)
    cut = shards.describe(LABELS, shards.deal(LABELS, 12, recipe), CLASSES)
    assert not cut.usable
    number = next(n for n, seat in enumerate(cut.seats) if not (seat.train and seat.valid))
    with pytest.raises(UsageError) as caught:
        shards.check_usable(12, cut, recipe)
    seat = cut.seats[number]
    assert str(caught.value) == (
        f"CLIENTS is 12, and scheme dirichlet with seed 5 leaves client {number}"
        f" with {seat.train} training and {seat.valid} validation images; wanted at least one of each for every client;"
        " lower CLIENTS, or change the scheme, alpha or the seed"
    )


def test_written_indices_read_back(tmp_path: Path) -> None:
    """Index sets read back as dealt, and are recognised as kept."""
    seats = shards.deal(LABELS, 3, Recipe("iid", 0))
    shards.write(tmp_path, {3: seats})
    for seat, (train, valid) in enumerate(seats):
        kept_train, kept_valid = load_indices(tmp_path, 3, seat)
        np.testing.assert_array_equal(kept_train, train)
        np.testing.assert_array_equal(kept_valid, valid)
    assert shards.is_kept(tmp_path, 3, shards.describe(LABELS, seats, CLASSES), LABELS, CLASSES)


def test_damaged_index_file_is_not_kept(tmp_path: Path) -> None:
    """An index file that is cut short anywhere, or in which a byte of an index changed, is not taken for a kept one."""
    seats = shards.deal(LABELS[:20], 1, Recipe("iid", 0))
    cut = shards.describe(LABELS, seats, CLASSES)
    shards.write(tmp_path, {1: seats})
    path = index_file(tmp_path, 1, 0)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert not shards.is_kept(tmp_path, 1, cut, LABELS[:20], CLASSES), length
    start = whole.index(seats[0][0].tobytes())
    for position in range(start, start + seats[0][0].nbytes):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert not shards.is_kept(tmp_path, 1, cut, LABELS[:20], CLASSES), position


def test_any_changed_byte_is_survived(tmp_path: Path) -> None:
    """No single changed byte of an index file makes its check fail other than by saying no."""
    seats = shards.deal(LABELS[:20], 1, Recipe("iid", 0))
    cut = shards.describe(LABELS, seats, CLASSES)
    shards.write(tmp_path, {1: seats})
    path = index_file(tmp_path, 1, 0)
    whole = path.read_bytes()
    for position in range(0, len(whole), 2):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert shards.is_kept(tmp_path, 1, cut, LABELS[:20], CLASSES) in {True, False}
