"""Clients that die, freeze, are cut off, leave, come late and return, on the real stack."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import QUICK, Stack

pytestmark = pytest.mark.compose


def plan(rounds: int, steps: int = 60, **federation: Any) -> dict[str, Any]:
    """Make a plan of rounds that last a few seconds each."""
    changed = QUICK["federation"] | federation
    return QUICK | {"rounds": rounds, "train": {"batch_size": 32, "steps": steps}, "federation": changed}


def of_round(stack: Stack, number: int) -> list[dict[str, str]]:
    """Rows of `clients.csv` for one round."""
    return [row for row in stack.table("clients.csv") if row["round"] == str(number)]


def test_killed_clients_cost_their_part_and_return(make_stack: Maker) -> None:
    """Killed while training, a client is missed at once; back, it has its identity again and takes part."""
    stack = make_stack(plan(14, rejoin_grace=120, round_timeout=300))
    stack.up()
    stack.until_round(1)
    victim = stack.clients()[1]
    name = stack.name_of(victim)
    stack.docker("kill", victim)
    stack.until_event("lost", name)
    before = stack.rounds
    stack.until_round(before + 2)
    rows = of_round(stack, before + 2)
    assert name not in {row["client"] for row in rows}
    assert {row["size"] for row in rows} == {"3"}, "its seat is kept for it"
    stack.up()
    stack.until_event("returned", name)
    assert stack.name_of(victim) == name
    assert stack.wait_server() == 0
    stack.check_history(14)
    assert {row["client"] for row in of_round(stack, 14)} == {"client_0", "client_1", "client_2"}
    assert stack.summary["status"] == "completed"


def test_a_client_that_leaves_politely_is_dealt_out(make_stack: Maker) -> None:
    """On SIGTERM a client leaves at once and with code 0; the others hold the whole data set from the next round."""
    stack = make_stack(plan(6))
    stack.up()
    stack.until_round(1)
    victim = stack.clients()[0]
    name = stack.name_of(victim)
    stack.docker("stop", victim)
    assert stack.exit_code(victim) == 0
    stack.until_event("left", name)
    assert stack.wait_server() == 0
    stack.check_history(6)
    assert {row["size"] for row in of_round(stack, 6)} == {"2"}
    assert "lost" not in {row["event"] for row in stack.table("events.csv")}


def test_a_frozen_client_is_dropped_and_returns(make_stack: Maker) -> None:
    """Frozen longer than the liveness time-out, a client is dropped without holding up the rest; thawed, it returns."""
    stack = make_stack(plan(16, rejoin_grace=120, round_timeout=300), LIVENESS_TIMEOUT=4)
    stack.up()
    stack.until_round(1)
    victim = stack.clients()[2]
    name = stack.name_of(victim)
    stack.docker("pause", victim)
    stack.until_event("lost", name, seconds=30)
    stack.until_round(stack.rounds + 2)
    stack.docker("unpause", victim)
    stack.until_event("returned", name)
    assert stack.wait_server() == 0
    stack.check_history(16)
    assert name in {row["client"] for row in of_round(stack, 16)}


@pytest.mark.parametrize("seconds", [5, 60])
def test_a_client_cut_off_the_network_comes_back(make_stack: Maker, seconds: int) -> None:
    """A cut shorter than the liveness time-out goes by; a longer one costs the client its rounds, and it returns."""
    rounds = 8 if seconds == 5 else 48
    stack = make_stack(
        plan(rounds, steps=150, rejoin_grace=200, round_timeout=300), LIVENESS_TIMEOUT=14, SERVER_GRACE=180
    )
    stack.up()
    stack.until_round(1)
    victim = stack.clients()[0]
    name = stack.name_of(victim)
    network = f"{stack.name}_federation"
    stack.docker("network", "disconnect", network, victim)
    time.sleep(seconds)  # the length of the cut is the fault itself
    stack.docker("network", "connect", network, victim)
    assert stack.wait_server(400) == 0
    stack.check_history(rounds)
    if seconds == 60:
        assert "returned" in {row["event"] for row in stack.table("events.csv") if row["client"] == name}


def test_a_run_goes_along_with_its_size(make_stack: Maker) -> None:
    """Scaled 3 → 6 → 2 → 4 while it runs, the whole data set is dealt to each size in turn."""
    stack = make_stack(plan(60, steps=40))
    stack.up()
    stack.until_round(1)
    for size in (6, 2, 4):
        stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", f"client={size}", "client")

        def dealt(size: int = size) -> bool:
            return bool(stack.rounds) and {row["size"] for row in of_round(stack, stack.rounds)} == {str(size)}

        stack.until(dealt, f"a round of {size} clients")
        assert len(of_round(stack, stack.rounds)) == size
    stack.compose("stop", "server")
    stack.check_history(stack.rounds)


def test_more_clients_than_the_data_is_cut_for_stand_by(make_stack: Maker) -> None:
    """With MAX_CLIENTS there, a further client finds no identity; with scheme labels, those over ten stand by."""
    stack = make_stack(plan(40, steps=3) | {"data": {"scheme": "labels"}}, MAX_CLIENTS=12, CLIENTS=10)
    stack.up("--scale", "client=11")
    stack.until_event("standby", seconds=150)
    stack.until_round(2, seconds=150)
    assert {row["size"] for row in of_round(stack, 2)} == {"10"}
    (standing,) = {row["client"] for row in stack.table("events.csv") if row["event"] == "standby"}
    assert "standing by" in stack.log("client")
    seated = next(name for name in stack.clients() if stack.name_of(name) != standing)
    stack.docker("stop", seated)
    stack.until(
        lambda: standing in {row["client"] for row in of_round(stack, stack.rounds)}, "the stand-by to take over"
    )
    stack.check_history(stack.rounds)


def test_a_quorum_that_is_lost_stops_the_run_which_can_be_resumed(make_stack: Maker) -> None:
    """Fewer clients than the quorum, for longer than its time-out: status stopped, code 8; up again, it goes on."""
    stack = make_stack(plan(5, min_clients=3, rejoin_grace=1, quorum_timeout=3))
    stack.up()
    stack.until_round(1)
    stack.docker("stop", stack.clients()[0])
    assert stack.wait_server() == 8
    stack.until(lambda: stack.summary["status"] == "stopped", "the summary")
    assert stack.summary["reason"].startswith(
        "2 clients were there for 3 s; wanted at least 3 (federation.min_clients)"
    )
    run, rounds = stack.summary["run_id"], stack.rounds
    assert rounds >= 1
    stack.up()
    stack.until(lambda: stack.rounds > rounds, "the run to go on", 120)
    stack.until(lambda: stack.summary["status"] == "completed", "its end", 120)
    assert stack.summary["run_id"] == run
    stack.check_history(5)


def test_a_client_killed_while_it_registers_is_nobody_s_problem(make_stack: Maker) -> None:
    """Killed before it has the model, a client leaves no trace in the rounds."""
    stack = make_stack(plan(8))
    stack.up("--scale", "client=2", "--no-deps", "init", check=False)
    stack.up("--scale", "client=3")
    stack.until_event("joined", count=1, seconds=120)
    joined = stack.table("events.csv")[0]["client"]
    victim = next(name for name in stack.clients() if stack.name_of(name) == joined)
    stack.kill(victim, signal.SIGKILL)
    assert stack.wait_server() == 0
    stack.check_history(8)
