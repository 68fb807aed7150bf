"""What is trained on, and how it is dealt."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from services.experiment.base import Number, Positive, Section, Seed, Truth

Dataset = Literal["mnist", "fashion-mnist", "own"]
Scheme = Literal["iid", "labels", "biased", "dirichlet", "shards"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

PARAMETERS = {"alpha": "dirichlet", "classes_per_client": "shards"}
"""Keys that count with one scheme alone, each with that scheme."""

READING = ("test_fraction", "label", "shape", "size", "grayscale")
"""Keys that count with `dataset: own` alone."""


def _column(value: Any) -> Any:
    """Read the number of a column as its name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Data(Section):
    """What is trained on, and how it is dealt to the clients.

    Attributes:
        dataset: name of the data set; `own` is a person's own, in the folder that DATA names.
        scheme: how training images are split; `iid`, `labels` and `biased` as in declearn's MNIST example,
            `dirichlet` draws label proportions from a symmetric Dirichlet(alpha) (Hsu et al. 2019), `shards` deals
            pieces of the images in the order of their labels (McMahan et al. 2017).
        alpha: concentration of the Dirichlet distribution; smaller is more uneven.
        classes_per_client: pieces that scheme `shards` deals to each client.
        valid_fraction: share of each client's images kept for validation, in ]0, 1[.
        seed: of the split; None takes the plan's.
        test_fraction: with `own`, share of the examples of each class that the server tests on, where the folder holds
            no test set, in ]0, 1[.
        label: with `own`, the column of a table that holds the labels: its name, or its number from 1; None for
            `label`, or else the first.
        shape: with `own`, shape of one example where that of a table or an array is flat: [height, width], or
            [height, width, channels].
        size: with `own`, [height, width] that image files are resized to.
        grayscale: with `own`, read image files in colour as gray ones.
    """

    dataset: Dataset = "mnist"
    scheme: Scheme = "iid"
    alpha: Annotated[Number, Field(gt=0)] = 0.5
    classes_per_client: Positive = 2
    valid_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    seed: Seed | None = None
    test_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    label: Annotated[str, Field(min_length=1), BeforeValidator(_column, json_schema_input_type=str | int)] | None = None
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=3)] | None = None
    size: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=2)] | None = None
    grayscale: Truth = False
