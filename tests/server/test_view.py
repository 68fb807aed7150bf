"""What can be seen of a run at each point of it, of real servers and clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services import logs
from services.paths import Paths
from services.server.main import Run
from services.server.results import plain
from tests.faults.dishonest_client import forger
from tests.federation import Federation, Hook, plan, run
from tests.support import logging_kept


def looking(state: Run, seen: dict[int, dict[str, Any]]) -> Hook:
    """Make what takes a snapshot before each round."""

    async def look(number: int) -> str | None:
        seen[number] = state.view.snapshot()
        return None

    return look


def test_a_run_is_seen_from_its_beginning_to_its_end(small: Paths) -> None:
    """Before, while and after it trains: phase, round, who is at work and how far, who came, what was learned."""
    federation = Federation(small, plan())
    seen: dict[str, dict[str, Any]] = {}

    async def scene() -> None:
        async with federation.server() as (state, server):
            seen["empty"] = state.view.snapshot()

            async def look(number: int) -> str | None:
                if number == 2:
                    seen["training"] = state.view.snapshot()
                return None

            clients = [federation.client(0, before_round=look), federation.client(1)]
            await asyncio.gather(server, *clients)
            seen["over"] = state.view.snapshot()

    run(scene())
    assert json.loads(json.dumps(plain(seen))) == plain(seen)

    empty = seen["empty"]
    assert (empty["phase"], empty["round"], empty["clients"], empty["seconds_left"]) == ("gathering", 0, {}, None)
    assert empty["healthy"]

    training = seen["training"]
    assert (training["phase"], training["round"], training["rounds_planned"]) == ("training", 1, 2)
    assert training["clients"].keys() == {"client_0", "client_1"}
    one = training["clients"]["client_0"]
    assert (one["state"], one["reason"], one["round"]) == ("training", "", 1)
    assert one["seat"] == 0
    assert sum(one["labels"]) == one["train"] > 0
    assert one["seen_s"] >= 0
    assert one["bytes_sent"] > one["bytes_received"] > 0
    assert training["history"]["round"] == [1]
    assert training["seconds_left"] > 0
    assert [row[2] for row in training["events"]] == ["joined", "joined", "dealt"]

    over = seen["over"]
    assert (over["phase"], over["round"], over["healthy"], over["clients"]) == ("completed", 2, False, {})
    assert {name: each["state"] for name, each in over["gone"].items()} == {"client_0": "over", "client_1": "over"}
    assert over["test_accuracy"] == federation.summary["test_accuracy"]
    assert over["experiment"]["rounds"] == 2


def test_who_is_gone_and_who_missed_a_round_is_seen_with_the_reason(small: Paths) -> None:
    """A client that failed in a round is `dropped` until the next, one that left is `gone`, each with its reason."""
    federation = Federation(small, plan(rounds=3), clients=3)
    seen: dict[int, dict[str, Any]] = {}

    async def scene() -> None:
        async with federation.server() as (state, server):
            look = looking(state, seen)

            async def fail(number: int) -> str | None:
                return "the disk is full" if number == 1 else None

            async def leave(number: int) -> str | None:
                if number == 2:
                    leaver.cancel()
                return None

            leaver = federation.client(2, before_round=leave)
            clients = [federation.client(0, before_round=look), federation.client(1, before_round=fail)]
            await asyncio.gather(server, *clients)

    run(scene())
    gone = seen[3]["gone"]["client_2"]
    assert (gone["state"], gone["reason"]) == ("gone", "it left")
    assert seen[3]["clients"].keys() == {"client_0", "client_1"}
    rows = {row["client"]: row for row in federation.table("clients.csv") if row["round"] == "1"}
    assert rows["client_1"]["reason"] == "the disk is full"


def test_lines_for_programs_tell_the_same(small: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    """Each event and each round is one JSON line that says its run, round and client, and so is the end."""
    federation = Federation(small, plan(rounds=3), clients=3)

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def fail(number: int) -> str | None:
                return "the disk is full" if number == 1 else None

            async def leave(number: int) -> str | None:
                if number == 2:
                    leaver.cancel()
                return None

            leaver = federation.client(2, before_round=leave)
            await asyncio.gather(server, federation.client(0), federation.client(1, before_round=fail))

    with logging_kept():
        logs.configure("server", form="json")
        run(scene())
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = [line for line in lines if line["event"] is not None]
    assert {line["run"] for line in told} == {federation.summary["run_id"]}
    rows = [(row["event"], int(row["round"]), row["client"] or None) for row in federation.table("events.csv")]
    kinds = {kind for kind, _, _ in rows}
    assert kinds == {"joined", "dealt", "dropped", "left"}
    assert [(line["event"], line["round"], line["client"]) for line in told if line["event"] in kinds] == rows
    others = [(line["event"], line["round"]) for line in told if line["event"] not in kinds]
    assert others == [("round", 1), ("round", 2), ("round", 3), ("completed", 3)]
    assert {line["level"] for line in told if line["event"] == "dropped"} == {"warning"}
    assert {line["round"] for line in lines if line["message"].startswith("round 2: training")} == {2}


def test_who_was_put_out_is_seen_with_the_reason(small: Paths) -> None:
    """A client that is out for good stays in sight, as refused."""
    federation = Federation(small, plan(rounds=5), clients=3)
    seen: dict[int, dict[str, Any]] = {}

    async def scene() -> None:
        async with federation.server() as (state, server):
            look = looking(state, seen)

            clients = [federation.client(0, before_round=look), federation.client(1, forge=forger("nan"))]
            clients.append(federation.client(2))
            await server
            await asyncio.gather(*clients, return_exceptions=True)

    run(scene())
    assert "client_1" in seen[3]["clients"]
    out = seen[5]["gone"]["client_1"]
    assert out["state"] == "refused"
    assert out["reason"].startswith("its replies were refused 3 times in a row, last: its updates hold values that")
    assert seen[5]["drops"] == {"refused": 3}


def test_a_client_tells_how_far_it_is(small: Paths) -> None:
    """While a client trains, the server sees the steps it has taken, of how many."""
    federation = Federation(small, plan(rounds=1, train={"batch_size": 1, "epochs": 400}))

    async def scene() -> None:
        async with federation.server() as (state, server):
            clients = [federation.client(number) for number in range(2)]
            steps = 0
            while not steps:
                await asyncio.sleep(0.01)
                assert not server.done()
                each = state.view.snapshot()["clients"].get("client_0", {})
                steps = each.get("steps") or 0
                if steps:
                    assert 0 <= each["step"] <= steps
                    assert steps == 400 * each["train"]
            server.cancel()
            await asyncio.wait([server, *clients])

    run(scene())
