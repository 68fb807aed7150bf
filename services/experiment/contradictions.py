"""Sections of an experiment file that contradict each other: each rule refuses one pair, with its reason.

A rule is a function from a plan to a `Contradiction`, or to None where all is well, under `@rule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from services.errors import UsageError
from services.experiment.data import PARAMETERS, READING

if TYPE_CHECKING:
    from services.experiment.base import Section
    from services.experiment.plan import Plan


@dataclass(frozen=True)
class Contradiction:
    """What can't go together.

    Attributes:
        keys: of the file, those at odds.
        found: what they are, and why that can't be.
        remedy: what to do.
    """

    keys: tuple[str, ...]
    found: str
    remedy: str


Rule = Callable[["Plan"], Contradiction | None]
RULES: list[Rule] = []

CONTRADICTION = "contradiction"
"""Pydantic's type of the error that holds a `Contradiction`."""


def rule(check: Rule) -> Rule:
    """Let `check` be asked of every plan."""
    RULES.append(check)
    return check


def refuse(plan: Plan) -> None:
    """Raise the first contradiction in `plan` as an error of pydantic's."""
    for check in RULES:
        found = check(plan)
        if found is not None:
            raise PydanticCustomError(CONTRADICTION, "{found}", {"found": found.found, "contradiction": found})


def check_clients(plan: Plan, clients: int) -> None:
    """Refuse a number of clients with which no round of `plan` could ever count.

    Raises:
        UsageError: names the number, and why it is too low.
    """
    for fewest, reason in (
        (2 if plan.secagg else 1, f"secagg is {plan.secagg}: the sum over a single client would be that client's own"),
        (plan.federation.min_clients, f"federation.min_clients is {plan.federation.min_clients}"),
    ):
        if clients < fewest:
            raise UsageError(
                f"CLIENTS is {clients} and {reason}",
                f"at least {fewest} clients",
                f"raise CLIENTS, or correct {reason.split(' is ')[0]} in the experiment file",
            )


@rule
def _secagg_hides_states(plan: Plan) -> Contradiction | None:
    if plan.secagg is None or not plan.deterministic:
        return None
    return Contradiction(
        ("secagg", "deterministic"),
        "secagg and deterministic contradict each other: the clients' optimizer states, which a deterministic run keeps"
        " on the server, tell what secure aggregation hides",
        "leave out one of them",
    )


@rule
def _secagg_encrypts_whole_numbers(plan: Plan) -> Contradiction | None:
    if plan.secagg is None or plan.compression == "none":
        return None
    return Contradiction(
        ("secagg", "compression"),
        f"secagg and compression {plan.compression} contradict each other: secure aggregation sends whole numbers as"
        " large as its sums need, which are no floats any more",
        "leave out one of them",
    )


@rule
def _noise_is_not_repeated(plan: Plan) -> Contradiction | None:
    for side in ("client", "server"):
        modules = getattr(plan.optimizer, side).modules
        if plan.deterministic and any(module.name == "gaussian-noise" for module in modules):
            return Contradiction(
                ("deterministic", f"optimizer.{side}.modules"),
                f"deterministic and gaussian-noise in optimizer.{side}.modules contradict each other: where its"
                " generator stands is in no state that is kept, so a resumed run would draw other noise",
                "leave out one of them",
            )
    return None


@rule
def _noise_has_one_source(plan: Plan) -> Contradiction | None:
    for side in ("client", "server"):
        for module in getattr(plan.optimizer, side).modules:
            given = module.parameters
            if module.name == "gaussian-noise" and given.get("seed") is not None and given.get("safe_mode", True):
                return Contradiction(
                    (f"optimizer.{side}.modules",),
                    f"seed of gaussian-noise in optimizer.{side}.modules has no effect with safe_mode true: the"
                    " system's secure generator takes none",
                    "leave out seed, or set safe_mode to false",
                )
    return None


_SCAFFOLD = {"client": "scaffold-client", "server": "scaffold-server"}


@rule
def _scaffold_has_two_sides(plan: Plan) -> Contradiction | None:
    sides = {side: [module.name for module in getattr(plan.optimizer, side).modules] for side in _SCAFFOLD}
    for side, other in (("client", "server"), ("server", "client")):
        here = f"optimizer.{side}.modules"
        if _SCAFFOLD[other] in sides[side]:
            return Contradiction(
                (here,),
                f"{_SCAFFOLD[other]} is in {here}: it is the {other}'s part of SCAFFOLD",
                f"move it to optimizer.{other}.modules",
            )
        if sides[side].count(_SCAFFOLD[side]) > 1:
            return Contradiction(
                (here,),
                f"{_SCAFFOLD[side]} stands {sides[side].count(_SCAFFOLD[side])} times in {here}: what the two sides"
                " tell each other would reach one of them alone",
                "leave one",
            )
        if _SCAFFOLD[side] in sides[side] and _SCAFFOLD[other] not in sides[other]:
            return Contradiction(
                (here, f"optimizer.{other}.modules"),
                f"{_SCAFFOLD[side]} is in {here} without {_SCAFFOLD[other]} in optimizer.{other}.modules: each needs"
                " what the other sends",
                f"add {_SCAFFOLD[other]} to optimizer.{other}.modules",
            )
    return None


