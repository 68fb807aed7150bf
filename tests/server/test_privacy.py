"""Differential privacy, in whole federations: what is spent is told, is never forgotten, and ends the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest
from declearn import messaging
from declearn.aggregator import ModelUpdates
from declearn.model.sklearn import NumpyVector

from services.accounting import Budget, Steps
from services.errors import DataError
from services.init import folders
from services.paths import Paths
from services.server.checkpoint import LEDGER
from services.server.membership import Seat
from services.server.privacy import CentralPrivacy, Ledger, read
from services.server.results import RunFolder
from tests.federation import PATIENCE, Federation, plan

T = TypeVar("T")

SAMPLE: dict[str, Any] = {"epsilon": 3.0, "max_grad_norm": 1.0}
CENTRAL: dict[str, Any] = {"kind": "central", "epsilon": 8.0, "max_grad_norm": 0.1}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, in bounded time."""
    return asyncio.run(asyncio.wait_for(work, 3 * PATIENCE))


async def complete(federation: Federation, clients: int) -> None:
    """Run a federation to its end."""
    async with federation.server() as (_, server):
        tasks = [federation.client(number) for number in range(clients)]
        await server
        await asyncio.gather(*tasks)


def spent(federation: Federation) -> list[float]:
    """Epsilon after each round."""
    return [float(row["epsilon"]) for row in federation.table("history.csv")]


# -- DP-SGD -----------------------------------------------------------------------------------------------------------


def test_a_run_spends_its_budget_over_all_its_rounds(small: Paths) -> None:
    """Noise is made for the planned rounds: epsilon rises to the budget, and stands in every table and the summary."""
    federation = Federation(small, plan(rounds=2, privacy=SAMPLE))
    run(complete(federation, 2))
    first, last = spent(federation)
    assert 0 < first < last <= 3
    assert last > 2.9
    assert [float(row["epsilon"]) for row in federation.table("clients.csv")] == [first, first, last, last]
    summary = federation.summary
    assert (summary["status"], summary["reason"]) == ("completed", "")
    told = summary["privacy"]
    assert (told["kind"], told["epsilon"], told["delta"]) == ("sample", 3.0, 1e-5)
    assert told["epsilon_spent"] == pytest.approx(last, rel=1e-5)
    # 240 images a client, batches of 20, two rounds of two steps
    assert Budget(3, 1e-5).spent([Steps(20 / 240, told["noise_multiplier"], 4)]) == pytest.approx(last, rel=1e-4)


def test_a_round_that_a_killed_server_lost_stays_spent(small: Paths) -> None:
    """Killed after the first round began, the run goes on with that round spent, and stops short of its last one."""
    federation = Federation(small, plan(rounds=3, privacy=SAMPLE))

    async def scene() -> None:
        begun = asyncio.Event()

        async def tell(_: int) -> None:
            begun.set()
            await asyncio.Event().wait()

        async with federation.server() as (_, server):
            clients = [federation.client(0, before_round=tell), federation.client(1)]
            await begun.wait()
            # killed: no word to anybody, no results; what it wrote before is all there is
            ledger = (small.results / "latest" / LEDGER).read_bytes()
            server.cancel()
            await asyncio.wait({server})
            for client in clients:
                client.cancel()
            await asyncio.wait(clients)
        summary = small.results / "latest" / "summary.json"
        summary.write_text(json.dumps(federation.summary | {"status": "running"}))
        (small.results / "latest" / LEDGER).write_bytes(ledger)
        await complete(federation, 2)

    run(scene())
    assert [row["round"] for row in federation.table("history.csv")] == ["1", "2"]
    first, last = spent(federation)
    assert first > 1.1 * Budget(3, 1e-5).spent([Steps(20 / 240, federation.summary["privacy"]["noise_multiplier"], 2)])
    assert 2.9 < last <= 3
    assert federation.summary["status"] == "completed"
    assert federation.summary["reason"] == "the privacy budget is spent after round 2 of 3"
    assert federation.summary["privacy"]["epsilon_spent"] == pytest.approx(last, rel=1e-5)
    assert {row["client"] for row in federation.table("events.csv") if row["event"] == "spent"} == {
        "client_0",
        "client_1",
    }


