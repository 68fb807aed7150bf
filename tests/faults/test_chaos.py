"""Faults at random, one every few seconds, from a list drawn by a seed that is printed."""

from __future__ import annotations

import contextlib
import os
import random
import time

import pytest

from tests.compose.conftest import Maker
from tests.compose.stack import Stack, plan
from tests.support import deadline

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

CLIENTS = 5
ROUNDS = 20


def strike(stack: Stack, rng: random.Random, paused: set[str]) -> str:
    """Cause one fault; tells which."""
    clients = [name for name in stack.clients() if name not in paused]
    fault = rng.choice(["kill client", "stop client", "pause client", "thaw", "kill server", "scale", "restart client"])
    victim = rng.choice(clients) if clients else ""
    if fault == "kill client" and len(clients) > 2:
        stack.kill(victim)
    elif fault == "stop client" and len(clients) > 2:
        stack.docker("stop", victim)
    elif fault == "pause client" and len(clients) > 2:
        stack.docker("pause", victim)
        paused.add(victim)
    elif fault == "thaw" and paused:
        stack.docker("unpause", paused.pop())
    elif fault == "restart client" and victim:
        stack.docker("restart", victim)
    elif fault == "kill server":
        stack.kill(stack.container("server"))
    elif fault == "scale":
        while paused:
            stack.docker("unpause", paused.pop())
        stack.compose(
            "up", "--detach", "--no-build", "--no-recreate", "--scale", f"client={rng.randint(3, 7)}", "client"
        )
    else:
        return "nothing"
    return f"{fault} {victim}"


def test_a_run_comes_to_its_end_through_faults_at_random(make_stack: Maker) -> None:
    """Five clients as CLIENTS says, a fault every few seconds: twenty rounds, each once, every image dealt once."""
    seed = int(os.environ.get("FED_CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FED_CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails
    rng = random.Random(seed)  # noqa: S311 - chaos is not a secret
    stack = make_stack(
        plan(ROUNDS, steps=40, rejoin_grace=10, quorum_timeout=120, round_timeout=60),
        CLIENTS=CLIENTS,
        LIVENESS_TIMEOUT=4,
        SERVER_GRACE=180,
    )
    stack.up()
    stack.until_round(1, seconds=150)
    # a liveness time-out this short may miss a client that imports TensorFlow beside four others, and it returns
    stack.until(lambda: stack.table("history.csv")[-1]["size"] == str(CLIENTS), "a round of all clients")
    paused: set[str] = set()
    end = time.monotonic() + deadline(420)
    while stack.summary["status"] != "completed":
        assert time.monotonic() < end, f"seed {seed}: {stack.log('server')[-3000:]}"
        fault = "a victim that was gone already"
        with contextlib.suppress(AssertionError):
            fault = strike(stack, rng, paused)
        print(f"round {stack.rounds}: {fault}")  # noqa: T201 - pytest shows it when the test fails
        time.sleep(rng.uniform(1.0, 4.0))
        # Docker restarts a server three times; after that it is the operator's turn
        if (
            stack.inspect(stack.container("server"), ".State.Status") == "exited"
            and stack.summary["status"] != "completed"
        ):
            stack.up("--no-recreate")
    stack.check_history(ROUNDS)