@rule
def _fedprox_is_local(plan: Plan) -> Contradiction | None:
    if not any(regularizer.name == "fedprox" for regularizer in plan.optimizer.server.regularizers):
        return None
    return Contradiction(
        ("optimizer.server.regularizers",),
        "fedprox is in optimizer.server.regularizers: it holds a client's steps near the weights that its round began"
        " with, and the server takes one step a round",
        "move it to optimizer.client.regularizers",
    )


@rule
def _schemes_have_parameters(plan: Plan) -> Contradiction | None:
    for key, scheme in PARAMETERS.items():
        if key in plan.data.model_fields_set and plan.data.scheme != scheme:
            return Contradiction(
                (f"data.{key}", "data.scheme"),
                f"data.{key} counts with scheme {scheme} alone, and data.scheme is {plan.data.scheme}",
                f"leave out data.{key}, or set data.scheme to {scheme}",
            )
    return None


# -- methods that are added to plain rounds ---------------------------------------------------------------------------

_CLASSES = {"mnist": 10, "fashion-mnist": 10}
"""Number of classes where it is known before the data are."""

_TIMED = {"train_time", "train_time_history"}


def _is_set(section: Section, key: str) -> bool:
    """Tell whether a key has another value than its default; a plan that was written out gives all of them."""
    return bool(getattr(section, key) != type(section).model_fields[key].default)


@rule
def _a_draw_needs_enough(plan: Plan) -> Contradiction | None:
    drawn = plan.sampling.fewest()
    if drawn is None:
        return None
    if drawn < plan.federation.min_clients:
        return Contradiction(
            ("sampling", "federation.min_clients"),
            f"sampling draws {drawn} clients a round, and federation.min_clients lets none count with fewer than"
            f" {plan.federation.min_clients}",
            "raise n_samples, or lower federation.min_clients",
        )
    if plan.secagg is not None and drawn == 1:
        return Contradiction(
            ("sampling", "secagg"),
            "sampling draws one client a round, and secagg hides an update in the sum of two or more",
            "raise n_samples, or leave out secagg",
        )
    return None


@rule
def _criteria_read_updates(plan: Plan) -> Contradiction | None:
    criteria = plan.sampling.criteria()
    if criteria and plan.secagg is not None:
        return Contradiction(
            ("sampling", "secagg"),
            "sampling by criterion and secagg contradict each other: scores come from each client's own reply, of which"
            " the server reads the sum alone",
            "leave out one of them",
        )
    if criteria & _TIMED and plan.deterministic:
        return Contradiction(
            ("sampling", "deterministic"),
            f"sampling by {min(criteria & _TIMED)} and deterministic contradict each other: times are never the same",
            "choose another criterion, or leave out deterministic",
        )
    return None


@rule
def _scores_are_no_probabilities(plan: Plan) -> Contradiction | None:
    others = [metric.name for metric in plan.metrics if metric.name != "multi-classif"]
    if plan.model.sklearn is None or not others:
        return None
    return Contradiction(
        ("metrics", "model.sklearn"),
        f"{others[0]} in metrics and model.sklearn contradict each other: it compares probabilities, and a linear"
        " classifier gives scores without bounds",
        f"leave out {others[0]}, or choose a preset",
    )


@rule
def _metrics_differ(plan: Plan) -> Contradiction | None:
    names = [metric.name for metric in plan.metrics]
    for metric in plan.metrics:
        if names.count(metric.name) > 1:
            return Contradiction(
                ("metrics",), f"{metric.name} stands {names.count(metric.name)} times in metrics", "leave one"
            )
        if metric.name == "binary-roc" and plan.secagg is not None and metric.parameters.get("bound") is None:
            return Contradiction(
                ("metrics", "secagg"),
                "binary-roc without bound and secagg contradict each other: thresholds that go by the data can't be"
                " summed",
                "set bound to [0, 1]",
            )
        label, classes = metric.parameters.get("label", 0), _CLASSES.get(plan.data.dataset, math.inf)
        if label >= classes:
            return Contradiction(
                ("metrics", "data.dataset"),
                f"label of {metric.name} in metrics is {label}, and {plan.data.dataset} has classes 0 to {classes - 1}",
                "correct label",
            )
    return None


