"""Clients that refuse what their server asks: how their containers end, and that they stay down."""

from __future__ import annotations

import time

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import plan

pytestmark = pytest.mark.compose


def test_a_client_that_refuses_its_server_s_model_stays_down(make_stack: Maker) -> None:
    """Given less room than the model needs, a client says so and ends with 14, is started thrice more, and no more."""
    stack = make_stack(plan(1, join_timeout=240), CLIENTS=1, MAX_PARAMETERS=1000)
    since = time.time()
    stack.up()
    client = stack.container("client")
    assert stack.exit_code(client, 240) == 14
    assert stack.exit_codes(client, since) == [14] * 4
    line = (
        "fed client: error: the server's model has 54,412 parameters; wanted at most 1,000; raise MAX_PARAMETERS"
        " (`fed client --max-parameters`) if this machine is to train it"
    )
    assert stack.said(client).splitlines().count(line) == 4
    assert "Traceback" not in stack.said(client)
    refused = [row for row in stack.table("events.csv") if row["event"] == "refused"]
    assert {row["detail"] for row in refused} == {line.removeprefix("fed client: error: ")}
