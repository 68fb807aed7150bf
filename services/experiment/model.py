"""The network that is trained."""

from __future__ import annotations

from typing import Any, Literal

from services.experiment.base import Section

Preset = Literal["cnn", "cnn-strided"]


class Model(Section):
    """The network that is trained.

    Attributes:
        preset: `cnn` is that of declearn's MNIST example; `cnn-strided` learns more in the same time.
    """

    preset: Preset = "cnn-strided"


def named(value: Any) -> Any:
    """Read a model written as the name of a preset."""
    return {"preset": value} if isinstance(value, str) else value
