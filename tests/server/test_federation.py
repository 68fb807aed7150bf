"""Rounds of a whole federation: who is dealt what, who counts, what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import keras
import pytest

from services import shards
from services.errors import QuorumError
from services.init import folders
from services.paths import Paths
from services.server.federation import derived_seed
from services.server.membership import natural
from tests.federation import PATIENCE, Federation, plan

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, in bounded time."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


def test_a_run_ends_with_everything_that_the_results_promise(small: Paths) -> None:
    """Two clients train two rounds; each file of the results is there, and the model gives the accuracy stated."""
    federation = Federation(small, plan())

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    summary = federation.summary
    assert (summary["status"], summary["reason"], summary["rounds"], summary["clients"]) == ("completed", "", 2, 2)
    folder = small.results / "latest"
    images, labels = shards.load_test(small.test)
    model = keras.saving.load_model(folder / "model.keras")
    predicted = model.predict(images / 255, verbose=0).argmax(axis=1)
    assert summary["test_accuracy"] == pytest.approx(float((predicted == labels).mean()))
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoint",
        "clients.csv",
        "confusion.png",
        "curves.png",
        "events.csv",
        "experiment.yml",
        "history.csv",
        "model.keras",
        "summary.json",
    }
    assert [row["round"] for row in federation.table("history.csv")] == ["1", "2"]
    rows = federation.table("clients.csv")
    assert [(row["round"], row["client"], row["seat"], row["size"], row["steps"]) for row in rows] == [
        ("1", "client_0", "0", "2", "2"),
        ("1", "client_1", "1", "2", "2"),
        ("2", "client_0", "0", "2", "2"),
        ("2", "client_1", "1", "2", "2"),
    ]


def test_more_clients_than_asked_for_are_all_dealt_in(small: Paths) -> None:
    """Clients that come on the heels of the first ones are dealt in, so that the data set is shared by all."""
    federation = Federation(small, plan(rounds=1), clients=1)

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(3)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    assert [row["size"] for row in federation.table("clients.csv")] == ["3", "3", "3"]


def test_a_client_with_its_own_data_is_never_dealt(small: Paths) -> None:
    """A site's own images stay its own; the others share the data set among themselves."""
    folders.write_folders(small.raw, small.root / "own", 1, "iid", 1)
    federation = Federation(small, plan(rounds=1), clients=2)

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [
                federation.client(0),
                federation.client(1, own_data=small.root / "own" / "mnist_iid" / "client_0"),
            ]
            await server
            await asyncio.gather(*clients)

    run(scene())
    rows = federation.table("clients.csv")
    assert [(row["client"], row["size"], row["seat"]) for row in rows] == [("client_0", "1", "0"), ("client_1", "", "")]


def test_too_few_clients_in_time_stop_the_run_with_the_number(small: Paths) -> None:
    """A federation that does not come together says how many came, how many were wanted and what to do."""
    federation = Federation(small, plan(federation={"join_timeout": 0.5}), clients=2)

    async def scene() -> None:
        async with federation.server() as (_, server):
            client = federation.client(0)
            with pytest.raises(QuorumError) as caught:
                await server
            assert str(caught.value) == (
                "1 of 2 clients joined within 0.5 s; wanted 2 clients; "
                "start the missing clients, lower CLIENTS, or raise federation.join_timeout"
            )
            client.cancel()
            await asyncio.wait({client})

    run(scene())
    assert federation.summary["status"] == "stopped"
    assert federation.summary["reason"].startswith("1 of 2 clients joined")


def test_a_client_that_goes_during_a_round_costs_no_more_than_its_part(small: Paths) -> None:
    """When a client leaves, the others finish the round, and the run is completed by those that remain."""
    federation = Federation(small, plan(rounds=3, train={"batch_size": 20, "epochs": 3}))

    async def scene() -> None:
        async with federation.server() as (state, server):
            clients = [federation.client(number) for number in range(2)]
            while state.federation is None or state.federation.phase != "training":
                await asyncio.sleep(0.005)
            clients[1].cancel()
            await server
            await clients[0]

    run(scene())
    assert federation.summary["status"] == "completed"
    first = federation.table("history.csv")[0]
    assert (first["clients"], first["dropped"]) == ("1", "1")
    assert [row["size"] for row in federation.table("clients.csv") if row["round"] == "2"] == ["1"]


def test_names_are_ordered_as_people_count() -> None:
    """`client_2` has a lower seat than `client_10`."""
    assert sorted(["client_10", "client_2", "b", "client_0"], key=natural) == ["b", "client_0", "client_2", "client_10"]


def test_seeds_derived_for_different_uses_differ() -> None:
    """One run's seed gives each seat of each size its own, the same every time."""
    seeds = {derived_seed(0, size, seat) for size in range(1, 33) for seat in range(size)}
    assert len(seeds) == 32 * 33 // 2
    assert derived_seed(0, 3, 1) == 3852155480
