"""Images in groups, as a client sorts, weighs and measures them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from declearn.aggregator import AveragingAggregator
from declearn.messaging import FairnessSetupQuery
from declearn.optimizer import Optimizer
from numpy.typing import NDArray

from services.client.dataset import SCALE, ImageDataset
from services.client.fairness import GROUP_FILE, GroupedImages, controller
from services.client.training import LocalTraining, local
from services.errors import DataError
from services.experiment import Plan
from services.server.model import build_model
from services.transport.messages import Grouping

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 80, dtype=np.uint8)
BRIGHT = RNG.random(80) < 0.5
IMAGES = (RNG.integers(0, 100, (80, 28, 28)) + 100 * BRIGHT[:, None, None]).astype(np.uint8)
INK = Grouping("ink", 0.4, None)
BINARY = Grouping("ink", 0.4, [1, 3, 5, 7, 9])


def images(seed: int | None = 0) -> ImageDataset:
    """Wrap the images above as a client does."""
    return ImageDataset(IMAGES, LABELS, expose_classes=False, seed=seed)


def batches(data: Any, **options: Any) -> list[tuple[NDArray[Any], ...]]:
    """Take all batches of ten."""
    return list(data.generate_batches(10, **options))


@pytest.mark.parametrize(
    ("grouping", "group"),
    [
        (INK, lambda label, bright: (label, int(bright))),
        (BINARY, lambda label, bright: (label % 2, int(bright))),
        (Grouping("class", 0.4, None), lambda label, _: (label, label)),
    ],
)
def test_each_image_is_in_the_group_of_its_label_and_attribute(grouping: Grouping, group: Any) -> None:
    """Counts by group are those of the images, and a group's subset holds these very images, scaled."""
    data = GroupedImages(images(), grouping)
    expected = [group(int(label), bright) for label, bright in zip(LABELS, BRIGHT, strict=True)]
    counts = data.get_sensitive_group_counts()
    assert counts == {one: expected.count(one) for one in set(expected)}
    assert data.get_sensitive_group_definitions() == sorted(set(expected))
    for one in counts:
        mask = np.array([member == one for member in expected])
        found = data.get_sensitive_group_subset(one).generate_batches(1000, drop_remainder=False)
        (batch,) = list(found)
        np.testing.assert_array_equal(batch[0], SCALE[IMAGES[mask]])
        np.testing.assert_array_equal(batch[1], LABELS[mask])


def test_a_site_may_have_groups_of_its_own(tmp_path: Path) -> None:
    """What train_group.npy says of each image is its attribute."""
    groups = np.arange(80) % 3
    np.save(tmp_path / GROUP_FILE, groups)
    data = GroupedImages(images(), Grouping("own", 0.4, [0]), tmp_path)
    assert list(data.sensitive) == [(int(label == 0), int(group)) for label, group in zip(LABELS, groups, strict=True)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"train_group.npy can't be read \(.*No such file or directory"),
        (b"no array", r"train_group.npy can't be read"),
        (np.arange(79), r"train_group.npy holds int64 of shape \(79,\), not whole numbers of shape \(80,\)"),
        (np.ones(80), r"train_group.npy holds float64 of shape \(80,\), not whole numbers of shape \(80,\)"),
    ],
)
def test_groups_that_are_none_are_refused(tmp_path: Path, content: Any, reason: str) -> None:
    """A file that is missing, damaged, of another length or of fractions is named with what was wanted."""
    if isinstance(content, bytes):
        (tmp_path / GROUP_FILE).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / GROUP_FILE, content)
    with pytest.raises(DataError, match=reason):
        GroupedImages(images(), Grouping("own", 0.4, None), tmp_path)


def test_weights_of_groups_go_with_their_images() -> None:
    """Each image has the weight of its group times the number of its images, as upstream's data sets have it."""
    data = GroupedImages(images(), BINARY)
    assert all(batch[2] is None for batch in batches(data))
    weights = {group: 1.0 + number for number, group in enumerate(data.get_sensitive_group_definitions())}
    data.set_sensitive_group_weights(weights, adjust_by_counts=True)
    counts = data.get_sensitive_group_counts()
    expected = [weights[group] * counts[group] for group in data.sensitive]
    found = np.concatenate([batch[2] for batch in batches(data)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_groups_do_not_change_the_order_of_images() -> None:
    """A seed shuffles images in groups as it shuffles them without."""
    plain, grouped = images(), GroupedImages(images(), INK)
    for data in (plain, grouped):
        data.reseed(5)
    for one, other in zip(batches(plain, shuffle=True), batches(grouped, shuffle=True), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_a_seed_orders_the_images_of_a_group() -> None:
    """FairBatch draws from subsets: the same round draws the same, another one others."""
    data = GroupedImages(images(), BINARY)

    def order(seed: int) -> list[int]:
        data.reseed(seed)
        subset = data.get_sensitive_group_subset((1, 1))
        (batch,) = list(subset.generate_batches(1000, shuffle=True, drop_remainder=False))
        return [int(label) for label in np.asarray(batch[1])]

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("grouping", [INK, BINARY])
def test_accuracies_are_those_of_the_most_probable_class(grouping: Grouping) -> None:
    """Shares by group are counted as anybody would; with positive classes, it is the right side of them that counts."""
    model = local(build_model(Plan.model_validate({"model": "cnn"})))
    manager = LocalTraining(
        model=model,
        optim=Optimizer(lrate=0.1),
        aggrg=AveragingAggregator(),
        train_data=images(),
        verbose=False,
    )
    query = FairnessSetupQuery("monitor", {"f_type": "accuracy_parity", "f_args": {}})
    made = controller(query, manager, images(), grouping)
    _, measured = made.compute_fairness_measures(batch_size=7)
    _, outputs, _ = model.compute_batch_predictions((SCALE[IMAGES], LABELS, None))
    predicted = outputs.argmax(axis=1)
    right = predicted % 2 == LABELS % 2 if grouping.positive else predicted == LABELS
    groups = GroupedImages(images(), grouping).sensitive
    for group, accuracy in measured["accuracy"].items():
        mask = np.array([member == group for member in groups])
        assert accuracy == pytest.approx(right[mask].mean())
