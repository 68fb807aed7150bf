"""How the model is trained: optimizers, aggregator, and the names under which declearn registers their plug-ins.

The names are listed here so that checking a file needs no import of declearn; a test holds the lists to its registry.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from services.experiment.base import Number, Section, plugin

Aggregator = Literal["averaging", "gradient-masked-averaging", "sum"]
Module = Literal[
    "adagrad",
    "adam",
    "ewma",
    "gaussian-noise",
    "l2-clipping",
    "l2-global-clipping",
    "momentum",
    "rmsprop",
    "scaffold-client",
    "scaffold-server",
    "yogi",
    "yogi-momentum",
]
Regularizer = Literal["fedprox", "lasso", "ridge"]


class ModulePlugin(Section):
    """One optimizer module of declearn, with its parameters."""

    name: Module
    parameters: dict[str, Any] = Field(default_factory=dict)


class RegularizerPlugin(Section):
    """One loss regularizer of declearn, with its parameters."""

    name: Regularizer
    parameters: dict[str, Any] = Field(default_factory=dict)


class AggregatorPlugin(Section):
    """An aggregator of declearn, with its parameters."""

    name: Aggregator = "averaging"
    parameters: dict[str, Any] = Field(default_factory=dict)


class OptimizerSpec(Section):
    """A declearn optimizer: `weights -= lrate * modules(gradients + regularizers) + w_decay * weights`.

    Attributes:
        lrate: learning rate.
        w_decay: decoupled weight decay.
        regularizers: loss regularizers, in order.
        modules: gradient-altering modules, in order.
    """

    lrate: Annotated[Number, Field(gt=0)]
    w_decay: Annotated[Number, Field(ge=0)] = 0.0
    regularizers: tuple[Annotated[RegularizerPlugin, BeforeValidator(plugin)], ...] = ()
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(plugin)], ...] = ()


class ClientOptimizer(OptimizerSpec):
    """The optimizer of local steps."""

    lrate: Annotated[Number, Field(gt=0)] = 0.002
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(plugin)], ...] = (ModulePlugin(name="adam"),)


class ServerOptimizer(OptimizerSpec):
    """The optimizer that applies the averaged updates; `lrate: 1` and no module is plain FedAvg."""

    lrate: Annotated[Number, Field(gt=0)] = 1.0


class Optimizer(Section):
    """Both optimizers."""

    client: ClientOptimizer = ClientOptimizer()
    server: ServerOptimizer = ServerOptimizer()
