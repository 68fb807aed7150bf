"""The server dies, is stopped, and goes on with its run, on the real stack."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from services.server import checkpoint
from tests import events
from tests.compose.conftest import Maker, stacks
from tests.compose.stack import Stack, plan
from tests.support import deadline

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

ROUNDS = 6
PLAN = plan(ROUNDS, steps=40, quorum_timeout=200, rejoin_grace=60) | {"deterministic": True}
KILL_IN_WRITE = Path(__file__).with_name("kill_in_write.py")


def three(stack: Stack) -> list[str]:
    """Name the client containers."""
    return [stack.container("client", number) for number in (1, 2, 3)]


def weights(stack: Stack, run: str) -> list[Any]:
    """Load a run's model."""
    loaded: list[Any] = keras.saving.load_model(stack.results / run / "model.keras").get_weights()
    return loaded


@dataclasses.dataclass
class Struck:
    """Three runs on one stack: one given up, an undisturbed one, and one whose server died again and again.

    Attributes:
        stack: the stack, after all.
        given_up: name of the first run.
        refused: how the server ended that was to go on with it by another plan, and what it said.
        undisturbed: summary of the second run.
        figures: accuracy of each of its rounds.
        killed_in: the round of the third run in which the server was killed first.
        left: what a write that was killed left beside the checkpoint.
        kept: the round that the checkpoint told then.
        there: whether `left` was there when the next server had resumed.
        stopped: the summary after the stop.
        code_of_stop: how the server ended then.
        codes: how the clients ended then.
        code: how the server ended at last.
    """

    stack: Stack
    given_up: str = ""
    refused: tuple[int, str] = (-1, "")
    undisturbed: dict[str, Any] = dataclasses.field(default_factory=dict)
    figures: list[str] = dataclasses.field(default_factory=list)
    killed_in: int = 0
    left: str = ""
    kept: int = 0
    there: bool = True
    stopped: dict[str, Any] = dataclasses.field(default_factory=dict)
    code_of_stop: int = -1
    codes: list[int] = dataclasses.field(default_factory=list)
    code: int = -1

    @property
    def resumed(self) -> list[int]:
        """The last round that counted when the third run was resumed, one a time."""
        return [int(row["round"]) for row in self.stack.table("events.csv") if row["event"] == "resumed"]


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Struck]:
    """Run in peace; then again, while the server is killed at each point, restarted with its clients, and stopped."""
    with stacks("server", tmp_path_factory.mktemp("server")) as make:
        stack = make(PLAN, LIVENESS_TIMEOUT=60)
        run = Struck(stack)
        give_up(run)
        stack.environment["FRESH"] = "1"
        stack.up()
        stack.until(lambda: stack.summary["run_id"] != run.given_up, "a new run")
        assert stack.wait_server() == 0
        run.undisturbed = stack.summary
        run.figures = [row["test_accuracy"] for row in stack.table("history.csv")]
        stack.environment["FRESH"] = "0"
        stack.up()
        stack.until(lambda: stack.summary["run_id"] != run.undisturbed["run_id"], "a run of its own")
        strike(run)
        stop(run)
        stack.up()
        run.code = stack.wait_server()
        yield run


def give_up(run: Struck) -> None:
    """Begin a run, stop it, and let a server with another plan come to it."""
    stack = run.stack
    stack.up()
    stack.until_round(1)
    stack.compose("stop")
    run.given_up = stack.summary["run_id"]
    stack.write_plan(PLAN | {"rounds": ROUNDS + 1})
    since = time.time()
    stack.up()
    code = stack.first_code(stack.container("server"), since)
    run.refused = (code, [line for line in stack.log("server").splitlines() if "unfinished" in line][-1])
    stack.compose("stop")
    stack.write_plan(PLAN)


def strike(run: Struck) -> None:
    """Kill the server in a round, in a write, and between rounds; then restart everybody."""
    stack, server = run.stack, run.stack.container("server")
    stack.until_begins("training")
    run.killed_in = stack.until_begins("training")
    stack.kill(server)
    stack.until_event("resumed", count=1)

    folder = stack.latest.resolve()
    stack.until_begins("training")
    run.left = stack.as_root(
        sys.executable, str(KILL_IN_WRITE), str(folder / checkpoint.FILE.parent), checkpoint.FILE.name,
        str(stack.process(server)), str(deadline(60)), seconds=90,
    )  # fmt: skip
    state = checkpoint.load(folder)
    run.kept = 0 if state is None else state.round
    stack.until_event("resumed", count=2)
    run.there = (folder / checkpoint.FILE).with_name(run.left).exists()

    stack.until_begins("training")
    stack.docker("kill", stack.container("client", 2))
    # it may be waiting already
    stack.until(lambda: stack.phase == "waiting", "the server to wait")
    stack.kill(server)
    stack.until_event("resumed", count=3)
    stack.up()

    stack.until_begins("training")
    stack.docker("restart", stack.container("client", 3))
    stack.docker("restart", server)
    stack.docker("restart", *three(stack))
    stack.until_event("resumed", count=4)