def test_a_client_that_comes_back_is_told_what_was_spent_on_its_data(small: Paths) -> None:
    """A client that is replaced by a new process goes on with the noise and the account of the one before it."""
    limits = {"join_grace": 0.2, "rejoin_grace": 60, "min_clients": 2}
    federation = Federation(small, plan(rounds=3, privacy=SAMPLE, federation=limits))

    async def scene() -> None:
        async with federation.server() as (_, server):
            again: list[asyncio.Task[None]] = []

            async def die(number: int) -> None:
                if number == 2:
                    again.append(asyncio.create_task(come_back()))
                    raise asyncio.CancelledError

            async def come_back() -> None:
                await asyncio.wait({second})
                await federation.client(1)

            first, second = federation.client(0), federation.client(1, before_round=die)
            await server
            await asyncio.gather(first, *again)

    run(scene())
    # client_1 left politely, so the two were dealt anew when it came back; what was lost counts as spent all the same
    rows = federation.table("clients.csv")
    assert all(float(row["epsilon"]) <= 3 for row in rows)
    last = [float(row["epsilon"]) for row in rows if row["client"] == "client_1"][-1]
    assert last > float(rows[0]["epsilon"])


def test_images_that_change_seats_keep_what_was_spent_on_them(small: Paths) -> None:
    """Dealt from one client to two, every seat is charged with what the one had spent, and the budget holds."""
    federation = Federation(small, plan(rounds=3, privacy=SAMPLE), clients=1)

    async def scene() -> None:
        late: list[asyncio.Task[None]] = []
        async with federation.server() as (state, server):

            async def bring_another(number: int) -> None:
                if number == 1:
                    late.append(federation.client(1))
                    while state.view.federation is None or not state.view.federation.attendance.membership.is_ready(
                        "client_1"
                    ):
                        await asyncio.sleep(0.01)

            first = federation.client(0, before_round=bring_another)
            await server
            await asyncio.gather(first, *late)

    run(scene())
    rows = federation.table("clients.csv")
    assert [(row["round"], row["size"]) for row in rows] == [("1", "1"), ("2", "2"), ("2", "2"), ("3", "2"), ("3", "2")]
    assert float(rows[2]["epsilon"]) > float(rows[0]["epsilon"]), "the newcomer's images had been spent on before"
    assert 2.9 < spent(federation)[-1] <= 3


