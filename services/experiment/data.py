"""What is trained on, and how it is dealt."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from services.experiment.base import Number, Positive, Section, Seed

Scheme = Literal["iid", "labels", "biased", "dirichlet", "shards"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

PARAMETERS = {"alpha": "dirichlet", "classes_per_client": "shards"}
"""Keys that count with one scheme alone, each with that scheme."""


class Data(Section):
    """What is trained on, and how it is dealt to the clients.

    Attributes:
        dataset: name of the data set.
        scheme: how training images are split; `iid`, `labels` and `biased` as in declearn's MNIST example,
            `dirichlet` draws label proportions from a symmetric Dirichlet(alpha) (Hsu et al. 2019), `shards` deals
            pieces of the images in the order of their labels (McMahan et al. 2017).
        alpha: concentration of the Dirichlet distribution; smaller is more uneven.
        classes_per_client: pieces that scheme `shards` deals to each client.
        valid_fraction: share of each client's images kept for validation, in ]0, 1[.
        seed: of the split; None takes the plan's.
    """

    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    scheme: Scheme = "iid"
    alpha: Annotated[Number, Field(gt=0)] = 0.5
    classes_per_client: Positive = 2
    valid_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    seed: Seed | None = None
