"""The state of a run in Prometheus' text format, read when it is asked for (https://prometheus.io/docs/practices/naming/).

A collector of its own for each run, without the library's global registry: what it tells is what `View` tells. Counters
count since the run began, those of refusals and bytes since this process began.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

PHASES = (
    "gathering", "preparing", "training", "evaluating", "waiting", "completed", "stopped", "failed",
)  # fmt: skip
"""What a run may be at."""

CLIENT_STATES = (
    "joining", "preparing", "training", "evaluating", "idle", "late", "dropped", "standby", "refused", "gone",
)  # fmt: skip
"""What a client may be at while a run goes on."""

LOSSES = ("gone", "late", "error", "refused")
"""Why a client that began a round did not finish it: kinds of `services.transport.server.Loss`."""


class RunCollector(Collector):
    """Tells the metrics of a run.

    Args:
        snapshot: tells its state as plain values (`services.server.view`).
    """

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Read the state and yield each metric."""
        run = self._snapshot()
        yield InfoMetricFamily("fed_run", "Which run this is.", {"run_id": run["run_id"]})
        yield _gauge("fed_healthy", "1 while the federation can still progress.", run["healthy"])
        yield _states("fed_phase", "1 for what the server is at.", "phase", PHASES, {run["phase"]: 1})
        yield _gauge("fed_rounds_planned", "Rounds that the experiment asks for.", run["rounds_planned"])
        yield _gauge("fed_run_seconds", "Time since the run began, over all processes that served it.", run["seconds"])
        yield from self._of_clients(run)
        yield from self._of_rounds(run["history"])
        refusals = CounterMetricFamily(
            "fed_refusals", "Connections and messages refused, since this process began.", labels=["reason"]
        )
        for reason, count in sorted(run["refusals"].items()):
            refusals.add_metric([reason], count)
        yield refusals

    def _of_clients(self, run: Mapping[str, Any]) -> Iterator[Metric]:
        everybody = [*run["clients"].values(), *run["gone"].values()]
        yield _gauge("fed_clients_wanted", "Clients that the run waited for at its beginning.", run["clients_wanted"])
        yield _states(
            "fed_clients",
            "Clients by what they are at.",
            "state",
            CLIENT_STATES,
            collections.Counter(client["state"] for client in everybody),
        )
        traffic = CounterMetricFamily(
            "fed_bytes", "Bytes of messages, without TLS and framing, since this process began.", labels=["direction"]
        )
        traffic.add_metric(["sent"], sum(client["bytes_sent"] for client in everybody))
        traffic.add_metric(["received"], sum(client["bytes_received"] for client in everybody))
        yield traffic
        drops = CounterMetricFamily("fed_drops", "Clients that did not finish a round, by why.", labels=["reason"])
        for kind in LOSSES:
            drops.add_metric([kind], run["drops"].get(kind, 0))
        yield drops

    @staticmethod
    def _of_rounds(history: Mapping[str, list[Any]]) -> Iterator[Metric]:
        yield CounterMetricFamily("fed_rounds", "Rounds that are complete.", len(history["round"]))
        seconds = CounterMetricFamily(
            "fed_round_seconds", "Wall time of complete rounds, by what the slowest client was at.", labels=["phase"]
        )
        for phase, column in (("training", "train_s"), ("evaluating", "eval_s"), ("overhead", "overhead_s")):
            seconds.add_metric([phase], math.fsum(history[column]))
        yield seconds
        if not history["round"]:
            return
        for name, words in (
            ("loss", "Loss of the latest model."),
            ("accuracy", "Accuracy of the latest model, 0 to 1."),
        ):
            gauge = GaugeMetricFamily(f"fed_{name}", words, labels=["images"])
            for images, column in (("validation", name), ("test", f"test_{name}")):
                value = history[column][-1]
                if value is not None and math.isfinite(value):
                    gauge.add_metric([images], value)
            yield gauge
        epsilon = history["epsilon"][-1]
        if epsilon is not None:
            yield _gauge("fed_privacy_epsilon", "Privacy spent so far, at the plan's delta.", epsilon)


def exposition(snapshot: Callable[[], Mapping[str, Any]]) -> bytes:
    """Give the metrics of a run in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(snapshot))
    return generate_latest(registry)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, float(value))


def _states(name: str, words: str, label: str, known: tuple[str, ...], counts: Mapping[str, int]) -> GaugeMetricFamily:
    """Tell of each known state how many are in it, 0 included, so that no series comes and goes."""
    gauge = GaugeMetricFamily(name, words, labels=[label])
    for state in known:
        gauge.add_metric([state], counts.get(state, 0))
    return gauge
