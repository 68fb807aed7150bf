"""Rates that change with time: overrides of declearn's optimizer and of two of its schedulers.

A rate is that of the step and the round for which it is used. Upstream draws it one step ahead: a round's first step
has the rate of the round before, the very first one that of round -1, and an optimizer that takes up a state the rate
of its making. Configurations and states are upstream's, so that what goes over the wire is too.
"""

from __future__ import annotations

from typing import Any

from declearn.optimizer import Optimizer
from declearn.optimizer.schedulers import CosineAnnealingWarmRestarts, InverseScaling, Scheduler
from declearn.utils._register import REGISTRIES


class _InverseScaling(InverseScaling, register=False):
    """`InverseScaling` that can be made.

    Overrides `compute_value`: upstream's optimizer asks for the rate of round -1, which is a division by 0.
    """

    def compute_value(self, step: int, round_: int) -> float:
        return float(super().compute_value(step, max(round_, 0)))


class _WarmRestarts(CosineAnnealingWarmRestarts, register=False):
    """`CosineAnnealingWarmRestarts` that restarts by rounds too.

    Overrides `compute_value`, which upstream lets count cycles in steps even if they are of rounds.
    """

    def compute_value(self, step: int, round_: int) -> float:
        unit = step if self.step_level else max(round_, 0)
        self._cosine_annealing.step_level = True
        return float(super().compute_value(unit, unit))


for _kind in (_InverseScaling, _WarmRestarts):
    # under upstream's names: a client makes its optimizer from what the server sends, by name
    REGISTRIES["Scheduler"].register(_kind, _kind.name, repl=True)


class ScheduledOptimizer(Optimizer):
    """`Optimizer` whose rates are those of the step and round in which they are used.

    Overrides `__init__` (upstream counts the making as a step), `lrate`, `w_decay` and `_update_rates`.
    """

    def __init__(self, lrate: Any, w_decay: Any = 0.0, regularizers: Any = None, modules: Any = None) -> None:
        super().__init__(lrate, w_decay, regularizers, modules)
        config = self.get_config()
        self._lrate_scheduler = self._parse_scheduler(config["lrate"])
        self._wrate_scheduler = self._parse_scheduler(config["w_decay"])

    @classmethod
    def of(cls, optimizer: Optimizer) -> ScheduledOptimizer:
        """Make one of the same configuration."""
        return cls(**optimizer.get_config())

    @property
    def lrate(self) -> float:
        """Learning rate of the next step."""
        return _rate(self._lrate_scheduler)

    @property
    def w_decay(self) -> float:
        """Weight decay of the next step."""
        return _rate(self._wrate_scheduler)

    def _update_rates(self) -> None:
        self._lrate_scheduler.get_next_rate()
        self._wrate_scheduler.get_next_rate()

    def reach_round(self, number: int, steps: int) -> None:
        """Let the schedules stand where they do when round `number` is about to start.

        One that has been at work goes on from where it stands, past rounds in which it had no part; a new one is taken
        through all rounds before.

        Args:
            number: of the round, from 1.
            steps: local steps a round.
        """
        for scheduler in (self._lrate_scheduler, self._wrate_scheduler):
            new = scheduler.rounds < 0 and scheduler.steps == 0
            while scheduler.rounds < number - 2:
                scheduler.on_round_start()
                for _ in range(steps if new else 0):
                    scheduler.get_next_rate()

    def start_step(self) -> None:
        """Take note that the server's step of a round begins: to its schedules, a round is one step.

        Regularizers and modules are not told, as upstream's server does not tell them.
        """
        self._lrate_scheduler.on_round_start()
        self._wrate_scheduler.on_round_start()


def _rate(scheduler: Scheduler) -> float:
    return float(scheduler.compute_value(scheduler.steps, max(scheduler.rounds, 0)))