def test_a_site_with_its_own_data_has_its_own_account(small: Paths) -> None:
    """A site's own images are charged to the site, at the rate of its own number of images."""
    folders.write_folders(small.raw, small.root / "own", 1, "iid", 1)
    federation = Federation(small, plan(rounds=1, privacy=SAMPLE), clients=2)

    async def scene() -> None:
        async with federation.server() as (_, server):
            own = small.root / "own" / "mnist_iid" / "client_0"
            clients = [federation.client(0), federation.client(1, own_data=own)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    ledger = read((small.results / "latest").resolve())
    assert set(ledger.sites) == {"client_1"}
    assert set(ledger.seats) == {0}
    assert all(2.9 < float(row["epsilon"]) <= 3 for row in federation.table("clients.csv"))


def test_secure_aggregation_goes_with_dp_sgd(small: Paths) -> None:
    """Clients that noise their own gradients may send their updates under secure aggregation as well."""
    federation = Federation(small, plan(rounds=2, privacy=SAMPLE, secagg="masking"))
    run(complete(federation, 2))
    assert federation.summary["status"] == "completed"
    assert 2.9 < spent(federation)[-1] <= 3


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_a_new_deal_charges_every_seat_with_the_most(tmp_path: object) -> None:
    """After a change of size, each seat starts from a bound on what any had spent; coming back frees nobody of it."""
    del tmp_path
    ledger = Ledger()
    ledger.add("a", Seat(2, 0), Steps(0.1, 1.0, 3))
    ledger.add("b", Seat(2, 1), Steps(0.1, 1.0, 5))
    assert ledger.of("a", Seat(2, 0)) == ([], [Steps(0.1, 1.0, 3)])
    assert ledger.of("x", Seat(2, 0)) == ([], [Steps(0.1, 1.0, 3)]), "the seat's data count, not who sits on it"
    assert ledger.of("a", Seat(3, 2)) == ([Steps(0.1, 1.0, 5)], [])
    ledger.add("a", Seat(3, 2), Steps(0.2, 1.0, 1))
    assert ledger.of("b", Seat(3, 0)) == ([Steps(0.1, 1.0, 5)], [])
    assert ledger.of("a", Seat(2, 0)) == ([Steps(0.1, 1.0, 5), Steps(0.2, 1.0, 1)], [])
    assert ledger.of("site", None) == ([], [])


def test_a_ledger_is_read_as_it_was_written(tmp_path: Any) -> None:
    """What was spent comes back from the file; a damaged file is an error, and never an empty account."""
    ledger = Ledger([Steps(0.1, 1.0, 5)], 3, {2: [Steps(0.2, 1.5, 1)]}, {"s": [Steps(1.0, 2.0, 7)]})
    path = tmp_path / LEDGER
    path.parent.mkdir()
    path.write_text(ledger.dump())
    assert read(tmp_path) == ledger
    path.write_text(ledger.dump()[:-20])
    with pytest.raises(DataError, match="nobody can tell what privacy was spent"):
        read(tmp_path)


# -- central ----------------------------------------------------------------------------------------------------------


def test_a_central_run_spends_its_budget(small: Paths) -> None:
    """Noise on the average is made for the planned rounds, and the last model is the one that is kept."""
    federation = Federation(small, plan(rounds=3, privacy=CENTRAL))
    run(complete(federation, 2))
    figures = spent(federation)
    assert sorted(figures) == figures
    assert 7.8 < figures[-1] <= 8
    assert federation.summary["privacy"]["kind"] == "central"
    assert federation.summary["model_round"] == 3


def replies(*updates: list[float]) -> dict[str, messaging.TrainReply]:
    """Make replies of clients that weight their updates by different numbers of steps."""
    return {
        str(number): messaging.TrainReply(
            n_epoch=1,
            n_steps=number + 1,
            t_spent=1.0,
            updates=ModelUpdates(NumpyVector({"w": np.array(update) * (number + 1)}), number + 1),
            aux_var={},
        )
        for number, update in enumerate(updates)
    }


def test_updates_are_clipped_and_count_alike(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each update is scaled to the norm, whatever its weight; one that is not finite counts as nothing."""
    changes: dict[str, Any] = {"privacy": CENTRAL | {"max_grad_norm": 1.0}}
    central = CentralPrivacy(plan(**changes), RunFolder.create(tmp_path))
    deviations = []

    def no_noise(shape: tuple[int, ...], deviation: float) -> Any:
        deviations.append(deviation)
        return np.zeros(shape, np.float32)

    monkeypatch.setattr("services.randomness.normal", no_noise)
    asyncio.run(central.within_budget(["0"], {}, 1))
    reply = central.noised(replies([30.0, 40.0], [0.3, 0.0], [np.nan, 1.0]))["aggregated"]
    np.testing.assert_allclose(reply.updates.updates.coefs["w"], np.array([0.6 + 0.3, 0.8]) / 3, rtol=1e-6)
    assert reply.updates.weights == 1
    assert deviations == [central.ledger.rounds[0].noise]
    assert read(central._folder.path).rounds == [Steps(1.0, deviations[0], 1)]


def test_a_spent_central_budget_ends_the_run(tmp_path: Any) -> None:
    """After as many averages as were planned for, no further one is given out, in this process or the next."""
    folder = RunFolder.create(tmp_path)
    central = CentralPrivacy(plan(rounds=2, privacy=CENTRAL), folder)
    for _ in range(2):
        assert asyncio.run(central.within_budget(["0"], {}, 1)) == ["0"]
        central.noised(replies([1.0]))
    for account in (central, CentralPrivacy(plan(rounds=2, privacy=CENTRAL), folder)):
        assert asyncio.run(account.within_budget(["0"], {}, 3)) == []
        assert account.all_spent()
