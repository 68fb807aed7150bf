"""What a round leaves in the tables: of each client, of all of them together, and what further metrics tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from declearn.messaging import EvaluationReply, TrainReply
from declearn.metrics import Metric, MetricSet

from services.server.membership import Seat
from services.tables import ALL, ClientRound, Measure
from services.transport.server import Loss, Traffic

ACCURACY = "multi-classif"
"""declearn's metric that tells the accuracy; the clients always compute it."""


class Recorder:
    """Turns replies into rows.

    Args:
        metrics: what the clients compute.
        wanted: names of the metrics that metrics.csv is to tell.
        hidden: replies can be read as a sum alone, so that there is nothing to tell of one client's figures.
    """

    def __init__(self, metrics: MetricSet, wanted: Collection[str], *, hidden: bool) -> None:
        self._metrics = metrics
        self._wanted = wanted
        self._hidden = hidden

    def accuracy(self) -> float | None:
        """Tell the accuracy in the states that were set last; None where they count no image: nobody shares them."""
        found = [metric for metric in self._metrics.metrics if metric.name == ACCURACY and _counts(metric)]
        return float(found[0].get_result()["accuracy"]) if found else None

    def measures(self, number: int, client: str = ALL) -> list[Measure]:
        """Tell what the wanted metrics say in the states that were set last.

        Args:
            number: of the round.
            client: whose states they are.
        """
        return [
            Measure(number, client, f"{metric.name}.{key}", value)
            for metric in self._metrics.metrics
            if metric.name in self._wanted and _counts(metric)
            for key, value in _scalars(metric, by_class=client == ALL)
        ]

    def client(
        self,
        number: int,
        name: str,
        seat: Seat | None,
        trained: TrainReply | None,
        evaluated: EvaluationReply | None,
        loss: Loss | None,
        traffic: Traffic,
    ) -> tuple[ClientRound, list[Measure]]:
        """Make the rows of one client in one round.

        Args:
            number: of the round.
            name: of the client.
            seat: that it holds, or None for a site with its own data.
            trained: its reply to training, or None where there is none.
            evaluated: its reply to evaluation, or None where there is none.
            loss: why it did not finish the round, or None.
            traffic: what was exchanged with it in the round.
        """
        hidden = self._hidden
        accuracy, measures = None, []
        if evaluated is not None and not hidden and evaluated.metrics:
            self._metrics.reset()
            self._metrics.set_states({key: state for key, state in evaluated.metrics.items() if key != "loss"})
            accuracy, measures = self.accuracy(), self.measures(number, name)
        row = ClientRound(
            round=number,
            client=name,
            size=None if seat is None else seat.size,
            seat=None if seat is None else seat.seat,
            state="trained" if loss is None else loss.kind,
            reason="" if loss is None else loss.reason,
            steps=None if trained is None or hidden else trained.n_steps,
            train_s=None if trained is None else trained.t_spent,
            eval_s=None if evaluated is None else evaluated.t_spent,
            loss=None if evaluated is None or hidden else evaluated.loss,
            accuracy=accuracy,
            bytes_sent=traffic.sent,
            bytes_received=traffic.received,
        )
        return row, measures

    def idle(self, number: int, name: str, seat: Seat | None) -> ClientRound:
        """Make the row of a client that was there and had no part in a round."""
        row, _ = self.client(number, name, seat, None, None, Loss("idle", "not drawn"), Traffic())
        return row


def _counts(metric: Metric[Any]) -> bool:
    """Tell whether a metric has seen any image: its states are not those that it begins with."""
    found, empty = (vars(states) for states in (metric.get_states(), metric.build_initial_states()))
    return any(not np.array_equal(found[key], empty[key]) for key in empty)


def _scalars(metric: Metric[Any], *, by_class: bool) -> list[tuple[str, float]]:
    """List a metric's numbers by name; those of each class, where it has such, as `name.class`."""
    found: list[tuple[str, float]] = []
    for key, value in metric.get_result().items():
        array = np.asarray(value)
        if array.ndim == 0:
            found.append((key, float(array)))
        elif array.ndim == 1 and by_class and metric.name == ACCURACY:
            found += [(f"{key}.{number}", float(item)) for number, item in enumerate(array)]
    return found
