"""Differential privacy: what is bounded, and how much may be spent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.experiment.base import Number, Section

Kind = Literal["sample", "central"]
Accountant = Literal["rdp", "pld"]


class Privacy(Section):
    """Differential privacy, with a budget for the whole run.

    Attributes:
        kind: `sample` hides one image, by noise that each client adds to its gradients (DP-SGD); `central` hides one
            client's whole update, by noise that the server adds to their average.
        epsilon: what may be spent at most.
        delta: the probability that epsilon does not hold for; well below one in as many as there are to hide.
        max_grad_norm: Euclidean norm that an image's gradient, or with `central` a client's update, is clipped to.
        accountant: how epsilon is counted; `rdp` as Opacus does, `pld` tighter and slower.
    """

    kind: Kind = "sample"
    epsilon: Annotated[Number, Field(gt=0)]
    delta: Annotated[Number, Field(gt=0, lt=1)] = 1e-5
    max_grad_norm: Annotated[Number, Field(gt=0)]
    accountant: Accountant = "rdp"
