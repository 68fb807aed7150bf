"""Metrics: what Prometheus is told, in its format and by its conventions."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.paths import Paths
from services.server.metrics import CLIENT_STATES, PHASES, exposition
from services.tables import HISTORY_COLUMNS
from tests.federation import Federation, plan, run
from tests.server.page.test_render import state
from tests.support import REPOSITORY, deadline

PROMTOOL = shutil.which("promtool")


def samples(snapshot: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Parse the metrics of a snapshot; values by name and by the one label's value."""
    text = exposition(lambda: snapshot).decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_fact_of_a_run_is_a_metric() -> None:
    """Phase, rounds, time by what it went into, clients by state, drops, refusals, bytes, loss, accuracy, privacy."""
    history = {column: [1, 2] for column in HISTORY_COLUMNS} | {
        "train_s": [4.0, 2.0], "overhead_s": [0.5, 0.25], "loss": [0.2, 0.1], "test_accuracy": [0.9, 0.96],
        "epsilon": [0.5, 1.25], "accuracy": [0.9, None],
    }  # fmt: skip
    found = samples(state(history=history))
    assert found["fed_run_info", "20261124-064015"] == 1
    assert found["fed_healthy", ""] == 1
    assert {phase: found["fed_phase", phase] for phase in PHASES} == dict.fromkeys(PHASES, 0) | {"training": 1}
    assert found["fed_rounds_total", ""] == 2
    assert found["fed_rounds_planned", ""] == 5
    assert found["fed_round_seconds_total", "training"] == 6
    assert found["fed_round_seconds_total", "overhead"] == 0.75
    counts = {name: found["fed_clients", name] for name in CLIENT_STATES}
    assert counts == dict.fromkeys(CLIENT_STATES, 0) | {"training": 1, "gone": 1}
    assert found["fed_drops_total", "gone"] == 1
    assert found["fed_drops_total", "late"] == 0
    assert found["fed_refusals_total", "a malformed frame"] == 3
    assert found["fed_bytes_total", "sent"] == 860_000
    assert found["fed_loss", "validation"] == 0.1
    assert found["fed_accuracy", "test"] == 0.96
    assert ("fed_accuracy", "validation") not in found, "an average that is not there is no number"
    assert found["fed_privacy_epsilon", ""] == 1.25


def test_before_the_first_round_nothing_is_told_of_a_model() -> None:
    """Without a round there are no figures of a model, and all counters are there at 0."""
    found = samples(state(history={column: [] for column in HISTORY_COLUMNS}))
    assert found["fed_rounds_total", ""] == 0
    assert not [name for name, _ in found if name in {"fed_loss", "fed_accuracy", "fed_privacy_epsilon"}]


def test_names_follow_the_conventions() -> None:
    """Names have our prefix, counters end in _total, times are in seconds, and each has its help and its type."""
    text = exposition(state).decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"fed_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert family.type != "unknown"
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", sample.name)


def test_reasons_with_quotes_and_lines_are_escaped() -> None:
    """Whatever a reason holds, it stays the value of one label."""
    reason = 'a "quoted"\nreason\\'
    assert samples(state(refusals={reason: 2}))["fed_refusals_total", reason] == 2


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed and could not be had")
def test_promtool_finds_nothing_to_complain_of() -> None:
    """`promtool check metrics` takes what is served."""
    assert PROMTOOL is not None
    result = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=exposition(state), capture_output=True, check=False, timeout=deadline(30)
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_a_real_run_is_told(small: Paths) -> None:
    """The metrics of a run that went through are those of its tables."""
    federation = Federation(small, plan())
    found: dict[tuple[str, str], float] = {}

    async def scene() -> None:
        async with federation.server() as (state_, server):
            await asyncio.gather(server, *(federation.client(number) for number in range(2)))
            found.update(samples(state_.view.snapshot()))

    run(scene())
    history = federation.table("history.csv")
    assert found["fed_rounds_total", ""] == len(history) == 2
    assert found["fed_accuracy", "test"] == pytest.approx(float(history[-1]["test_accuracy"]), rel=1e-5)
    assert found["fed_bytes_total", "sent"] >= sum(int(row["bytes_sent"]) for row in history)
    assert found["fed_phase", "completed"] == 1


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed and could not be had")
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_the_example_for_prometheus_works(words: tuple[str, ...]) -> None:
    """The scrape example is valid, and each alert is raised by what it is for and by nothing else."""
    folder = REPOSITORY / "deploy" / "prometheus"
    result = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_alerts_use_metrics_that_there_are() -> None:
    """Each metric that an alert asks for is one that a server tells, or Prometheus' own."""
    rules = (REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    told = {name for name, _ in samples(state())}
    assert set(re.findall(r"\bfed_[a-z_]+", rules)) <= told
