"""Fairness between groups of images: clients agree on groups, are measured by them, and weigh them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from declearn.messaging import Message

from services.client.fairness import Relay
from services.errors import TrainingError
from services.init import folders
from services.paths import Paths
from tests.federation import Federation, plan, run

INK: dict[str, Any] = {"groups": "ink", "ink": 0.5}
"""About half of the images of noise have more than the mean intensity."""

BINARY: dict[str, Any] = {**INK, "positive": [0, 1, 2, 3, 4]}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "monitor": {"algorithm": "monitor", "groups": "class"},
    "fairgrad": {"algorithm": {"fairgrad": {"eta": 0.1}}, "function": "equalized_odds", **INK},
    "fairbatch": {"algorithm": "fairbatch", "function": "equality_of_opportunity", **BINARY},
    "fairfed": {"algorithm": {"fairfed": {"beta": 10.0}}, "function": "demographic_parity", **BINARY},
}


def measures(federation: Federation) -> dict[str, dict[str, float]]:
    """Give the fairness measures of the newest run, by round and name."""
    found: dict[str, dict[str, float]] = {}
    for row in federation.table("metrics.csv"):
        assert row["client"] == "all"
        found.setdefault(row["round"], {})[row["metric"]] = float(row["value"])
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_model_of_each_round_is_measured_by_groups(small: Paths, algorithm: str) -> None:
    """From the initial model on, each group has its accuracy, a share, and its distance from what is fair."""
    federation = Federation(small, plan(rounds=2, fairness=ALGORITHMS[algorithm]))
    run(federation.play())
    assert federation.summary["status"] == "completed"
    assert {row["event"] for row in federation.table("events.csv")} == {"joined", "dealt"}
    found = measures(federation)
    assert set(found) == {"0", "1", "2"}
    groups = {"monitor": 10, "fairgrad": 20, "fairbatch": 4, "fairfed": 4}[algorithm]
    function = ALGORITHMS[algorithm].get("function", "accuracy_parity")
    for measured in found.values():
        accuracies = [value for name, value in measured.items() if name.startswith("fairness.accuracy.")]
        assert len(accuracies) == groups
        assert all(0 <= value <= 1 for value in accuracies)
        assert len([name for name in measured if name.startswith(f"fairness.{function}.")]) == groups


def test_a_monitor_changes_nothing(small: Paths) -> None:
    """A monitored run learns what the same run learns without."""
    learned = []
    for fairness in ({}, ALGORITHMS["monitor"]):
        federation = Federation(small, plan(deterministic=True, fairness=fairness))
        run(federation.play())
        learned.append(federation.learned())
    assert learned[0] == learned[1]


@pytest.mark.parametrize("algorithm", ["fairgrad", "fairbatch"])
def test_a_resumed_run_weighs_groups_as_one_that_was_never_stopped(small: Paths, algorithm: str) -> None:
    """What the controller has learned survives the server: a run in two pieces equals one in one."""
    found = []
    for stop_before in (None, 3):
        federation = Federation(small, plan(rounds=4, deterministic=True, fairness=ALGORITHMS[algorithm]))
        run(federation.play(stop_before=stop_before))
        found.append((federation.learned(), measures(federation)))
    assert found[0] == found[1]


def test_a_newcomer_is_set_up_for_the_next_round(small: Paths) -> None:
    """Who joins during a run is dealt in, and all agree on their groups anew; weights go on from where they stood."""
    federation = Federation(small, plan(rounds=4, fairness=ALGORITHMS["fairgrad"]), clients=1)

    async def scene() -> None:
        late: list[asyncio.Task[None]] = []
        async with federation.server() as (state, server):

            async def bring_another(number: int) -> None:
                if number == 2:
                    late.append(federation.client(1))
                    while state.view.federation is None or not state.view.federation.attendance.membership.is_ready(
                        "client_1"
                    ):
                        await asyncio.sleep(0.01)

            first = federation.client(0, before_round=bring_another)
            await server
            await asyncio.gather(first, *late)

    run(scene())
    assert [row["clients"] for row in federation.table("history.csv")] == ["1", "1", "2", "2"]
    assert set(measures(federation)) == {"0", "1", "2", "3", "4"}


def test_a_client_that_goes_costs_the_round_and_no_more(small: Paths) -> None:
    """Where one is lost before it has told its measures, the round is run again with the others."""
    federation = Federation(
        small, plan(rounds=3, fairness=ALGORITHMS["fairgrad"], federation={"join_grace": 0.2, "rejoin_grace": 0.0})
    )

    async def scene() -> None:
        async with federation.server() as (_, server):
            tasks: list[asyncio.Task[None]] = []

            async def lose_the_other(number: int) -> None:
                if number == 2:
                    tasks[1].cancel()
                    await asyncio.wait({tasks[1]})

            tasks += [federation.client(0, before_round=lose_the_other), federation.client(1)]
            await server
            await tasks[0]

    run(scene())
    assert federation.summary["status"] == "completed"
    assert federation.table("history.csv")[-1]["clients"] == "1"


def test_clients_that_can_t_be_grouped_end_the_run_with_the_reason(small: Paths) -> None:
    """Where images fall into fewer groups than the algorithm takes, the line says so, and nobody trains."""
    spec = {"algorithm": "fairbatch", "function": "equalized_odds", "groups": "ink", "positive": [0]}
    federation = Federation(small, plan(fairness=spec))

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            with pytest.raises(TrainingError) as caught:
                await server
            assert str(caught.value) == (
                "fairness can't be set up (FairBatch requires counts over exactly 4 sensitive groups, arising from a"
                " binary target label and a binary sensitive attribute.); wanted clients whose images fall into the"
                " groups of fairness; see events.csv, and correct fairness in the experiment file"
            )
            await asyncio.gather(*clients, return_exceptions=True)

    run(scene())
    assert federation.summary["rounds"] == 0


def test_sites_tell_the_groups_of_their_own_images(small: Paths) -> None:
    """Sites with train_group.npy take part by it; one without is refused with the reason, and the others go on."""
    folders.write_folders(small.raw, small.root / "own", 3, "iid", 1)
    own = [small.root / "own" / "mnist_iid" / f"client_{number}" for number in range(3)]
    for folder in own[:2]:
        count = len(np.load(folder / "train_target.npy"))
        np.save(folder / "train_group.npy", np.arange(count) % 2)
    fairness = {"algorithm": "monitor", "groups": "own", "positive": [1, 2]}
    federation = Federation(small, plan(fairness=fairness), clients=3)

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number, own_data=folder) for number, folder in enumerate(own)]
            await server
            await asyncio.gather(*clients, return_exceptions=True)

    run(scene())
    assert federation.summary["status"] == "completed"
    assert [row["clients"] for row in federation.table("history.csv")] == ["2", "2"]
    (refused,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert refused["client"] == "client_2"
    assert refused["detail"] == (
        "fairness: its data can't be used; wanted a whole number for each training image of this site, in"
        " train_group.npy"
    )
    accuracies = [name for name in measures(federation)["2"] if name.startswith("fairness.accuracy.")]
    assert accuracies == [f"fairness.accuracy.{label}.{group}" for label in (0, 1) for group in (0, 1)]


def test_who_has_answered_is_asked_anew_when_another_goes(small: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is lost amid a set-up costs nobody else its place, whose answer had come already."""
    limits = {"join_grace": 0.2, "rejoin_grace": 0.0, "quorum_timeout": 5}
    federation = Federation(small, plan(fairness=ALGORITHMS["monitor"], federation=limits))
    send = Relay.send_message

    async def scene() -> None:
        async with federation.server() as (state, server):
            loop = asyncio.get_running_loop()
            lost, other = federation.client(0), federation.client(1)

            async def send_or_go(relay: Relay, message: Message) -> None:
                if relay._netwk.name == "client_0":
                    while state.endpoint.handler.mailboxes["client_1"].incoming is None:
                        await asyncio.sleep(0.01)
                    loop.call_soon_threadsafe(lost.cancel)
                else:
                    await send(relay, message)

            monkeypatch.setattr(Relay, "send_message", send_or_go)
            await server
            await asyncio.gather(lost, other, return_exceptions=True)

    run(scene())
    assert federation.summary["status"] == "completed"
    assert [row["clients"] for row in federation.table("history.csv")] == ["1", "1"]
