"""Clients that refuse what their server asks: how their containers end."""

from __future__ import annotations

import time

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import plan

pytestmark = pytest.mark.compose


def test_a_client_that_refuses_its_server_s_model_ends_with_14(make_stack: Maker) -> None:
    """Given less room than the model needs, a client says so in one line; Docker starts it thrice more, and no more."""
    stack = make_stack(plan(1), CLIENTS=1, MAX_PARAMETERS=1000)
    since = time.time()
    stack.up()
    client = stack.container("client")
    assert stack.first_code(client, since, 240) == 14
    policy = stack.inspect(client, ".HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount")
    assert policy == "on-failure 3"
    line = (
        "the server's model has 54,412 parameters; wanted at most 1,000; raise MAX_PARAMETERS"
        " (`fed client --max-parameters`) if this machine is to train it"
    )
    assert f"fed client: error: {line}" in stack.said(client).splitlines()
    assert "Traceback" not in stack.said(client)
    refused = [row for row in stack.table("events.csv") if row["event"] == "refused"]
    assert [(row["client"], row["detail"]) for row in refused[:1]] == [("client_0", line)]
