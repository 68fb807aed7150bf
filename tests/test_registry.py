"""declearn's registries, walked: every plug-in in them can be named in an experiment file, and builds on the server."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import declearn.fairness
import declearn.model.sklearn
import declearn.secagg  # noqa: F401 - these three fill the registries
import numpy as np
import pytest
from declearn.utils._register import REGISTRIES

from services.experiment import Plan
from services.experiment.algorithm import AggregatorPlugin, ModulePlugin, RegularizerPlugin
from services.experiment.methods import CriterionPlugin, Fairness, FairnessPlugin, MetricPlugin, SamplerPlugin
from services.experiment.plan import Secagg
from services.experiment.plugins import Plugin, SchedulerPlugin
from services.server import fairness
from services.server.model import build_metrics, build_optim
from services.server.sampling import Draw

KINDS: dict[str, type[Plugin]] = {
    "Aggregator": AggregatorPlugin,
    "ClientSampler": SamplerPlugin,
    "ClientSamplerCriterion": CriterionPlugin,
    "FairnessControllerServer": FairnessPlugin,
    "Metric": MetricPlugin,
    "OptiModule": ModulePlugin,
    "Regularizer": RegularizerPlugin,
    "Scheduler": SchedulerPlugin,
}
"""declearn's registries of what a file may name, each with its section."""

NAMES = {
    "FairnessFunction": get_args(Fairness.model_fields["function"].annotation),
    "SecaggConfigServer": get_args(Secagg),
}
"""Those of what a file chooses by name alone."""

NO_CHOICE = {
    "AuxVar": "what modules send each other",
    "Dataset": "clients have their own kind, over images",
    "FairnessControllerClient": "the other side of the server's",
    "Message": "what is sent",
    "MetricState": "what metrics send",
    "Model": "section model chooses it",
    "ModelUpdates": "what aggregators send",
    "NetworkClient": "the transport is ours, over websockets",
    "NetworkServer": "the transport is ours, over websockets",
    "SecaggConfigClient": "the other side of the server's",
    "Vector": "goes with the model",
}
"""Those that hold no choice of a file's, and why."""

WRAPPERS = {"tensorflow-optim", "torch-optim"}
"""Modules that wrap one framework's optimizers, which have none of declearn's states to resume from."""

NEVER = {
    "gradient-masked-averaging": {"steps_weighted"},
    "multi-classif": {"labels"},
    **{name: {"max_retries"} for name in SamplerPlugin.table},
}
"""Parameters that a file can't give: lost on the way to clients, known from the model, or without effect."""

GIVEN: dict[tuple[str, str], dict[str, Any]] = {
    ("ClientSampler", "uniform"): {"n_samples": 2},
    ("ClientSampler", "weighted"): {"n_samples": 2, "client_to_weight": {"client_0": 2.0}},
    ("ClientSampler", "criterion"): {"n_samples": 2, "criterion": "gradient_norm"},
    ("ClientSampler", "composition"): {"samplers": [{"uniform": {"n_samples": 1}}, {"uniform": {"n_samples": 1}}]},
    ("ClientSamplerCriterion", "constant"): {"value": 1.0},
    ("ClientSamplerCriterion", "composition"): {"operation": "add", "parents": ["train_time", "gradient_norm"]},
    ("Scheduler", "cosine-annealing"): {"base": 0.1, "max_lr": 0.5, "duration": 4},
    ("Scheduler", "cosine-annealing-warm-restarts"): {"base": 0.1, "max_lr": 0.5, "period": 2},
    ("Scheduler", "cyclic-exp-range"): {"base": 0.1, "max_lr": 0.5, "stepsize": 2, "decay": 0.9},
    ("Scheduler", "cyclic-triangular"): {"base": 0.1, "max_lr": 0.5, "stepsize": 2},
    ("Scheduler", "exponential-decay"): {"base": 0.5, "rate": 0.5},
    ("Scheduler", "inverse-scaling"): {"base": 0.5, "rate": 0.5, "step_level": False},
    ("Scheduler", "linear-decay"): {"base": 0.5, "rate": 0.1},
    ("Scheduler", "piecewise-decay"): {"base": 0.5, "rate": 0.5, "step_size": 2},
    ("Scheduler", "polynomial-decay"): {"base": 0.5, "power": 2, "limit": 9},
    ("Scheduler", "warmup"): {"base": {"linear-decay": {"base": 0.5, "rate": 0.1}}, "warmup": 3},
    ("Scheduler", "warmup-rounds"): {"base": 0.5, "warmup": 2},
}
"""Values for plug-ins that can't do without."""