@rule
def _keys_need_their_method(plan: Plan) -> Contradiction | None:
    for section, switch in (("early_stop", "patience"), ("fairness", "algorithm")):
        spec = getattr(plan, section)
        given = [key for key in type(spec).model_fields if _is_set(spec, key) and key != switch]
        if given and getattr(spec, switch) is None:
            return Contradiction(
                (f"{section}.{given[0]}", f"{section}.{switch}"),
                f"{section}.{given[0]} counts with {section}.{switch} alone",
                f"set {section}.{switch}, or leave out {section}.{given[0]}",
            )
    if _is_set(plan.robust, "trim") and plan.robust.aggregator != "trimmed-mean":
        return Contradiction(
            ("robust.trim", "robust.aggregator"),
            f"robust.trim counts with aggregator trimmed-mean alone, and robust.aggregator is {plan.robust.aggregator}",
            "leave out robust.trim, or set robust.aggregator to trimmed-mean",
        )
    return None


@rule
def _robustness_reads_updates(plan: Plan) -> Contradiction | None:
    robust = plan.robust
    for key in ("max_update_norm", "aggregator"):
        if getattr(robust, key) is not None and plan.secagg is not None:
            return Contradiction(
                (f"robust.{key}", "secagg"),
                f"robust.{key} and secagg contradict each other: the server reads the sum of updates alone",
                "leave out one of them",
            )
    scaffold = any(module.name == "scaffold-client" for module in plan.optimizer.client.modules)
    if robust.max_update_norm is not None and scaffold:
        return Contradiction(
            ("robust.max_update_norm", "optimizer.client.modules"),
            "robust.max_update_norm and optimizer.client.modules contradict each other: what SCAFFOLD's clients send"
            " beside updates would be summed as it is",
            "leave out one of them",
        )
    if robust.aggregator is None:
        return None
    fairness = plan.fairness.algorithm
    for key, at_odds, reason in (
        ("aggregator", plan.aggregator.name != "averaging", "it takes the place of averaging"),
        ("optimizer.client.modules", scaffold, "what SCAFFOLD's clients send beside updates would be summed as it is"),
        (
            "fairness.algorithm",
            fairness is not None and fairness.name != "monitor",
            "it weighs groups in a sum over all clients",
        ),
    ):
        if at_odds:
            return Contradiction(
                ("robust.aggregator", key),
                f"robust.aggregator and {key} contradict each other: {reason}",
                "leave out one of them",
            )
    return None


@rule
def _fairness_is_among_all(plan: Plan) -> Contradiction | None:
    algorithm = plan.fairness.algorithm
    if algorithm is None:
        return None
    for key, at_odds, reason in (
        ("secagg", plan.secagg is not None, "the server reads each client's accuracy on its groups"),
        ("sampling", plan.sampling.name != "default", "groups are weighed over all clients, not over those drawn"),
        (
            "deterministic",
            plan.deterministic and algorithm.name == "fairfed",
            "the weights of fairfed live with the clients, and a restarted one begins anew",
        ),
        (
            "aggregator",
            plan.aggregator.name == "gradient-masked-averaging" and algorithm.name != "monitor",
            f"{algorithm.name} has an aggregator of its own",
        ),
    ):
        if at_odds:
            return Contradiction(
                ("fairness.algorithm", key),
                f"fairness.algorithm and {key} contradict each other: {reason}",
                "leave out one of them",
            )
    return None


