"""Ending a run before its last round: declearn's rule, fed from the history."""

from __future__ import annotations

import math
from collections.abc import Iterable

from declearn.main.utils import EarlyStopping

from services.experiment.methods import EarlyStop
from services.tables import Round


class _Rule(EarlyStopping):
    """`EarlyStopping` that can't divide by zero.

    Overrides `update`, which upstream lets fail where `relative` meets a best value of 0; the improvement itself then
    counts. A round without the figure changes nothing; upstream would take NaN for the best value ever after.
    """

    def update(self, metric: float) -> bool:
        if math.isnan(metric):
            return self.keep_training
        relative = self.relative
        try:
            best = self._best_metric if self._best_metric is not None else metric
            better = max if not self.decrease else min
            self.relative = relative and better(best, metric) != 0
            return bool(super().update(metric))
        finally:
            self.relative = relative


def reason_to_stop(spec: EarlyStop, rounds: Iterable[Round]) -> str | None:
    """Tell why a run ends after the last of `rounds`, or None where it goes on.

    It depends on the history alone, so that a resumed run stops where an uninterrupted one does.

    Args:
        spec: section `early_stop` of the plan.
        rounds: all rounds so far.
    """
    if spec.patience is None:
        return None
    decrease = "loss" in spec.metric if spec.decrease is None else spec.decrease
    rule = _Rule(spec.tolerance, spec.patience, decrease, spec.relative)
    number = 0
    for row in rounds:
        number = row.round
        figure = getattr(row, spec.metric)
        rule.update(math.nan if figure is None else figure)
    if rule.keep_training:
        return None
    enough = f" by more than {spec.tolerance:g}{' of the best' if spec.relative else ''}" if spec.tolerance else ""
    return f"early stop at round {number}: {spec.metric} did not improve{enough} in {spec.patience} rounds"