def stop(run: Struck) -> None:
    """Stop everybody in a round."""
    stack = run.stack
    stack.until_begins("training")
    stack.compose("stop")
    run.stopped = stack.summary
    run.code_of_stop = stack.exit_code(stack.container("server"))
    run.codes = [stack.exit_code(container) for container in three(stack)]


def test_another_plan_than_the_unfinished_run_s_is_an_error(struck: Struck) -> None:
    """With an unfinished run, another experiment file is code 7 and names the difference and both ways out."""
    code, said = struck.refused
    run = struck.given_up
    assert code == 7
    assert said == (
        f"fed server: error: run {run} is unfinished and was begun with rounds {ROUNDS}; wanted rounds {ROUNDS + 1} as "
        f"asked now; finish it with its own plan (results/{run}/experiment.yml), or begin anew with FRESH=1 "
        "(`fed server --fresh`)"
    )


def test_a_fresh_run_leaves_the_unfinished_one_alone(struck: Struck) -> None:
    """FRESH=1 begins a new run, to its end, and the unfinished one stays as it was stopped."""
    assert struck.undisturbed["run_id"] != struck.given_up
    assert (struck.undisturbed["status"], struck.undisturbed["rounds"]) == ("completed", ROUNDS)
    summary = json.loads((struck.stack.results / struck.given_up / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "stopped"


def test_a_run_after_a_completed_one_is_its_own(struck: Struck) -> None:
    """On kept volumes a second `up` makes a run of its own, with the same figures for the same seed."""
    assert struck.stack.summary["run_id"] != struck.undisturbed["run_id"]
    assert [row["test_accuracy"] for row in struck.stack.table("history.csv")] == struck.figures


def test_a_server_killed_in_a_round_goes_on_with_it(struck: Struck) -> None:
    """Killed while clients train, the server is back by itself and runs that round again."""
    number = struck.killed_in
    assert struck.resumed[0] == number - 1 >= 1


def test_a_server_killed_in_a_write_has_its_last_checkpoint(struck: Struck) -> None:
    """Killed while it writes its checkpoint, it goes on from the one before; what was half written is removed."""
    assert struck.left.startswith(".state.mpk.")
    assert struck.kept == struck.resumed[1] >= struck.resumed[0]
    assert not struck.there


def test_a_server_killed_between_rounds_goes_on_when_its_clients_are_back(struck: Struck) -> None:
    """Killed while it waits for a client that was killed, it goes on as soon as `docker compose up -d` brings it."""
    events = [row["event"] for row in struck.stack.table("events.csv")]
    assert "void" in events
    assert struck.resumed[2] >= struck.resumed[1]


def test_containers_restarted_in_any_order_find_each_other_again(struck: Struck) -> None:
    """A client, then the server, then all clients restarted, the run goes on."""
    assert struck.resumed[3] >= struck.resumed[2]
    assert struck.stopped["rounds"] >= struck.resumed[3]


def test_a_stop_keeps_everything_and_up_goes_on(struck: Struck) -> None:
    """`docker compose stop` ends the clients with 0, and the server with code 11 and what was learned; `up` goes on."""
    assert struck.codes == [0, 0, 0]
    assert (struck.stopped["status"], struck.stopped["reason"]) == ("stopped", "stopped by a signal")
    assert struck.code_of_stop == 11
    assert struck.resumed[4] == struck.stopped["rounds"]


def test_a_run_that_saw_all_this_ends_as_if_nothing_had_happened(struck: Struck) -> None:
    """Each round is there once, no round had a traceback, and the model is that of the undisturbed run."""
    stack = struck.stack
    assert struck.code == 0
    assert stack.summary["status"] == "completed"
    stack.check_history(ROUNDS)
    assert "Traceback" not in (stack.latest / "server.log").read_text(encoding="utf-8")
    for first, second in zip(
        weights(stack, struck.undisturbed["run_id"]), weights(stack, stack.summary["run_id"]), strict=True
    ):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_event_files_have_each_round_once_whatever_happened(struck: Struck) -> None:
    """After all these deaths the server's curve and each client's has the figures of its table, a step a round."""
    board = struck.stack.latest / "tensorboard"
    figures = [float(row["test_accuracy"]) for row in struck.stack.table("history.csv")]
    steps, shown = zip(*events.curve(board / "server", "curves/test_accuracy"), strict=True)
    assert steps == tuple(range(1, ROUNDS + 1))
    assert shown == pytest.approx(figures, abs=1e-6)
    for name in ("client_0", "client_1", "client_2"):
        assert [step for step, _ in events.curve(board / name, "curves/loss")] == list(range(1, ROUNDS + 1))


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
