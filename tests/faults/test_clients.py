"""Clients come, go and come back in numbers: sizes, stand-by, quorum, on the real stack."""

from __future__ import annotations

import time

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import plan

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


def test_a_run_goes_along_with_its_size(make_stack: Maker) -> None:
    """Begun with 3, whatever CLIENTS says, and scaled to 6, 2 and 4, the whole data set is dealt to each in turn."""
    stack = make_stack(plan(200, steps=40), CLIENTS=2)
    stack.up("--scale", "client=3")
    stack.until_round(1)
    assert {row["size"] for row in stack.of_round(1)} == {"3"}
    for size in (6, 2, 4):
        stack.compose("scale", f"client={size}")
        stack.until(
            lambda size=size: {row["size"] for row in stack.of_round(stack.rounds)} == {str(size)},  # type: ignore[misc]
            f"a round of {size} clients",
        )
        assert len(stack.of_round(stack.rounds)) == size
    stack.compose("stop", "server")
    stack.check_history(stack.rounds)


def test_clients_stand_by_take_over_and_end_in_a_quorum_that_is_lost(make_stack: Maker) -> None:
    """Who is one too many for the data set stands by, takes over when one leaves; with one less the run is stopped."""
    # this seed leaves a seat of three empty, so the data set is dealt to two at most
    stack = make_stack(
        plan(400, steps=10, min_clients=2, rejoin_grace=1, quorum_timeout=3)
        | {"data": {"scheme": "dirichlet", "alpha": 0.05, "seed": 179}},
        CLIENTS=2,
        MAX_CLIENTS=3,
    )
    stack.up("--scale", "client=3")
    stack.until_event("standby")
    stack.until_round(1)
    assert {row["size"] for row in stack.of_round(1)} == {"2"}
    (standing,) = {row["client"] for row in stack.table("events.csv") if row["event"] == "standby"}
    assert "standing by" in stack.log("client")
    seated = [name for name in stack.clients() if stack.name_of(name) != standing]
    stack.docker("stop", seated[0])
    stack.until(
        lambda: standing in {row["client"] for row in stack.of_round(stack.rounds)}, "the stand-by to take over"
    )
    since = time.time()
    stack.docker("stop", seated[1])
    assert stack.first_code(stack.container("server"), since) == 8
    stack.until(lambda: stack.summary["status"] == "stopped", "the summary")
    assert stack.summary["reason"].startswith(
        "1 clients were there for 3 s; wanted at least 2 (federation.min_clients)"
    )
    run, rounds = stack.summary["run_id"], stack.rounds
    stack.up()
    stack.until(lambda: stack.rounds > rounds, "the run to go on", 120)
    assert stack.summary["run_id"] == run
    stack.compose("stop", "server")
    stack.check_history(stack.rounds)
