"""What a round leaves in the tables beside loss and accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import ExperimentError
from services.experiment import Plan
from services.paths import Paths
from services.server.model import build_metrics
from tests.federation import Federation, plan, run

METRICS: list[Any] = [
    "multi-classif",
    {"binary-classif": {"label": 3}},
    {"binary-roc": {"bound": [0, 1]}},
    "mae",
    "mse",
    "r2",
]
SCALARS = {
    "multi-classif.accuracy",
    "binary-classif.accuracy",
    "binary-classif.precision",
    "binary-classif.recall",
    "binary-classif.f-score",
    "binary-roc.roc_auc",
    "mae.mae",
    "mse.mse",
    "r2.r2",
}


def test_metrics_are_told_of_each_client_and_of_all(small: Paths) -> None:
    """Every metric that the plan names has a row a figure, for each client, and for all with those of each class."""
    federation = Federation(small, plan(metrics=METRICS))
    run(federation.play())
    rows = federation.table("metrics.csv")
    assert {row["round"] for row in rows} == {"1", "2"}
    for client in ("client_0", "client_1"):
        assert {row["metric"] for row in rows if row["client"] == client} == SCALARS
    by_class = {
        f"multi-classif.{figure}.{label}" for figure in ("precision", "recall", "f-score") for label in range(10)
    }
    assert {row["metric"] for row in rows if row["client"] == "all"} == SCALARS | by_class
    accuracy = {row["round"]: row["accuracy"] for row in federation.table("history.csv")}
    told = {
        row["round"]: row["value"]
        for row in rows
        if row["client"] == "all" and row["metric"] == "multi-classif.accuracy"
    }
    assert told == accuracy, "that of the model, not that of one class against the rest"


def test_a_resumed_run_keeps_its_metrics(small: Paths) -> None:
    """Rows of rounds before the restart are still there, once each."""
    federation = Federation(small, plan(rounds=3, metrics=["mse"]))
    run(federation.play(stop_before=3))
    rows = [(row["round"], row["client"]) for row in federation.table("metrics.csv")]
    assert sorted(rows) == sorted((number, who) for number in "123" for who in ("all", "client_0", "client_1"))


def test_under_secure_aggregation_there_are_figures_of_all_alone(small: Paths) -> None:
    """What can be summed is told of all; of one client there is nothing to tell."""
    federation = Federation(small, plan(secagg="masking", metrics=METRICS))
    run(federation.play())
    rows = federation.table("metrics.csv")
    assert {row["client"] for row in rows} == {"all"}
    assert {row["metric"] for row in rows} > SCALARS


def test_without_metrics_there_is_no_table(small: Paths) -> None:
    """A plan that asks for none leaves no metrics.csv."""
    federation = Federation(small, plan(rounds=1))
    run(federation.play())
    assert not (small.results / "latest" / "metrics.csv").exists()


def test_a_class_that_the_model_does_not_tell_is_refused() -> None:
    """A label beyond the model's classes is refused before anybody trains."""
    with pytest.raises(ExperimentError) as caught:
        build_metrics(Plan.model_validate({"metrics": [{"binary-roc": {"label": 7}}]}), 5)
    assert str(caught.value) == "label of binary-roc is 7; wanted one of the classes 0 to 4; correct metrics"
