"""Secure aggregation when a client dies in a round: the others' masks no longer cancel out without it."""

from __future__ import annotations

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import plan

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


def test_a_round_that_loses_a_client_is_run_again_with_the_others(make_stack: Maker) -> None:
    """Killed while it trains, a client costs that round a second try, under new secrets, and nobody else anything."""
    stack = make_stack(plan(4, steps=60, rejoin_grace=200) | {"secagg": "masking"})
    stack.up()
    number = stack.until_begins("training")
    victim = stack.clients()[0]
    name = stack.name_of(victim)
    stack.docker("kill", victim)
    assert stack.wait_server() == 0
    stack.check_history(4)
    events = [
        (row["event"], row["client"], row["detail"]) for row in stack.table("events.csv") if row["round"] == str(number)
    ]
    assert ("dropped", name, "connection lost") in events
    assert ("void", "", "2 of 3 clients finished it") in events
    survivors = {f"client_{seat}" for seat in range(3)} - {name}
    for later in range(number, 5):
        assert {row["client"] for row in stack.of_round(later) if row["state"] == "trained"} == survivors
    assert stack.summary["status"] == "completed"
    assert stack.summary["test_accuracy"] > 0.8
