"""How the model is trained: optimizers, aggregator, and the names under which declearn registers their plug-ins.

The names are listed here so that checking a file needs no import of declearn; a test holds the lists to its registry.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

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
Scheduler = Literal[
    "cosine-annealing",
    "cosine-annealing-warm-restarts",
    "cyclic-exp-range",
    "cyclic-triangular",
    "exponential-decay",
    "inverse-scaling",
    "linear-decay",
    "piecewise-decay",
    "polynomial-decay",
    "warmup",
    "warmup-rounds",
]


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


class SchedulerPlugin(Section):
    """A scheduler of declearn, with its parameters; `base` of `warmup` and `warmup-rounds` may be another one."""

    name: Scheduler
    parameters: dict[str, Any] = Field(default_factory=dict)


def _kind_of_rate(value: Any) -> str:
    """Tell a scheduler from a number; a text is a number where it can be read as one."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return SCHEDULER
        return NUMBER
    return SCHEDULER if isinstance(value, dict | SchedulerPlugin) else NUMBER


NUMBER, SCHEDULER = "number", "scheduler"
"""Tags of the two kinds of rate; pydantic adds them to the location of an error."""

_Scheduled = Annotated[SchedulerPlugin, BeforeValidator(plugin), Tag(SCHEDULER)]
PositiveRate = Annotated[Annotated[Number, Field(gt=0), Tag(NUMBER)] | _Scheduled, Discriminator(_kind_of_rate)]
Rate = Annotated[Annotated[Number, Field(ge=0), Tag(NUMBER)] | _Scheduled, Discriminator(_kind_of_rate)]


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
