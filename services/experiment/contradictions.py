"""Sections of an experiment file that contradict each other: each rule refuses one pair, with its reason.

A rule is a function from a plan to a `Contradiction`, or to None where all is well, under `@rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from services.errors import UsageError
from services.experiment.data import PARAMETERS

if TYPE_CHECKING:
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
