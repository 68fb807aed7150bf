"""The server's side of differential privacy: what has been spent on whose data, and noise on the average.

What a round spends is written before the round begins, so that nothing that happens to the server can make it forget.
Steps are told apart by the data they were taken on. A dealt index set belongs to a seat, whoever sits on it; images
change seats when the data set is dealt to another number of clients, so from then on every seat is charged with a bound
on what any seat had spent. A site's own data are charged to its name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from declearn import messaging
from declearn.aggregator import ModelUpdates
from declearn.model.api import Vector
from declearn.model.sklearn import NumpyVector

from services import randomness
from services.accounting import Budget, Steps, envelope, merged
from services.errors import DataError
from services.experiment import Plan
from services.experiment.privacy import Privacy
from services.paths import write_atomic
from services.server.checkpoint import LEDGER
from services.server.inspection import is_number
from services.server.membership import Seat
from services.server.results import RunFolder
from services.transport.messages import SpendingQuery, SpendingReply
from services.transport.refusals import one_line
from services.transport.server import ServerEndpoint

SPENDING_TIMEOUT = 600.0
"""Seconds a client has to tell what a round costs; with `pld` on a busy machine it is a minute."""

SPENT = "the privacy budget is spent"

logger = logging.getLogger("fed.server")


@dataclasses.dataclass
class Ledger:
    """What was spent, and on what.

    Attributes:
        before: steps of earlier deals, which count for every seat.
        size: number of clients in this deal; 0 before the first.
        seats: steps of this deal, by seat.
        sites: steps on a site's own data, by the site's name.
        rounds: with central privacy, the noised averages that were given out.
    """

    before: list[Steps] = dataclasses.field(default_factory=list)
    size: int = 0
    seats: dict[int, list[Steps]] = dataclasses.field(default_factory=dict)
    sites: dict[str, list[Steps]] = dataclasses.field(default_factory=dict)
    rounds: list[Steps] = dataclasses.field(default_factory=list)

    def of(self, name: str, seat: Seat | None) -> tuple[list[Steps], list[Steps]]:
        """Give what was spent on the data that `name` holds: in earlier deals, and in this one."""
        if seat is None:
            return [], list(self.sites.get(name, ()))
        if seat.size != self.size:
            return [*self.before, *envelope(self.seats.values())], []
        return list(self.before), list(self.seats.get(seat.seat, ()))

    def add(self, name: str, seat: Seat | None, steps: Steps) -> None:
        """Charge the data that `name` holds with steps that are about to be taken."""
        if seat is None:
            _append(self.sites.setdefault(name, []), steps)
            return
        if seat.size != self.size:
            self.before = list(merged([*self.before, *envelope(self.seats.values())]))
            self.size, self.seats = seat.size, {}
        _append(self.seats.setdefault(seat.seat, []), steps)

    def all(self) -> list[tuple[Steps, ...]]:
        """List what was spent on each part of the data."""
        seats = [merged([*self.before, *steps]) for steps in self.seats.values()]
        return [*(seats or [merged(self.before)]), *(merged(steps) for steps in self.sites.values())]

    def dump(self) -> str:
        """Write it as the text that `read` takes."""
        content = {
            "before": _plain(self.before),
            "size": self.size,
            "seats": {str(seat): _plain(steps) for seat, steps in self.seats.items()},
            "sites": {name: _plain(steps) for name, steps in self.sites.items()},
            "rounds": _plain(self.rounds),
        }
        return json.dumps(content, indent=1) + "\n"


def read(folder: Path) -> Ledger:
    """Read the ledger of the run in `folder`; an empty one where nothing was spent yet.

    Raises:
        DataError: it is damaged: what was spent can't be told.
    """
    path = folder / LEDGER
    try:
        content = json.loads(path.read_bytes())
        return Ledger(
            before=_steps(content["before"]),
            size=int(content["size"]),
            seats={int(seat): _steps(steps) for seat, steps in content["seats"].items()},
            sites={name: _steps(steps) for name, steps in content["sites"].items()},
            rounds=_steps(content["rounds"]),
        )
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(
            f"{path} can't be used ({type(exc).__name__}), so that nobody can tell what privacy was spent",
            "the ledger that this run wrote",
            "begin a new run with FRESH=1 (`fed server --fresh`), if what was spent may be spent again",
        ) from exc


class _Accounts:
    """What both kinds share: the ledger, its file, and the figures that are told of it."""

    def __init__(self, privacy: Privacy, folder: RunFolder) -> None:
        self.privacy = privacy
        self.budget = Budget(privacy.epsilon, privacy.delta, privacy.accountant)
        self.ledger = read(folder.path)
        self.epsilons: dict[str, float] = {}
        self.epsilon = 0.0
        self._folder = folder

    def _write(self) -> None:
        write_atomic(self._folder.path / LEDGER, self.ledger.dump())

    def spent(self) -> float:
        """Tell the epsilon of the data that most was spent on; takes a while."""
        return max((self.budget.spent(steps) for steps in (*self.ledger.all(), tuple(self.ledger.rounds))), default=0.0)

    def summary(self) -> dict[str, Any]:
        """Tell what `summary.json` says of privacy."""
        noises = [steps.noise for part in (*self.ledger.all(), self.ledger.rounds) for steps in part]
        return {
            "kind": self.privacy.kind,
            "epsilon": self.privacy.epsilon,
            "epsilon_spent": self.spent(),
            "delta": self.privacy.delta,
            "noise_multiplier": min(noises, default=None),
        }


class SamplePrivacy(_Accounts):
    """Accounts for the DP-SGD of clients, which noise their own gradients.

    Args:
        plan: with a section `privacy` of kind `sample`.
        netwk: where the clients are.
        folder: of the run.
    """

    def __init__(self, plan: Plan, netwk: ServerEndpoint, folder: RunFolder) -> None:
        assert plan.privacy is not None  # noqa: S101 - the caller looked
        super().__init__(plan.privacy, folder)
        self._plan = plan
        self._netwk = netwk
        self._planned: dict[str, Steps] = {}
        self._told: set[str] = set()
        self._names: list[str] = []
        self._seats: dict[str, Seat] = {}
        self._counting: asyncio.Task[None] | None = None

    def request(self) -> messaging.PrivacyRequest:
        """Make the request that declearn's server sends after the model."""
        train = self._plan.train
        return messaging.PrivacyRequest(
            budget=(self.privacy.epsilon, self.privacy.delta),
            sclip_norm=self.privacy.max_grad_norm,
            accountant=self.privacy.accountant,
            use_csprng=True,
            seed=None,
            rounds=self._plan.rounds,
            batches={"batch_size": train.batch_size, "poisson": True},
            n_epoch=train.epochs,
            n_steps=train.steps,
        )

    async def within_budget(self, names: list[str], seats: Mapping[str, Seat], number: int) -> list[str]:
        """Ask who can pay for round `number`; those who can't are told of once."""
        queries = {}
        for name in names:
            before, since = self.ledger.of(name, seats.get(name))
            queries[name] = SpendingQuery(number, _plain(before), _plain(since))
        answers = await self._netwk.ask(queries, SpendingReply, SPENDING_TIMEOUT)
        self._planned = {}
        for name, reply in answers.replies.items():
            numbers = is_number(reply.rate) and is_number(reply.noise) and isinstance(reply.steps, int)
            if numbers and 0 < reply.rate <= 1 and reply.noise >= 0 and reply.steps >= 0:
                self._planned[name] = Steps(float(reply.rate), float(reply.noise), int(reply.steps))
            else:
                logger.warning("%s told of steps that can't be: %s", name, one_line(reply))
        for name, loss in answers.losses.items():
            logger.warning("%s did not tell what round %d costs: %s", name, number, loss.reason)
        for name, steps in self._planned.items():
            if steps.count == 0 and name not in self._told:
                self._told.add(name)
                line = f"{name} takes no further part: {SPENT}"
                self._folder.add_event(number, "spent", name, SPENT, line=line)
        return [name for name in names if name in self._planned and self._planned[name].count > 0]

    def all_spent(self) -> bool:
        """Tell whether the budget of every client that was asked is spent."""
        return bool(self._planned) and all(steps.count == 0 for steps in self._planned.values())

    async def begin(self, names: list[str], seats: Mapping[str, Seat]) -> None:
        """Charge what the round that now begins will spend, before it does.

        Raises:
            StorageError: the ledger can't be written.
        """
        for name in names:
            self.ledger.add(name, seats.get(name), self._planned[name])
        await asyncio.to_thread(self._write)
        self._names, self._seats = names, dict(seats)
        self._counting = asyncio.create_task(asyncio.to_thread(self._count))

    async def counted(self) -> None:
        """Wait for `epsilons` and `epsilon` of the round, which are computed while it goes on."""
        if self._counting is not None:
            await self._counting

    def _count(self) -> None:
        for name in self._names:
            before, since = self.ledger.of(name, self._seats.get(name))
            self.epsilons[name] = self.budget.spent([*before, *since])
        self.epsilon = max(self.epsilon, self.spent())


