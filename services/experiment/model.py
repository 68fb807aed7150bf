"""The network that is trained."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from services.experiment.base import Number, Section, Truth

Preset = Literal["cnn", "cnn-strided", "cnn-large", "mlp", "logistic", "cnn-tanh"]

SklearnLoss = Literal[
    "hinge",
    "log_loss",
    "modified_huber",
    "squared_hinge",
    "perceptron",
    "squared_error",
    "huber",
    "epsilon_insensitive",
    "squared_epsilon_insensitive",
]

_MODULE = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*\.py:[A-Za-z_]\w*", re.ASCII)


def _module(value: str) -> str:
    if not _MODULE.fullmatch(value):
        raise ValueError("a file in the folder MODELS and a function in it, as my_model.py:build")
    return value


class SklearnModel(Section):
    """A linear classifier of scikit-learn (`sklearn.linear_model.SGDClassifier`), one column of weights a class.

    Attributes:
        loss: `log_loss` is logistic regression, `hinge` a support vector machine; each class against all others.
        penalty: what is added to the loss.
        alpha: weight of the penalty.
        l1_ratio: share of L1 in `elasticnet`.
        epsilon: of the losses `huber`, `epsilon_insensitive` and `squared_epsilon_insensitive`.
        fit_intercept: learn an intercept.
    """

    loss: SklearnLoss = "log_loss"
    penalty: Literal["l2", "l1", "elasticnet", "none"] = "l2"
    alpha: Annotated[Number, Field(ge=0)] = 0.0001
    l1_ratio: Annotated[Number, Field(ge=0, le=1)] = 0.15
    epsilon: Annotated[Number, Field(ge=0)] = 0.1
    fit_intercept: Truth = True


class Model(Section):
    """What is trained: a preset, what a function of one's own returns, or a linear model of scikit-learn.

    Attributes:
        preset: `cnn` is that of declearn's MNIST example; `cnn-strided` learns more in the same time, `cnn-large` most
            of all, at thrice the work; `mlp` is the 2NN of McMahan et al. 2017; `logistic` has no hidden layer;
            `cnn-tanh` is small, for DP-SGD. None where another key says what is trained.
        module: a file in the folder MODELS and a function in it, as `my_model.py:build`.
        sklearn: a linear model of scikit-learn.
    """

    preset: Preset | None = "cnn-strided"
    module: Annotated[str, Field(strict=True), AfterValidator(_module)] | None = None
    sklearn: SklearnModel | None = None

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
            raise ValueError("one of preset, module and sklearn, and one alone")
        return self


_OTHERS = ("module", "sklearn")
"""Keys that may stand in place of a preset."""

ALTERNATIVES = ("preset", *_OTHERS)
"""Keys of which a model has one."""


def named(value: Any) -> Any:
    """Read a model written as the name of a preset."""
    return {"preset": value} if isinstance(value, str) else value