def registered(group: str) -> Mapping[str, type[Any]]:
    """Give one of declearn's registries, but for what wraps one framework."""
    return {name: kind for name, kind in REGISTRIES[group].get_mapping().items() if name not in WRAPPERS}


def plug_ins() -> Iterator[tuple[str, str]]:
    """Go through all plug-ins of all kinds."""
    for group, kind in KINDS.items():
        for name in kind.table:
            yield group, name


def test_every_registry_is_accounted_for() -> None:
    """Each of declearn's registries is one that a file chooses from, or is none of a file's business, with a reason."""
    assert set(REGISTRIES) == KINDS.keys() | NAMES.keys() | NO_CHOICE.keys()


@pytest.mark.parametrize("group", KINDS)
def test_a_file_may_name_what_is_registered_and_nothing_else(group: str) -> None:
    """The names of a kind of plug-in are exactly those that declearn registers, and each has its parameters."""
    kind = KINDS[group]
    assert set(get_args(kind.model_fields["name"].annotation)) == set(kind.table) == set(registered(group))


@pytest.mark.parametrize("group", NAMES)
def test_a_choice_is_among_what_is_registered(group: str) -> None:
    """What a file chooses by name alone is what declearn registers."""
    assert set(NAMES[group]) == set(registered(group))


@pytest.mark.parametrize(("group", "name"), list(plug_ins()))
def test_parameters_are_those_of_the_constructor(group: str, name: str) -> None:
    """Each parameter of declearn's constructor can be given, with its default, but for those that have no effect."""
    found = inspect.signature(registered(group)[name]).parameters
    # what controllers take in any case stands beside the algorithm
    beside = {"f_type", "f_args"} if group == "FairnessControllerServer" else set()
    lost = {"round_reset"} if group == "OptiModule" else set()
    wanted = set(found) - NEVER.get(name, set()) - beside - lost
    fields = KINDS[group].table[name].model_fields
    assert set(fields) == wanted
    for key, field in fields.items():
        default = found[key].default
        if default is not inspect.Parameter.empty:
            assert field.default == default, key
        else:
            assert field.is_required(), key


def content(group: str, name: str) -> dict[str, Any]:
    """Write a plan that names a plug-in."""
    plugin = {name: GIVEN.get((group, name), {})}
    if group == "OptiModule":
        sides = ["client", "server"] if name.startswith("scaffold") else ["client"]
        modules = {side: name if len(sides) == 1 else f"scaffold-{side}" for side in sides}
        return {"optimizer": {side: {"modules": [module]} for side, module in modules.items()}}
    plans: dict[str, dict[str, Any]] = {
        "Aggregator": {"aggregator": plugin},
        "ClientSampler": {"sampling": plugin},
        "ClientSamplerCriterion": {"sampling": {"criterion": {"n_samples": 2, "criterion": plugin}}},
        "FairnessControllerServer": {"fairness": {"algorithm": plugin, "function": "equalized_odds", "positive": [1]}},
        "Metric": {"metrics": [plugin]},
        "Regularizer": {"optimizer": {"client": {"regularizers": [plugin]}}},
        "Scheduler": {"optimizer": {"client": {"lrate": plugin}, "server": {"w_decay": plugin}}},
    }
    return plans[group]


@pytest.mark.parametrize(("group", "name"), list(plug_ins()))
def test_a_plan_that_names_a_plug_in_builds_it(group: str, name: str) -> None:
    """A plan that names it loads, and the server makes declearn's own class of it, or a subclass."""
    plan = Plan.model_validate(content(group, name))
    kind = registered(group)[name]
    optim = build_optim(plan)
    made: list[Any] = [optim.aggregator]
    for side in (optim.client_opt, optim.server_opt):
        made += [*side.modules, *side.regularizers, side._lrate_scheduler, side._wrate_scheduler]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # declearn warns of accuracy_parity with FairFed
        if plan.fairness.algorithm is not None:
            made.append(fairness._controller(plan.fairness))
    made += build_metrics(plan, 10)
    draw = Draw(plan)
    made += [draw._sampler, *draw._leaves]
    made += [leaf.criterion for leaf in draw._leaves if hasattr(leaf, "criterion")]
    assert any(isinstance(one, kind) for one in made)
    assert np.isfinite(optim.client_opt.lrate)