def _clipped(update: Vector[Any], limit: float) -> Vector[Any] | None:
    """Scale an update down to the norm `limit`; None for one that has no finite norm, which counts as nothing."""
    norm = math.sqrt(
        sum(float(np.sum(np.square(np.asarray(part), dtype=np.float64))) for part in update.coefs.values())
    )
    return update * min(1.0, limit / max(norm, 1e-30)) if math.isfinite(norm) else None


def _append(steps: list[Steps], more: Steps) -> None:
    """Add steps at the end, to the last ones where they are alike."""
    if steps and (steps[-1].rate, steps[-1].noise) == (more.rate, more.noise):
        steps[-1] = Steps(more.rate, more.noise, steps[-1].count + more.count)
    else:
        steps.append(more)


def _plain(steps: Iterable[Steps]) -> list[list[float]]:
    return [[each.rate, each.noise, each.count] for each in steps]


def _steps(content: Iterable[Any]) -> list[Steps]:
    return [Steps(float(rate), float(noise), int(count)) for rate, noise, count in content]


class CentralPrivacy(_Accounts):
    """Clips each client's update and adds noise to their average, and accounts for it round by round.

    Every client counts alike, and how many took part is no secret: what is hidden is what one of them sent. No round is
    cheaper for leaving clients out, since the results tell who took part.

    Args:
        plan: with a section `privacy` of kind `central`.
        folder: of the run.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        assert plan.privacy is not None  # noqa: S101 - the caller looked
        super().__init__(plan.privacy, folder)
        self._rounds = plan.rounds
        self._noise: float | None = None
        self._spent = False
        self._names: list[str] = []

    async def within_budget(self, names: list[str], _seats: Mapping[str, Seat], _number: int) -> list[str]:
        """Give all names where the budget allows for another round, else none."""
        return names if await asyncio.to_thread(self._affords) else []

    def all_spent(self) -> bool:
        """Tell whether the budget was spent when `within_budget` last looked."""
        return self._spent

    async def begin(self, names: list[str], _seats: Mapping[str, Seat]) -> None:
        """Take note of who takes part; what a round spends is charged when its average is given out."""
        self._names = names

    async def counted(self) -> None:
        """Compute `epsilons` and `epsilon` of the round."""
        self.epsilon = await asyncio.to_thread(self.spent)
        self.epsilons = dict.fromkeys(self._names, self.epsilon)

    def noised(self, replies: Mapping[str, messaging.TrainReply]) -> dict[str, messaging.TrainReply]:
        """Turn all clients' updates into one: clipped, averaged and noised; charged before it is given out.

        Returns:
            What takes the place of the clients' replies.

        Raises:
            StorageError: the ledger can't be written.
        """
        steps = self._round()
        assert steps is not None  # noqa: S101 - `within_budget` comes first
        _append(self.ledger.rounds, steps)
        self._write()
        limit = self.privacy.max_grad_norm
        clipped = [_clipped(reply.updates.updates / reply.updates.weights, limit) for reply in replies.values()]
        shapes = next(iter(replies.values())).updates.updates.shapes()
        noise = {name: randomness.normal(shape, steps.noise * limit) for name, shape in shapes.items()}
        # the noise last: a sum of vectors is of the kind of its first
        average: Any = sum([update for update in clipped if update is not None] + [NumpyVector(noise)]) / len(replies)
        longest = max(replies.values(), key=lambda reply: reply.t_spent)
        return {"aggregated": dataclasses.replace(longest, updates=ModelUpdates(average, 1), aux_var={})}

    def _affords(self) -> bool:
        steps = self._round()
        self._spent = steps is None or self.budget.affordable(self.ledger.rounds, steps) == 0
        return not self._spent

    def _round(self) -> Steps | None:
        """Give what one round costs: the noise of the rounds before, or the least that all rounds keep to."""
        if self.ledger.rounds:
            return Steps(1.0, self.ledger.rounds[-1].noise, 1)
        if self._noise is None:
            self._noise = self.budget.noise((), 1.0, self._rounds)
        return None if self._noise is None else Steps(1.0, self._noise, 1)
