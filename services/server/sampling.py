"""Who takes part in a round: declearn's client samplers, which draw from those that are there and draw the same again.

Each draw has a generator of its own, seeded by the run's seed and the round, so that no state of it has to be kept;
what a criterion has learned of clients is kept in the checkpoint.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from declearn.aggregator import ModelUpdates
from declearn.client_sampler import (
    ClientSampler,
    CompositionClientSampler,
    CriterionClientSampler,
    DefaultClientSampler,
    UniformClientSampler,
    WeightedClientSampler,
)
from declearn.client_sampler.criterion import (
    CompositionCriterion,
    Criterion,
    TrainTimeHistoryCriterion,
    instantiate_criterion,
)
from declearn.messaging import TrainReply
from declearn.model.api import Model

from services.experiment import Plan
from services.server.attendance import derived_seed
from services.server.membership import natural


class _InOrder(set[str]):
    """Names that are gone through in the order in which people count: upstream draws from them in a set's own."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), key=natural))


class _Uniform(UniformClientSampler, register=False):
    """`UniformClientSampler` whose draw a seed fixes. Overrides `sample`."""

    def sample(self, eligible_clients: set[str]) -> set[str]:
        return set(super().sample(_InOrder(eligible_clients)))


class _Weighted(WeightedClientSampler, register=False):
    """`WeightedClientSampler` whose draw a seed fixes, and for which a client without a weight has 1.

    Overrides `sample`, and `init_clients`, where upstream fails with a client that it has no weight for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.client_to_weight = collections.defaultdict(lambda: 1.0, self.client_to_weight)

    def init_clients(self, clients: set[str]) -> None:
        ClientSampler.init_clients(self, clients)

    def sample(self, eligible_clients: set[str]) -> set[str]:
        return set(super().sample(_InOrder(eligible_clients)))


class _ByCriterion(CriterionClientSampler, register=False):
    """`CriterionClientSampler` that takes the lowest name where scores are equal.

    Overrides `convert_missing_scores`, which upstream gives in the order in which clients came.
    """

    def convert_missing_scores(self) -> dict[str, float]:
        scores = super().convert_missing_scores()
        return {name: scores[name] for name in sorted(scores, key=natural)}


class Draw:
    """Draws the clients of each round.

    Args:
        plan: of it `sampling`, `seed` and `deterministic` count here.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sampler = _sampler(plan.sampling.model_dump())
        self._leaves = list(_leaves(self._sampler))

    def draw(self, ready: Iterable[str], number: int, attempt: int = 0) -> list[str]:
        """Draw from those who are there.

        Args:
            ready: who can take part.
            number: of the round.
            attempt: how often the round has failed; a deterministic run draws the same nevertheless.

        Returns:
            Those drawn, in the order of their names.
        """
        names = set(ready)
        new = names - self._sampler.clients
        if new:
            self._sampler.init_clients(new)
        for place, leaf in enumerate(self._leaves):
            seed = self._plan.seed if getattr(leaf, "seed", None) is None else leaf.seed
            again = 0 if self._plan.deterministic else attempt
            leaf._rng = np.random.default_rng(derived_seed(seed, number, place, again))  # noqa: SLF001 - no setter
        return sorted(self._sampler.run(names), key=natural)

    def learn(self, replies: Mapping[str, TrainReply], model: Model[Any]) -> None:
        """Let criteria take note of a round's replies, before the model changes."""
        if any(isinstance(leaf, CriterionClientSampler) for leaf in self._leaves):
            # as an update, where clients send it times its weight
            alike = {
                name: dataclasses.replace(reply, updates=ModelUpdates(reply.updates.updates / reply.updates.weights, 1))
                for name, reply in replies.items()
            }
            self._sampler.update(alike, model)

    def state(self) -> dict[str, Any]:
        """Tell what the next draw depends on."""
        return {
            "clients": sorted(self._sampler.clients),
            "criteria": [
                {
                    "scores": dict(leaf.client_to_score),
                    "times": [dict(criterion.history) for criterion in _timed(leaf.criterion)],
                }
                for leaf in self._leaves
                if isinstance(leaf, CriterionClientSampler)
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` told."""
        if state["clients"]:
            self._sampler.init_clients(set(state["clients"]))
        leaves = [leaf for leaf in self._leaves if isinstance(leaf, CriterionClientSampler)]
        for leaf, kept in zip(leaves, state["criteria"], strict=True):
            leaf.client_to_score.update(kept["scores"])
            for criterion, times in zip(_timed(leaf.criterion), kept["times"], strict=True):
                criterion.history.update(times)


def _sampler(spec: Mapping[str, Any]) -> ClientSampler:
    """Make a sampler of its name and parameters."""
    given = dict(spec.get("parameters", {}))
    match spec["name"]:
        case "default":
            return DefaultClientSampler()
        case "uniform":
            return _Uniform(**given)
        case "weighted":
            return _Weighted(**given)
        case "criterion":
            return _ByCriterion(**given | {"criterion": _criterion(given["criterion"])})
        case _:
            return CompositionClientSampler([_sampler(inner) for inner in given["samplers"]])


def _criterion(spec: Mapping[str, Any]) -> Criterion:
    """Make a criterion of its name and parameters."""
    given = dict(spec.get("parameters", {}))
    if spec["name"] == "composition":
        return CompositionCriterion(given["operation"], *map(_criterion, given["parents"]))
    return instantiate_criterion(spec["name"], **given)


def _leaves(sampler: ClientSampler) -> Iterator[Any]:
    """Go through the samplers that a composition comes to."""
    if isinstance(sampler, CompositionClientSampler):
        for inner in sampler.samplers:
            yield from _leaves(inner)
    else:
        yield sampler


def _timed(criterion: Criterion) -> Iterator[TrainTimeHistoryCriterion]:
    """Go through the criteria that remember."""
    if isinstance(criterion, CompositionCriterion):
        for parent in criterion.parents:
            yield from _timed(parent)
    elif isinstance(criterion, TrainTimeHistoryCriterion):
        yield criterion
