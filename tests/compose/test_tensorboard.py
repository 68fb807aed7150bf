"""TensorBoard beside a run: reached from this host, with the curves of the server and of each client."""

from __future__ import annotations

import http.client
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, needed
from tests.compose.conftest import Maker, stacks
from tests.compose.stack import QUICK, Stack, free_port
from tests.support import deadline

pytestmark = pytest.mark.compose


def ask(stack: Stack, path: str, **query: str) -> Any:
    """Ask TensorBoard for JSON; nothing while it does not answer."""
    port, words = stack.environment["TENSORBOARD_PORT"], urllib.parse.urlencode(query)
    address = f"http://127.0.0.1:{port}/{path}?{words}"
    try:
        with urllib.request.urlopen(address, timeout=deadline(10)) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException):
        return {}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str]]:
    """Run two clients beside TensorBoard, to the end, and give the run's id once its pictures are there."""
    with stacks("tensorboard", tmp_path_factory.mktemp("tensorboard")) as make:
        stack = make(QUICK, CLIENTS=2, COMPOSE_PROFILES="monitor", TENSORBOARD_PORT=free_port())
        stack.up()
        assert stack.wait_server() == 0
        run_id = stack.summary["run_id"]
        stack.until(lambda: f"{run_id}/server" in ask(stack, "data/plugin/images/tags"), "the end of the run")
        yield stack, run_id


def test_curves_of_server_and_clients_are_there(ended: tuple[Stack, str]) -> None:
    """A run's curves, histograms and pictures are in TensorBoard, each client's with the figures of its table."""
    stack, run_id = ended
    server, *clients = runs = [f"{run_id}/{name}" for name in ("server", "client_0", "client_1")]
    assert sorted(ask(stack, "data/runs")) == sorted(runs)
    tags = ask(stack, "data/plugin/scalars/tags")
    assert {"curves/loss", "curves/test_accuracy", "time/overhead_s", "final/test_accuracy"} < set(tags[server])
    for run in clients:
        assert set(tags[run]) == {"curves/loss", "curves/accuracy", "time/train_s"}
        points = ask(stack, "data/plugin/scalars/scalars", run=run, tag="curves/loss")
        rows = [row for row in stack.table("clients.csv") if f"{run_id}/{row['client']}" == run]
        assert [step for _, step, _ in points] == [int(row["round"]) for row in rows] == [1, 2, 3]
        assert [value for *_, value in points] == pytest.approx([float(row["loss"]) for row in rows], rel=1e-4)
    assert set(ask(stack, "data/plugin/images/tags")[server]) == {"final/confusion", "final/mistakes"}
    assert "weights/classes/kernel" in ask(stack, "data/plugin/histograms/tags")[server]


@needed
def test_a_person_sees_them_in_a_browser(ended: tuple[Stack, str]) -> None:
    """In Chromium the server and each client stand by the run's id, each with a line in the chart of accuracy."""
    stack, run_id = ended
    wait = 1000 * deadline(90)
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1500, "height": 900})
        page.goto(f"http://127.0.0.1:{stack.environment['TENSORBOARD_PORT']}/#scalars")
        for name in ("server", "client_0", "client_1"):
            page.get_by_text(f"{run_id}/{name}", exact=True).first.wait_for(timeout=wait)
        lines = page.locator("tf-scalar-card").filter(has_text="curves/accuracy").locator("path.line")

        def colours() -> set[str]:
            return set(lines.evaluate_all("lines => lines.map(line => line.getAttribute('stroke'))"))

        stack.until(lambda: len(colours()) == 3, "a line of a colour of its own for the server and each client")
        if folder := os.environ.get("FED_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "tensorboard.png")


def test_it_says_that_it_is_well(ended: tuple[Stack, str]) -> None:
    """Docker's health check of it passes."""
    stack, _ = ended
    stack.until(
        lambda: stack.inspect(stack.container("tensorboard"), ".State.Health.Status") == "healthy", "its health"
    )


def test_a_second_run_comes_beside_the_first(ended: tuple[Stack, str]) -> None:
    """A run that begins while TensorBoard is there is there soon, under its id; `latest` never is."""
    stack, run_id = ended
    stack.up()
    stack.until(lambda: stack.summary["run_id"] != run_id, "a run of its own")
    second = f"{stack.summary['run_id']}/server"
    stack.until(lambda: second in ask(stack, "data/runs"), "the second run in TensorBoard")
    assert {run.split("/")[0] for run in ask(stack, "data/runs")} == {run_id, stack.summary["run_id"]}


def test_nobody_who_does_not_ask_for_it_has_it(make_stack: Maker) -> None:
    """Without the profile neither the service nor its image is a part of what is built and started."""
    stack = make_stack()
    assert "tensorboard" not in stack.compose("config", "--services").stdout
    assert "tensorboard" not in stack.compose("config", "--images").stdout
