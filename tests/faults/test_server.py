"""The server dies, is stopped, and goes on with its run, on the real stack."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import QUICK, Stack
from tests.faults.test_clients import plan

pytestmark = pytest.mark.compose


def weights(stack: Stack, run: str) -> list[Any]:
    """Load a run's model."""
    loaded: list[Any] = keras.saving.load_model(stack.results / run / "model.keras").get_weights()
    return loaded


def test_a_killed_server_goes_on_and_ends_as_if_nothing_had_happened(make_stack: Maker) -> None:
    """Killed in a round and restarted by Docker, then stopped and started again: each round once, the same model."""
    stack = make_stack(plan(5, steps=30) | {"deterministic": True})
    stack.up()
    assert stack.wait_server() == 0
    undisturbed = stack.summary["run_id"]

    stack.up()
    stack.until(lambda: stack.summary["run_id"] != undisturbed and stack.rounds >= 1, "round 1")
    server = stack.container("server")
    stack.kill(server)
    stack.until_event("resumed", seconds=60)
    assert int(stack.inspect(server, ".RestartCount")) == 1
    stack.until(lambda: stack.rounds >= 3, "round 3")
    stack.compose("stop")
    assert stack.summary["status"] == "stopped"
    for container in [stack.container("client", number) for number in (1, 2, 3)]:
        assert stack.exit_code(container) == 0
    stack.up()
    assert stack.wait_server() == 0
    stack.check_history(5)
    assert stack.summary["status"] == "completed"
    assert stack.summary["run_id"] != undisturbed
    for first, second in zip(weights(stack, undisturbed), weights(stack, stack.summary["run_id"]), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_another_plan_than_the_unfinished_run_s_is_an_error(make_stack: Maker) -> None:
    """With an unfinished run, another experiment file is code 7 and names the difference and both ways out."""
    stack = make_stack(plan(30))
    stack.up()
    stack.until_round(1)
    stack.compose("stop")
    stack.write_plan(plan(31))
    stack.up()
    assert stack.wait_server() == 7
    run = stack.summary["run_id"]
    said = [line for line in stack.log("server").splitlines() if "unfinished" in line][-1]
    assert said == (
        f"fed server: error: run {run} is unfinished and was begun with rounds 30; wanted rounds 31 as asked now; "
        f"finish it with its own plan (results/{run}/experiment.yml), or begin anew with FRESH=1 (`fed server --fresh`)"
    )
    stack.compose("stop")
    stack.environment["FRESH"] = "1"
    stack.write_plan(plan(2))
    stack.up()
    stack.until(lambda: stack.summary["run_id"] != run, "a new run")
    assert stack.wait_server() == 0


def test_containers_restarted_in_any_order_find_each_other_again(make_stack: Maker) -> None:
    """Each container restarted in turn, server in between, the run goes on to its end."""
    stack = make_stack(plan(12, steps=100, rejoin_grace=60))
    stack.up()
    stack.until_round(1)
    clients = stack.clients()
    stack.docker("restart", clients[2])
    stack.docker("restart", stack.container("server"))
    stack.docker("restart", *clients)
    stack.until(lambda: stack.summary["status"] == "completed", "the end of the run", 240)
    stack.check_history(12)


def test_two_runs_in_sequence_on_kept_volumes_are_two_runs(make_stack: Maker) -> None:
    """A second `up` after a completed run makes a run of its own, with the same figures for the same seed."""
    stack = make_stack(QUICK)
    figures = []
    for _ in range(2):
        stack.up()
        assert stack.wait_server() == 0
        figures.append((stack.summary["run_id"], [row["test_accuracy"] for row in stack.table("history.csv")]))
    assert figures[0][0] != figures[1][0]
    assert figures[0][1] == figures[1][1]


def test_results_that_can_not_be_written_are_one_line_and_lose_nothing(make_stack: Maker) -> None:
    """When the results' disk is full the run ends with code 6 and one line; with room again it goes on."""
    stack = make_stack(plan(8))
    disk = stack.results.parent / "disk"
    stack.mount_disk(disk, megabytes=6)
    try:
        stack.environment["RESULTS"] = str(disk)
        stack.results = disk
        stack.up()
        stack.until_round(1)
        filler = disk / "filler"
        filler.touch()
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        stack.until(lambda: "fed server: error:" in stack.log("server"), "the line")
        line = next(line for line in stack.log("server").splitlines() if "fed server: error:" in line)
        assert "can't be written (No space left on device)" in line
        assert "Traceback" not in stack.log("server")
        rounds = stack.rounds
        assert rounds >= 1
        filler.unlink()
        stack.up()
        stack.until(lambda: stack.summary["status"] == "completed", "the end of the run", 180)
        stack.check_history(8)
    finally:
        stack.compose("down", "--volumes", "--timeout", "3", check=False)
        stack.unmount(disk)
