"""The network that is trained."""

from __future__ import annotations

from typing import Any, Literal

from services.experiment.base import Section

Preset = Literal["cnn", "cnn-strided", "cnn-large", "mlp", "logistic"]


class Model(Section):
    """The network that is trained.

    Attributes:
        preset: `cnn` is that of declearn's MNIST example; `cnn-strided` learns more in the same time, `cnn-large` most of
            all, at three times the work a step; `mlp` is the 2NN of McMahan et al. 2017, `logistic` has no hidden layer.
    """

    preset: Preset = "cnn-strided"


def named(value: Any) -> Any:
    """Read a model written as the name of a preset."""
    return {"preset": value} if isinstance(value, str) else value
