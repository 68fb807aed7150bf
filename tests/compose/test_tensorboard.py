"""TensorBoard beside a run: reached from this host, with the curves of the server and of each client."""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import QUICK, Stack, free_port
from tests.support import deadline

pytestmark = pytest.mark.compose


def ask(stack: Stack, path: str, **query: str) -> Any:
    """Ask TensorBoard for JSON; None while it does not answer."""
    address = f"http://127.0.0.1:{stack.environment['TENSORBOARD_PORT']}/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(address, timeout=deadline(10)) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException):
        return None


def test_curves_of_server_and_clients_are_there(make_stack: Maker) -> None:
    """With profile monitor a run's curves, histograms, pictures and settings are in TensorBoard, under its id alone."""
    stack = make_stack(QUICK, CLIENTS=2, COMPOSE_PROFILES="monitor", TENSORBOARD_PORT=free_port())
    stack.up()
    assert stack.wait_server() == 0
    run_id = stack.summary["run_id"]
    server, *clients = runs = [f"{run_id}/{name}" for name in ("server", "client_0", "client_1")]

    def whole() -> bool:
        return server in (ask(stack, "data/plugin/images/tags") or {})

    stack.until(whole, "the end of the run in TensorBoard")
    assert sorted(ask(stack, "data/runs")) == sorted(runs)
    tags = ask(stack, "data/plugin/scalars/tags")
    assert {"curves/loss", "curves/test_accuracy", "time/overhead_s", "final/test_accuracy"} < set(tags[server])
    for run in clients:
        assert set(tags[run]) == {"curves/loss", "curves/accuracy", "time/train_s"}
        points = ask(stack, "data/plugin/scalars/scalars", run=run, tag="curves/loss")
        losses = [row["loss"] for row in stack.table("clients.csv") if f"{run_id}/{row['client']}" == run]
        assert [(step, f"{value:.4g}") for _, step, value in points] == [
            (number, f"{float(loss):.4g}") for number, loss in enumerate(losses, start=1)
        ]
    assert set(ask(stack, "data/plugin/images/tags")[server]) == {"final/confusion", "final/mistakes"}
    assert "weights/classes/kernel" in ask(stack, "data/plugin/histograms/tags")[server]
    stack.until(
        lambda: stack.inspect(stack.container("tensorboard"), ".State.Health.Status") == "healthy", "its health check"
    )
    # a second run comes without a restart, and `latest` never does
    stack.up()
    stack.until(lambda: stack.summary["run_id"] != run_id, "a run of its own")
    second = f"{stack.summary['run_id']}/server"
    stack.until(lambda: second in (ask(stack, "data/runs") or ()), "the second run in TensorBoard")
    assert {run.split("/")[0] for run in ask(stack, "data/runs")} == {run_id, stack.summary["run_id"]}


def test_nobody_who_does_not_ask_for_it_has_it(make_stack: Maker) -> None:
    """Without the profile neither the service nor its image is a part of what is built and started."""
    stack = make_stack()
    assert "tensorboard" not in stack.compose("config", "--services").stdout
    assert "tensorboard" not in stack.compose("config", "--images").stdout