@rule
def _groups_suit_the_function(plan: Plan) -> Contradiction | None:
    spec = plan.fairness
    if spec.algorithm is None:
        return None
    strict = spec.algorithm.name == "fairfed" and spec.algorithm.parameters.get("strict", True)
    four = spec.positive is not None and spec.groups != "class"
    classes = _CLASSES.get(plan.data.dataset, math.inf)
    labels = 2 if spec.positive is not None else classes
    focus = spec.algorithm.parameters.get("target")
    for keys, at_odds, reason, remedy in (
        (
            ("algorithm", "positive"),
            (spec.algorithm.name == "fairbatch" or strict) and not four,
            f"{spec.algorithm.name}{' with strict true' if strict else ''} takes two labels and two attributes",
            "set fairness.positive to the labels that count as 1, and fairness.groups to ink or own",
        ),
        (
            ("algorithm", "function"),
            spec.algorithm.name == "fairbatch" and spec.function == "accuracy_parity",
            "fairbatch has no rule for accuracy_parity",
            "set fairness.function to demographic_parity, equality_of_opportunity or equalized_odds",
        ),
        (
            ("function", "positive"),
            spec.function == "demographic_parity" and spec.positive is None,
            "demographic_parity takes two labels",
            "set fairness.positive to the labels that count as 1",
        ),
        (
            ("groups", "function"),
            spec.groups == "class" and spec.function != "accuracy_parity",
            f"{spec.function} compares images of one label, which are of one class",
            "set fairness.groups to ink or own",
        ),
        (
            ("groups", "ink"),
            spec.groups != "ink" and _is_set(spec, "ink"),
            f"groups by {spec.groups} know no ink",
            "leave out fairness.ink",
        ),
        (
            ("target", "function"),
            _is_set(spec, "target") and spec.function != "equality_of_opportunity",
            f"{spec.function} has no target",
            "leave out fairness.target",
        ),
        (
            ("target", "positive"),
            max(spec.target, focus or 0) >= labels,
            f"labels of groups go from 0 to {labels - 1}",
            "correct target",
        ),
        (
            ("positive", "groups"),
            spec.positive is not None and max(spec.positive) >= classes,
            f"{plan.data.dataset} has classes 0 to {classes - 1}",
            "correct fairness.positive",
        ),
    ):
        if at_odds:
            first, second = (f"fairness.{key}" for key in keys)
            return Contradiction((first, second), f"{first} and {second} contradict each other: {reason}", remedy)
    return None


@rule
def _own_data_are_read(plan: Plan) -> Contradiction | None:
    for key in READING:
        if key in plan.data.model_fields_set and plan.data.dataset != "own":
            return Contradiction(
                (f"data.{key}", "data.dataset"),
                f"data.{key} counts with dataset own alone, and data.dataset is {plan.data.dataset}",
                f"leave out data.{key}, or set data.dataset to own",
            )
    return None


@rule
def _private_noise_is_not_repeated(plan: Plan) -> Contradiction | None:
    if plan.privacy is None or not plan.deterministic:
        return None
    return Contradiction(
        ("privacy", "deterministic"),
        "privacy and deterministic contradict each other: noise that can be repeated hides nothing",
        "leave out one of them",
    )


@rule
def _per_image_gradients_need_a_network(plan: Plan) -> Contradiction | None:
    if plan.privacy is None or plan.privacy.kind != "sample" or plan.model.sklearn is None:
        return None
    return Contradiction(
        ("privacy", "model.sklearn"),
        "privacy.kind sample and model.sklearn contradict each other: DP-SGD clips the gradient of each image, which is"
        " computed of a network",
        "set model to logistic, or privacy.kind to central",
    )


@rule
def _central_privacy_sees_updates(plan: Plan) -> Contradiction | None:
    if plan.privacy is None or plan.privacy.kind != "central" or plan.secagg is None:
        return None
    return Contradiction(
        ("privacy", "secagg"),
        "secagg and privacy.kind central contradict each other: the server clips each client's update, which secure"
        " aggregation keeps from it",
        "leave out secagg, or set privacy.kind to sample",
    )


@rule
def _central_privacy_averages_alike(plan: Plan) -> Contradiction | None:
    if plan.privacy is None or plan.privacy.kind != "central":
        return None
    scaffold = any(module.name in _SCAFFOLD.values() for module in plan.optimizer.client.modules)
    weighted = plan.aggregator.parameters.get("steps_weighted")
    stop = plan.early_stop
    for key, at_odds, reason, remedy in (
        (
            "aggregator",
            plan.aggregator.name != "averaging" or weighted,
            "clients must count alike, so that none changes the average by more than the noise is made for",
            "set aggregator to averaging, without steps_weighted",
        ),
        ("robust.aggregator", plan.robust.aggregator is not None, "noise is made for an average", "leave out one"),
        (
            "optimizer.client.modules",
            scaffold,
            "what SCAFFOLD tells the other clients has no noise",
            "leave out scaffold-client and scaffold-server",
        ),
        ("sampling", plan.sampling.criteria(), "a criterion reads updates without noise", "draw without a criterion"),
        (
            "early_stop.metric",
            stop.patience is not None and stop.metric in {"loss", "accuracy"},
            "the clients' figures have no noise",
            "watch test_loss or test_accuracy",
        ),
    ):
        if at_odds:
            return Contradiction(
                ("privacy", key), f"privacy.kind central and {key} contradict each other: {reason}", remedy
            )
    return None


@rule
def _fairness_tells_of_images(plan: Plan) -> Contradiction | None:
    if plan.privacy is None or plan.fairness.algorithm is None:
        return None
    return Contradiction(
        ("privacy", "fairness.algorithm"),
        "privacy and fairness.algorithm contradict each other: clients tell how many of their training images the model"
        " gets right in each group, without noise",
        "leave out one of them",
    )
