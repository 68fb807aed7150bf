"""What a site's own data are held against, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.errors import DataError
from services.readers.site import Terms, check, describe
from services.shards import Shard

TERMS = Terms((28, 28), ("cat", "dog", "hen"))


def shard(
    shape: tuple[int, ...] = (28, 28),
    labels: tuple[int, ...] = (0, 1, 2, 0),
    valid: tuple[int, ...] | None = None,
    classes: tuple[str, ...] | None = None,
) -> Shard:
    """Make a site's data."""
    images = np.zeros((len(labels), *shape), np.uint8)
    images[0] = 255
    second = None if valid is None else np.zeros((len(valid), *shape), np.uint8)
    return Shard(images, np.asarray(labels), second, None if valid is None else np.asarray(valid), classes)


@pytest.mark.parametrize("terms", [TERMS, Terms((32, 32, 3), ("a", "b")), Terms((13,), ("no", "yes"))])
def test_terms_are_plain_data_and_back(terms: Terms) -> None:
    """What stands in a manifest reads back as it was."""
    assert Terms.of(terms.as_json()) == terms


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"shape": [28, 28]},
        {"shape": [], "classes": ["a", "b"]},
        {"shape": [0], "classes": ["a", "b"]},
        {"shape": [-28, 28], "classes": ["a", "b"]},
        {"shape": ["x"], "classes": ["a", "b"]},
        {"shape": 28, "classes": ["a", "b"]},
        {"shape": [28], "classes": ["a"]},
        {"shape": [28], "classes": None},
        {"shape": None, "classes": ["a", "b"]},
    ],
)
def test_terms_that_are_none_are_refused(content: dict[str, Any]) -> None:
    """Whatever else is there surfaces as one of the errors that readers of manifests expect."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        Terms.of(content)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1)])
def test_data_that_fit_are_accepted(shape: tuple[int, ...]) -> None:
    """The shape itself, or with one channel; classes by the same names in the same order, or by number alone."""
    check(shard(shape), TERMS)
    check(shard(shape, classes=("cat", "dog", "hen")), TERMS)
    check(shard(shape, labels=(0,), valid=(2,)), TERMS)


@pytest.mark.parametrize("shape", [(28,), (32, 32), (28, 28, 3), (14, 56), (783,), (784,), (1, 28, 28)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """The line names both shapes; as many values in a row are no image, which most models would refuse in the end."""
    with pytest.raises(DataError) as caught:
        check(shard(shape), TERMS)
    assert str(caught.value) == (
        f"this site's examples have shape {shape}; wanted (28, 28), as the federation trains on;"
        " write the site's data in that shape"
    )


@pytest.mark.parametrize(
    "classes", [("cat", "dog"), ("dog", "cat", "hen"), ("cat", "dog", "cow"), ("Cat", "dog", "hen")]
)
def test_other_classes_are_refused(classes: tuple[str, ...]) -> None:
    """Other names, or the same in another order, would train the model on wrong labels."""
    with pytest.raises(DataError) as caught:
        check(shard(labels=(0, 1), classes=classes), TERMS)
    assert str(caught.value) == (
        f"this site's classes are {', '.join(classes)}; wanted cat, dog, hen, in this order;"
        " name the folders or labels so, or list the federation's classes in classes.txt beside the data"
    )


@pytest.mark.parametrize(("labels", "valid"), [((0, 3), None), ((0, 1), (1, 3))])
def test_unknown_labels_are_refused(labels: tuple[int, ...], valid: tuple[int, ...] | None) -> None:
    """A label beyond the last class is found, among what is trained on and what is validated on."""
    with pytest.raises(DataError) as caught:
        check(shard(labels=labels, valid=valid), TERMS)
    assert str(caught.value) == (
        "this site's labels go up to 3; wanted labels from 0 to 2, for cat, dog, hen;"
        " number the site's classes as the federation does"
    )


def test_what_a_site_has_is_described() -> None:
    """How many, of which shape and values, and how many of each class; a class that is missing has none."""
    assert describe(shard(labels=(0, 0, 2), valid=(1,)), TERMS) == [
        "3 examples to train on, 1 to validate on",
        "shape (28, 28) as uint8, values from 0 to 255",
        "of each class: cat 2, dog 0, hen 1",
    ]
    assert describe(shard(labels=(0, 0, 2)))[2] == "of each class: 0 2, 1 0, 2 1"
    assert describe(shard(labels=(0, 1), classes=("a", "b", "c")))[2] == "of each class: a 1, b 1, c 0"
