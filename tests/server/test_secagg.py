"""Secure aggregation, in whole federations: the sum is right, nobody's part can be read, and the lost are left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import numpy as np
import pytest
from declearn.secagg.messaging import SecaggEvaluationReply, SecaggTrainReply
from declearn.secagg.x3dh.messages import X3DHOkay, X3DHRequests
from keras import layers

from services.errors import QuorumError
from services.paths import Paths
from services.server.engines.tensorflow import PRESETS
from services.server.federation import Federation as Rounds
from services.transport.client import ClientEndpoint
from tests.federation import PATIENCE, Federation, plan

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, in bounded time."""
    return asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


def figures(federation: Federation) -> list[tuple[float, float]]:
    """Loss and test loss of each round."""
    return [(float(row["loss"]), float(row["test_loss"])) for row in federation.table("history.csv")]


async def complete(federation: Federation, clients: int) -> None:
    """Run a federation to its end."""
    async with federation.server() as (_, server):
        tasks = [federation.client(number) for number in range(clients)]
        await server
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("kind", ["masking", "joye-libert"])
def test_the_sum_is_that_of_the_plain_run(small: Paths, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A run under secure aggregation ends with the figures of the plain run, up to quantization."""
    # a network of a few parameters: Joye-Libert encrypts each of them with big integers
    monkeypatch.setitem(
        PRESETS,
        "cnn",
        lambda classes: [
            layers.AveragePooling2D(7, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(classes, activation="softmax", name="classes"),
        ],
    )
    changes: dict[str, Any] = {"rounds": 1 if kind == "joye-libert" else 2, "train": {"batch_size": 20, "steps": 1}}
    plain = Federation(small, plan(**changes))
    run(complete(plain, 2))
    expected = figures(plain)
    secure = Federation(small, plan(**changes, secagg=kind))
    run(complete(secure, 2))
    assert secure.summary["status"] == "completed"
    np.testing.assert_allclose(figures(secure), expected, rtol=2e-2)
    assert {row["loss"] + row["steps"] for row in secure.table("clients.csv")} == {""}, (
        "one client's figures are hidden"
    )


def test_the_server_can_not_read_a_single_update(small: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server receives of one client has nothing in common with what that client would have sent in clear."""
    seen: list[dict[str, Any]] = []
    original = Rounds._ask

    async def spy(self: Rounds, *args: Any) -> Any:
        replies, losses = await original(self, *args)
        seen.append(replies)
        return replies, losses

    monkeypatch.setattr(Rounds, "_ask", spy)
    changes: dict[str, Any] = {"rounds": 1, "train": {"batch_size": 20, "steps": 1}}
    run(complete(Federation(small, plan(**changes)), 2))
    run(complete(Federation(small, plan(**changes, secagg="masking")), 2))
    clear, secret = seen[0]["client_0"], seen[2]["client_0"]
    assert isinstance(secret, SecaggTrainReply)
    update = np.concatenate([np.ravel(value) for value in clear.updates.updates.coefs.values()])
    values = np.asarray(secret.updates.encrypted, dtype=np.float64).ravel()[: update.size]
    assert len(values) == len(update)
    assert abs(np.corrcoef(values, update)[0, 1]) < 0.05
    quantized_range = 2.0**64
    assert values.std() > 0.2 * quantized_range, "a masked value is spread over the whole range, whatever it hides"


def test_a_round_that_loses_a_client_is_run_again_with_the_others(small: Paths) -> None:
    """A client lost in a round makes it void; the others agree on new secrets, and the run is completed."""
    federation = Federation(
        small, plan(rounds=3, secagg="masking", federation={"join_grace": 0.2, "rejoin_grace": 0.1}), 3
    )

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def die(number: int) -> None:
                if number == 2:
                    raise asyncio.CancelledError

            clients = [federation.client(0), federation.client(1), federation.client(2, before_round=die)]
            await server
            await asyncio.wait(clients)

    run(scene())
    assert federation.summary["status"] == "completed"
    assert [row["clients"] for row in federation.table("history.csv")] == ["3", "2", "2"]
    assert "void" in {row["event"] for row in federation.table("events.csv")}


def test_a_newcomer_is_let_into_the_secrets(small: Paths) -> None:
    """Who joins in the middle of a run takes part in a new set-up, and in the rounds after it."""
    federation = Federation(small, plan(rounds=4, secagg="masking"))

    async def scene() -> None:
        late: list[asyncio.Task[None]] = []
        async with federation.server() as (state, server):

            async def bring_another(number: int) -> None:
                if number == 2:
                    late.append(federation.client(2))
                    while state.view.federation is None or not state.view.federation.attendance.membership.is_ready(
                        "client_2"
                    ):
                        await asyncio.sleep(0.01)

            first = [federation.client(0, before_round=bring_another), federation.client(1)]
            await server
            await asyncio.gather(*first, *late)

    run(scene())
    assert [row["clients"] for row in federation.table("history.csv")] == ["2", "2", "3", "3"]


def test_a_single_client_is_no_quorum(small: Paths) -> None:
    """The sum over one client is that client's own, so one alone is never trained with."""
    limits = {"join_grace": 0.1, "quorum_timeout": 0.2}
    federation = Federation(small, plan(secagg="masking", federation=limits), clients=1)

    async def scene() -> None:
        async with federation.server() as (_, server):
            client = federation.client(0)
            with pytest.raises(QuorumError, match=r"wanted at least 2 \(secagg\)"):
                await server
            client.cancel()
            await asyncio.wait({client})

    run(scene())


def _short_updates(message: Any) -> None:
    if isinstance(message, SecaggTrainReply):
        message.updates.encrypted.pop()


def _negative_loss(message: Any) -> None:
    if isinstance(message, SecaggEvaluationReply):
        message.loss = -1


def _no_numbers(message: Any) -> None:
    if isinstance(message, X3DHRequests):
        message.requests = cast("list[int]", ["x"] * max(1, len(message.requests)))


def _no_kind(message: Any) -> None:
    if isinstance(message, X3DHOkay):
        vars(message)["typekey"] = "nonsense"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_short_updates, "its reply is refused: its updates are not encrypted as was agreed"),
        (_negative_loss, "its reply is refused: its figures hold what is no encrypted number"),
        (_no_numbers, "unreadable message (its requests is no List)"),
        (_no_kind, "unreadable message (\"No registered Message type matches typekey 'nonsense'.\")"),
    ],
)
def test_who_spoils_the_sum_is_put_out(
    small: Paths, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], reason: str
) -> None:
    """A client whose part of an exchange is none costs one attempt; then it is out, and the run goes on."""
    original = ClientEndpoint.send_message

    async def send(self: ClientEndpoint, message: Any, *args: Any, **kwargs: Any) -> None:
        if self.name == "client_2":
            spoil(message)
        await original(self, message, *args, **kwargs)

    monkeypatch.setattr(ClientEndpoint, "send_message", send)
    federation = Federation(small, plan(secagg="masking"), 3)
    run(complete(federation, 3))
    assert federation.summary["status"] == "completed"
    assert {row["clients"] for row in federation.table("history.csv")} <= {"2", "3"}
    assert federation.table("history.csv")[-1]["clients"] == "2"
    assert [(row["client"], row["detail"]) for row in federation.table("events.csv") if row["event"] == "refused"] == [
        ("client_2", reason)
    ]
