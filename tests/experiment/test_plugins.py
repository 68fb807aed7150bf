"""Plug-ins by name: what declearn registers and takes is what a file may name and set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from services.experiment.algorithm import (
    Aggregator,
    AggregatorPlugin,
    Module,
    ModulePlugin,
    Regularizer,
    RegularizerPlugin,
)
from services.experiment.plugins import Plugin, SchedulerPlugin

KINDS: list[type[Plugin]] = [AggregatorPlugin, ModulePlugin, RegularizerPlugin, SchedulerPlugin]


def registered(kind: type[Plugin]) -> Mapping[str, type[Any]]:
    """Give declearn's own registry of a kind of plug-in, but for what wraps one framework."""
    from declearn.aggregator import list_aggregators  # noqa: PLC0415 - takes seconds
    from declearn.optimizer import (  # noqa: PLC0415
        list_optim_modules,
        list_optim_regularizers,
        list_rate_schedulers,
    )

    registries: dict[type[Plugin], Callable[[], Mapping[str, type[Any]]]] = {
        AggregatorPlugin: list_aggregators,
        ModulePlugin: list_optim_modules,
        RegularizerPlugin: list_optim_regularizers,
        SchedulerPlugin: list_rate_schedulers,
    }
    # importing declearn.model.tensorflow adds a module that wraps optimizers of Keras
    return {name: found for name, found in registries[kind]().items() if "declearn.model." not in found.__module__}


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_that_declearn_registers(kind: type[Plugin]) -> None:
    """The names that a file may use are exactly those in declearn's registries."""
    assert set(kind.table) == set(registered(kind))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (AggregatorPlugin, Aggregator),
        (ModulePlugin, Module),
        (RegularizerPlugin, Regularizer),
        (SchedulerPlugin, SchedulerPlugin.model_fields["name"].annotation),
    ],
)
def test_names_are_those_of_the_table(kind: type[Plugin], names: Any) -> None:
    """Each name has its row of parameters, and the schema knows no other name."""
    assert get_args(names) == tuple(kind.table)


COUNTS = ("duration", "period", "stepsize", "step_size", "power", "limit", "warmup")
"""Parameters that are whole numbers of steps or rounds, or an exponent."""

REQUIRED: dict[str, Any] = {
    "base": 0.1,
    "max_lr": 0.2,
    "rate": 0.5,
    "decay": 0.9,
    **dict.fromkeys(COUNTS, 3),
}
"""Values for parameters without a default."""


def make(found: type[Any], parameters: Mapping[str, Any]) -> Any:
    """Make a plug-in with these parameters, and with any value for those that it requires."""
    needed = [key for key, each in inspect.signature(found).parameters.items() if each.default is each.empty]
    return found(**({key: REQUIRED[key] for key in needed} | dict(parameters)))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_that_declearn_takes(kind: type[Plugin]) -> None:
    """Each plug-in has the parameters of its constructor, with its defaults: those that reach a client, in its
    configuration, as the others would have no effect there.
    """
    for name, found in registered(kind).items():
        sent = make(found, {}).get_config()
        taken = {key: each.default for key, each in inspect.signature(found).parameters.items() if key in sent}
        fields = kind.table[name].model_fields
        assert {
            key: inspect.Parameter.empty if field.is_required() else field.default for key, field in fields.items()
        } == taken, name


EDGES: dict[str, list[Any]] = {
    "beta": [0, 0.999],
    "beta_1": [0, 0.999],
    "beta_2": [0, 0.999],
    "threshold": [0, 1],
    "alpha": [0, 1e6],
    "eps": [1e-30],
    "max_norm": [1e-30],
    "std": [1e-30],
    "seed": [0, 2**32 - 1],
    "base": [0, 0.1],
    "max_lr": [1e-6],
    "rate": [0, 2],
    "t_mult": [0.1, 2],
    "decay": [0.1],
    **{key: [1, 10**6] for key in COUNTS},
}
OUTSIDE: dict[str, list[Any]] = {
    "beta": [-0.1, 1],
    "beta_1": [-0.1, 1],
    "beta_2": [-0.1, 1],
    "threshold": [-0.1, 1.1],
    "alpha": [-0.1],
    "eps": [0],
    "max_norm": [0],
    "std": [0],
    "seed": [-1, 2**32],
    "base": [-0.1],
    "max_lr": [0],
    "rate": [-0.1],
    "t_mult": [0],
    "decay": [0],
    **{key: [0, 1.5] for key in COUNTS},
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_checked(kind: type[Plugin]) -> None:
    """What is accepted declearn's constructor takes, as the number that it wants; what is out of range is refused."""
    for name, found in registered(kind).items():
        for key, field in kind.table[name].model_fields.items():
            others = {k: REQUIRED[k] for k, each in kind.table[name].model_fields.items() if each.is_required()}
            truth = isinstance(field.default, bool)
            right = [True, False] if truth else EDGES[key]
            for value in right:
                given = kind.model_validate({"name": name, "parameters": others | {key: value}}).parameters
                assert make(found, given).get_config()[key] == value
                whole = key == "seed" or type(REQUIRED.get(key)) is int
                assert type(given[key]) is (bool if truth else int if whole else float), (name, key)
            wrong = [0, "yes", None] if truth else [*OUTSIDE[key], True, "x"]
            for value in wrong:
                with pytest.raises(ValidationError):
                    kind.model_validate({"name": name, "parameters": others | {key: value}})


def test_a_warm_up_leads_to_a_number_or_to_another_schedule() -> None:
    """`base` of a warm-up is a rate, and what is wrong in one that is scheduled is found too."""
    decay = {"linear-decay": {"base": 1, "rate": 0.5}}
    given = SchedulerPlugin.model_validate({"name": "warmup", "parameters": {"base": decay, "warmup": 3}})
    assert given.parameters["base"] == {"name": "linear-decay", "parameters": {"base": 1.0, "rate": 0.5}}
    with pytest.raises(ValidationError):
        SchedulerPlugin.model_validate(
            {"name": "warmup", "parameters": {"base": {"linear-decay": {"base": 1}}, "warmup": 3}}
        )
