"""The network that is trained."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from services.experiment.base import Section

Preset = Literal["cnn", "cnn-strided", "cnn-large", "mlp", "logistic"]

_MODULE = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*\.py:[A-Za-z_]\w*", re.ASCII)


def _module(value: str) -> str:
    if not _MODULE.fullmatch(value):
        raise ValueError("a file in the folder MODELS and a function in it, as my_model.py:build")
    return value


class Model(Section):
    """The network that is trained: a preset, or what a function of one's own returns.

    Attributes:
        preset: `cnn` is that of declearn's MNIST example; `cnn-strided` learns more in the same time, `cnn-large` most
            of all, at thrice the work; `mlp` is the 2NN of McMahan et al. 2017; `logistic` has no hidden layer. None
            where another key says what is trained.
        module: a file in the folder MODELS and a function in it, as `my_model.py:build`.
    """

    preset: Preset | None = "cnn-strided"
    module: Annotated[str, Field(strict=True), AfterValidator(_module)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _instead(cls, value: Any) -> Any:
        """Let another key stand in place of the default preset."""
        if isinstance(value, dict) and "preset" not in value and any(value.get(key) is not None for key in _OTHERS):
            return {**value, "preset": None}
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, key) is not None for key in ("preset", *_OTHERS)) != 1:
            raise ValueError(f"one of preset and {' and '.join(_OTHERS)}, and one alone")
        return self


_OTHERS = ("module",)
"""Keys that may stand in place of a preset."""

ALTERNATIVES = ("preset", *_OTHERS)
"""Keys of which a model has one."""


def named(value: Any) -> Any:
    """Read a model written as the name of a preset."""
    return {"preset": value} if isinstance(value, str) else value
