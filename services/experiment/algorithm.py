"""How the model is trained: optimizers, aggregator, and their plug-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator

from services.experiment.base import Section
from services.experiment.plugins import AGGREGATORS, MODULES, REGULARIZERS, Plugin, PositiveRate, Rate, plugin

if TYPE_CHECKING:
    Aggregator: TypeAlias = str
    Module: TypeAlias = str
    Regularizer: TypeAlias = str
else:
    Aggregator = Literal[tuple(AGGREGATORS)]
    Module = Literal[tuple(MODULES)]
    Regularizer = Literal[tuple(REGULARIZERS)]


class ModulePlugin(Plugin):
    """One optimizer module of declearn, with its parameters."""

    table = MODULES

    name: Module


class RegularizerPlugin(Plugin):
    """One loss regularizer of declearn, with its parameters."""

    table = REGULARIZERS

    name: Regularizer


class AggregatorPlugin(Plugin):
    """An aggregator of declearn, with its parameters."""

    table = AGGREGATORS

    name: Aggregator = "averaging"


SHORT = {"gma": "gradient-masked-averaging"}
"""Shorter names of aggregators."""


def aggregator_named(value: Any) -> Any:
    """Read an aggregator, which may be called by a short name."""
    read = plugin(value)
    if isinstance(read, dict) and isinstance(name := read.get("name"), str):
        return {**read, "name": SHORT.get(name, name)}
    return read


class OptimizerSpec(Section):
    """A declearn optimizer: `weights -= lrate * modules(gradients + regularizers) + w_decay * weights`.

    Attributes:
        lrate: learning rate, or a scheduler of it.
        w_decay: decoupled weight decay, or a scheduler of it.
        regularizers: loss regularizers, in order.
        modules: gradient-altering modules, in order.
    """

    lrate: PositiveRate
    w_decay: Rate = 0.0
    regularizers: tuple[Annotated[RegularizerPlugin, BeforeValidator(plugin)], ...] = ()
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(plugin)], ...] = ()


class ClientOptimizer(OptimizerSpec):
    """The optimizer of local steps."""

    lrate: PositiveRate = 0.002
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(plugin)], ...] = (ModulePlugin(name="adam"),)


class ServerOptimizer(OptimizerSpec):
    """The optimizer that applies the averaged updates; `lrate: 1` and no module is plain FedAvg."""

    lrate: PositiveRate = 1.0


class Optimizer(Section):
    """Both optimizers."""

    client: ClientOptimizer = ClientOptimizer()
    server: ServerOptimizer = ServerOptimizer()
