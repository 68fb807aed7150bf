"""What a round leaves in the tables beside loss and accuracy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from declearn.messaging import EvaluationReply
from declearn.metrics import MeanMetric

from services.errors import DistrustError, ExperimentError
from services.experiment import Plan
from services.paths import Paths
from services.server.federation import _weighted
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


async def play(federation: Federation, shares: Sequence[bool]) -> list[BaseException | None]:
    """Run a federation of clients that share their metrics, or do not; give what each ended with."""
    async with federation.server() as (_, server):
        clients = [federation.client(number, share_metrics=share) for number, share in enumerate(shares)]
        await server
        ends: list[BaseException | None] = await asyncio.gather(*clients, return_exceptions=True)
        return ends


def test_metrics_are_those_of_the_clients_that_share_them(small: Paths) -> None:
    """A client's loss counts with the others'; its accuracy is its own, and no cell or row tells of it."""
    federation = Federation(small, plan(metrics=METRICS))
    run(play(federation, [True, False]))
    for round_, one, other in zip(
        federation.table("history.csv"),
        federation.table("clients.csv")[::2],
        federation.table("clients.csv")[1::2],
        strict=True,
    ):
        assert (other["client"], other["state"], other["accuracy"]) == ("client_1", "trained", "")
        assert round_["accuracy"] == one["accuracy"] != ""
        losses = sorted(float(row["loss"]) for row in (one, other))
        assert losses[0] < float(round_["loss"]) < losses[1]
    assert {row["client"] for row in federation.table("metrics.csv")} == {"all", "client_0"}


def test_without_any_metrics_cells_are_empty(small: Paths, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody shares them a run goes by its loss alone, says so nowhere else, and has no table of metrics."""
    caplog.set_level("INFO")
    federation = Federation(small, plan(metrics=METRICS, early_stop={"metric": "accuracy", "patience": 1}))
    run(play(federation, [False, False]))
    assert federation.summary["status"] == "completed"
    assert [(row["round"], row["accuracy"]) for row in federation.table("history.csv")] == [("1", ""), ("2", "")]
    assert all(float(row["loss"]) > 0 for row in federation.table("history.csv"))
    assert {row["accuracy"] for row in federation.table("clients.csv")} == {""}
    assert not (small.results / "latest" / "metrics.csv").exists()
    (line,) = [record.getMessage() for record in caplog.records if "round 1/2" in record.getMessage()]
    assert re.fullmatch(r"round 1/2: [\d.]+ s, 2 clients, loss [\d.]+, test accuracy [\d.]+", line)


def test_secure_aggregation_adds_up_what_is_shared(small: Paths) -> None:
    """Under secure aggregation who keeps metrics adds nothing to their sum: the accuracy is that of the others."""
    accuracies = []
    for secagg in ({}, {"secagg": "masking"}):
        federation = Federation(small, plan(metrics=METRICS, **secagg))
        run(play(federation, [True, False]))
        assert federation.summary["status"] == "completed"
        accuracies.append([float(row["accuracy"]) for row in federation.table("history.csv")])
    assert accuracies[1] == pytest.approx(accuracies[0], rel=2e-2)
    federation = Federation(small, plan(rounds=1, secagg="masking"))
    run(play(federation, [False, False]))
    assert [row["accuracy"] for row in federation.table("history.csv")] == [""]


def test_fairness_goes_on_without_a_client_that_shares_the_loss_alone(small: Paths) -> None:
    """Who tells nothing of groups is left out with its reason, and the others are measured."""
    federation = Federation(small, plan(fairness={"algorithm": "monitor", "groups": "class"}))
    ends = run(play(federation, [True, False]))
    assert [type(end) for end in ends] == [type(None), DistrustError]
    assert federation.summary["status"] == "completed"
    (refused,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert refused["client"] == "client_1"
    assert "this client shares the loss alone" in refused["detail"]


def test_a_stock_client_s_loss_has_a_weight() -> None:
    """A loss without metrics, as a stock client that shares none sends it, counts once a step, not as a sum of them."""
    reply = EvaluationReply(loss=0.5, n_steps=4, t_spent=0.0)
    assert _weighted(reply).metrics == {"loss": MeanMetric.state_cls(2.0, 4)}
    whole = EvaluationReply(0.5, 4, 0.0, {"loss": MeanMetric.state_cls(20.0, 40)})
    assert _weighted(whole) is whole
