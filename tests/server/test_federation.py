"""Rounds of a whole federation: who is dealt what, who counts, what is recorded."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from declearn import messaging
from declearn.communication.websockets import WebsocketsClient
from declearn.messaging import Message
from declearn.metrics import MeanMetric
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.secagg.messaging import SecaggTrainReply

from services import shards
from services.errors import ConflictError, DataError, DistrustError, QuorumError, RefusedError, TrainingError
from services.init import folders
from services.paths import CA_CERTIFICATE, Paths, client_certificate, client_key
from services.report import main as report
from services.server.attendance import derived_seed
from services.server.main import open_folder
from services.server.membership import natural
from tests import events
from tests.faults.dishonest_client import forger
from tests.federation import Federation, Forger, plan, run
from tests.readers.test_images import write as write_image


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
        "clients.png",
        "confusion.csv",
        "confusion.png",
        "distribution.csv",
        "distribution.png",
        "curves.png",
        "events.csv",
        "experiment.yml",
        "history.csv",
        "mistakes.json",
        "mistakes.png",
        "model.keras",
        "report.html",
        "summary.json",
        "tensorboard",
    }
    assert [row["round"] for row in federation.table("history.csv")] == ["1", "2"]
    rows = federation.table("clients.csv")
    assert [(row["round"], row["client"], row["seat"], row["size"], row["steps"]) for row in rows] == [
        ("1", "client_0", "0", "2", "2"),
        ("1", "client_1", "1", "2", "2"),
        ("2", "client_0", "0", "2", "2"),
        ("2", "client_1", "1", "2", "2"),
    ]
    board = folder / "tensorboard"
    steps, values = zip(*events.curve(board / "server", "curves/test_accuracy"), strict=True)
    assert steps == (1, 2)
    assert values == pytest.approx([float(row["test_accuracy"]) for row in federation.table("history.csv")])
    (confusion,) = events.read(board / "server").Images("final/confusion")
    assert confusion.encoded_image_string == (folder / "confusion.png").read_bytes()
    assert [step for step, _ in events.curve(board / "client_1", "curves/accuracy")] == [1, 2]


OWN = """
import keras
from keras import layers

def build(image_shape, classes):
    return keras.Sequential(
        [layers.Input(image_shape), layers.Flatten(), layers.Dense(classes, activation="softmax")]
    )
"""


def test_a_model_of_ones_own_is_trained_and_resumed_only_as_it_was(small: Paths) -> None:
    """A file's network is trained by clients that have no code of it; a run goes on with that file alone."""
    limits = {"join_grace": 0.2, "quorum_timeout": 0.1, "rejoin_grace": 0.1}
    federation = Federation(small, plan(rounds=2, model={"module": "own.py:build"}, federation=limits))
    federation.options.models.mkdir()
    file = federation.options.models / "own.py"
    file.write_text(OWN, encoding="utf-8")

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def leave(number: int) -> None:
                if number == 2:
                    raise asyncio.CancelledError

            clients = [federation.client(number, before_round=leave) for number in range(2)]
            with pytest.raises(QuorumError):
                await server
            await asyncio.wait(clients)
        assert (federation.summary["status"], federation.summary["rounds"]) == ("stopped", 1)
        run_id = federation.summary["run_id"]
        file.write_text(OWN + "# a remark\n", encoding="utf-8")
        with pytest.raises(ConflictError) as caught:
            async with federation.server():
                pass
        assert str(caught.value) == (
            f"run {run_id} is unfinished and was begun with another own.py; wanted the same file: one that has changed"
            f" is another experiment; put back that file (results/{run_id}/model.py), or begin anew with FRESH=1"
            " (`fed server --fresh`)"
        )
        shutil.copy(small.results / run_id / "model.py", file)
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            await server
            await asyncio.gather(*clients)
        assert federation.summary["run_id"] == run_id

    run(scene())
    summary = federation.summary
    assert (summary["status"], summary["rounds"]) == ("completed", 2)
    assert summary["model_sha256"] == hashlib.sha256(OWN.encode()).hexdigest()
    assert keras.saving.load_model(small.results / "latest" / "model.keras").count_params() == 7850


@pytest.mark.parametrize("more", [{"deterministic": True}, {"secagg": "masking"}], ids=["deterministic", "secagg"])
def test_a_linear_model_is_trained_and_goes_on_after_a_stop(small: Paths, more: dict[str, Any]) -> None:
    """scikit-learn's model is trained, stopped, taken up and kept as its own framework keeps it, under secagg too."""
    limits = {"join_grace": 0.2, "min_clients": 2, "quorum_timeout": 0.1, "rejoin_grace": 0.1}
    federation = Federation(small, plan(rounds=2, model={"sklearn": {}}, federation=limits, **more))

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def leave(number: int) -> None:
                if number == 2:
                    raise asyncio.CancelledError

            clients = [federation.client(number, before_round=leave) for number in range(2)]
            with pytest.raises(QuorumError):
                await server
            await asyncio.wait(clients)
        assert (federation.summary["status"], federation.summary["rounds"]) == ("stopped", 1)
        async with federation.server() as (state, server):
            assert state.resumed
            clients = [federation.client(number) for number in range(2)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    summary = federation.summary
    assert (summary["status"], summary["rounds"]) == ("completed", 2)
    folder = small.results / "latest"
    kept = np.load(folder / "model.npz", allow_pickle=False)
    images, labels = shards.load_test(small.test)
    scores = images.reshape(len(images), -1) / 255 @ kept["coef"].T + kept["intercept"]
    assert summary["test_accuracy"] == pytest.approx(float((scores.argmax(axis=1) == labels).mean()))
    assert not (folder / "model.keras").exists()
    board = folder / "tensorboard"
    assert {path.name for path in board.iterdir()} == {
        "server",
        *(() if "secagg" in more else ("client_0", "client_1")),
    }
    for name in board.iterdir():
        assert [step for step, _ in events.curve(name, "time/train_s")] == [1, 2]
    shown = events.read(board / "server")
    assert [each.step for each in shown.Histograms("weights/coef")] == [1, 2]
    assert [each.step for each in shown.Images("final/confusion")] == [1, 2]


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


def _pictures(folder: Path, names: str) -> Path:
    """Write some images of noise in colour, in a folder a class."""
    rng = np.random.default_rng(0)
    for name in names:
        for number in range(40):
            write_image(folder / name / f"{number}.png", rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
    return folder


def test_images_by_class_train_clients_and_sites(tmp_path: Path) -> None:
    """Images in colour are dealt to one client, a site has its own, and a site that lacks a class is told so."""
    paths = Paths(tmp_path / "root", _pictures(tmp_path / "mine", "abc"))
    federation = Federation(paths, plan(data={"dataset": "own"}), clients=3)

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [
                federation.client(0),
                federation.client(1, own_data=_pictures(tmp_path / "site", "abc")),
                federation.client(2, own_data=_pictures(tmp_path / "other", "ab")),
            ]
            await server
            ends.extend(await asyncio.gather(*clients, return_exceptions=True))

    ends: list[BaseException | None] = []
    run(scene())
    assert [type(end) for end in ends] == [type(None), type(None), DataError]
    assert str(ends[2]).startswith("this site names 2 classes; wanted 3")
    assert federation.summary["dataset"] == "own"
    rows = [row for row in federation.table("clients.csv") if row["round"] == "2"]
    assert [(row["client"], row["size"], row["state"]) for row in rows] == [
        ("client_0", "1", "trained"),
        ("client_1", "", "trained"),
    ]
    refused = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert [(row["client"], row["detail"]) for row in refused] == [
        ("client_2", "its data can't be used; wanted 3, as the federation's model tells 3 classes apart"),
    ], "what it has stays its own"


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


def test_a_client_that_refuses_the_model_is_left_out_with_its_reason(small: Paths) -> None:
    """Who gives a model less room than it needs says so, and leaves; the others train it."""
    federation = Federation(small, plan(rounds=1))

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(0), federation.client(1, max_parameters=1000)]
            await server
            ends.extend(await asyncio.gather(*clients, return_exceptions=True))

    ends: list[BaseException | None] = []
    run(scene())
    line = (
        "the server's model has 54,412 parameters; wanted at most 1,000;"
        " raise MAX_PARAMETERS (`fed client --max-parameters`) if this machine is to train it"
    )
    assert [type(end) for end in ends] == [type(None), DistrustError]
    assert str(ends[1]) == line
    assert federation.summary["status"] == "completed"
    (refused,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert (refused["client"], refused["detail"]) == ("client_1", line)


def test_a_client_that_goes_during_a_round_costs_no_more_than_its_part(small: Paths) -> None:
    """When a client leaves, the others finish the round, and the run is completed by those that remain."""
    federation = Federation(small, plan(rounds=3, train={"batch_size": 20, "epochs": 3}))

    async def scene() -> None:
        async with federation.server() as (state, server):
            clients = [federation.client(number) for number in range(2)]
            while state.view.federation is None or state.view.federation.phase != "training":
                await asyncio.sleep(0.005)
            clients[1].cancel()
            await server
            await clients[0]

    run(scene())
    assert federation.summary["status"] == "completed"
    first = federation.table("history.csv")[0]
    assert (first["clients"], first["dropped"]) == ("1", "1")
    assert [row["size"] for row in federation.table("clients.csv") if row["round"] == "2"] == ["1"]


def test_a_straggler_misses_its_round_and_takes_part_again(small: Paths) -> None:
    """Who has not answered by the deadline is left out of that round alone, and its late reply is not counted."""
    federation = Federation(small, plan(rounds=6, federation={"join_grace": 0.2, "round_timeout": 3.0}))

    async def scene() -> None:
        recorded = asyncio.Event()
        async with federation.server() as (state, server):

            async def dawdle(number: int) -> None:
                if number == 2:
                    await recorded.wait()

            async def report(number: int) -> None:
                if number == 3:
                    recorded.set()
                    while state.view.federation is None or state.view.federation.netwk.handler.is_busy("client_1"):
                        await asyncio.sleep(0.01)

            clients = [federation.client(0, before_round=report), federation.client(1, before_round=dawdle)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    rows = federation.table("clients.csv")
    states = {row["round"]: (row["state"], row["reason"]) for row in rows if row["client"] == "client_1"}
    assert states["1"] == ("trained", "")
    assert states["2"] == ("late", "no answer within 3 s")
    assert "3" not in states, "it was still at work when round 3 began"
    assert states["4"] == states["6"] == ("trained", "")
    assert {row["size"] for row in rows} == {"2"}, "its seat was kept for it"
    assert "lost" not in {row["event"] for row in federation.table("events.csv")}


def test_an_error_a_client_reports_costs_it_that_round_and_nobody_else(small: Paths) -> None:
    """A client that fails in training is dropped from the round with its reason; the run is completed."""
    federation = Federation(small, plan(rounds=3))

    async def scene() -> None:
        async def fail(number: int) -> str | None:
            return "disk on fire" if number == 2 else None

        async with federation.server() as (_, server):
            clients = [federation.client(0), federation.client(1, before_round=fail)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    rows = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("trained", ""),
        ("error", "disk on fire"),
        ("trained", ""),
    ]
    assert [row["dropped"] for row in federation.table("history.csv")] == ["0", "1", "0"]
    assert "client_1 dropped out of 1 round: 2 (reported an error, disk on fire)." in federation.page


def test_clients_that_always_fail_end_the_run(small: Paths) -> None:
    """A round that no client can train is tried three times; then the run fails and says where to look."""
    federation = Federation(small, plan(), clients=1)

    async def scene() -> None:
        async def fail(_: int) -> str:
            return "no"

        async with federation.server() as (_, server):
            client = federation.client(0, before_round=fail)
            with pytest.raises(TrainingError) as caught:
                await server
            assert str(caught.value) == (
                "round 1 failed 3 times in a row, though clients were there; wanted clients that can train; "
                "see their reasons above and in events.csv"
            )
            with pytest.raises(TrainingError, match="the server cancelled training"):
                await client

    run(scene())
    assert federation.summary["status"] == "failed"


def test_a_newcomer_takes_part_in_the_next_round(small: Paths) -> None:
    """Who joins while a round goes on is set up meanwhile, and the next round is dealt to all."""
    federation = Federation(small, plan(rounds=4), clients=1)

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
    assert [row["size"] for row in federation.table("history.csv")] == ["1", "1", "2", "2"]


def test_a_lost_quorum_stops_the_run_and_the_next_server_goes_on(small: Paths) -> None:
    """Fewer clients than the quorum stop the run, and the next server runs the rounds that are left, once each."""
    limits = {"join_grace": 0.2, "join_timeout": 20, "min_clients": 2, "quorum_timeout": 0.3, "rejoin_grace": 0.1}
    federation = Federation(small, plan(rounds=4, federation=limits))

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def go(number: int) -> None:
                if number == 3:
                    raise asyncio.CancelledError

            clients = [federation.client(0), federation.client(1, before_round=go)]
            with pytest.raises(QuorumError) as caught:
                await server
            assert caught.value.found == "1 clients were there for 0.3 s"
            clients[0].cancel()
            await asyncio.wait(clients)
        assert federation.summary["status"] == "stopped"
        assert (
            "It was stopped after 2 of 4 rounds: 1 clients were there for 0.3 s; wanted at least 2" in federation.page
        )
        run_id = federation.summary["run_id"]
        async with federation.server() as (state, server):
            assert state.resumed
            clients = [federation.client(number) for number in range(2)]
            await server
            await asyncio.gather(*clients)
        assert federation.summary["run_id"] == run_id

    run(scene())
    assert federation.summary["status"] == "completed"
    assert [row["round"] for row in federation.table("history.csv")] == ["1", "2", "3", "4"]
    assert "void" in {row["event"] for row in federation.table("events.csv")}
    assert "All 4 rounds are done." in federation.page
    assert "The server ended and was started again 1 time: after round 2." in federation.page


def test_another_plan_than_the_unfinished_run_s_is_refused(small: Paths) -> None:
    """An unfinished run is not gone on with under another plan; `fresh` begins a new one."""
    federation = Federation(small, plan(federation={"join_timeout": 0.2}))

    async def scene() -> None:
        async with federation.server() as (state, server):
            with pytest.raises(QuorumError):
                await server
            assert state.view.federation is not None
            state.view.federation.checkpoint().save(state.folder.path)

    run(scene())
    changed = federation.plan.model_copy(update={"rounds": 9})
    with pytest.raises(ConflictError) as caught:
        open_folder(changed, small.results, fresh=False)
    run_id = federation.summary["run_id"]
    assert str(caught.value) == (
        f"run {run_id} is unfinished and was begun with rounds 2; wanted rounds 9 as asked now; finish it with its own "
        f"plan (results/{run_id}/experiment.yml), or begin anew with FRESH=1 (`fed server --fresh`)"
    )
    folder, resumed = open_folder(changed, small.results, fresh=True)
    assert (resumed, folder.run_id == run_id) == (False, False)
    folder.close()
    folder, resumed = open_folder(federation.plan, small.results, fresh=False)
    assert (resumed, folder.run_id == run_id) == (True, True)
    beside, resumed = open_folder(federation.plan, small.results, fresh=False)
    assert (resumed, beside.run_id == run_id) == (False, False), "the first server is still at work on it"
    folder.close()
    beside.close()


def test_a_model_that_is_no_longer_finite_ends_the_run(small: Paths) -> None:
    """A loss that is not a number fails the run after that round, instead of training on for nothing."""
    federation = Federation(small, plan(rounds=5, optimizer={"server": {"lrate": 1e38}}))

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            with pytest.raises(TrainingError, match="the model's test loss is nan after round 1; wanted a finite one"):
                await server
            for outcome in await asyncio.gather(*clients, return_exceptions=True):
                assert isinstance(outcome, TrainingError)

    run(scene())
    assert (federation.summary["status"], federation.summary["rounds"]) == ("failed", 1)
    assert "It failed after 1 of 5 rounds: the model's test loss is nan after round 1" in federation.page


def test_updates_that_are_all_useless_end_the_run(small: Paths) -> None:
    """A learning rate with which every client's update overflows fails the run in its first round, and says so."""
    federation = Federation(small, plan(rounds=5, optimizer={"client": {"lrate": 1e30, "modules": []}}))

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            with pytest.raises(TrainingError, match="round 1: no client's reply can be used") as caught:
                await server
            assert caught.value.remedy == "lower the learning rate"
            for outcome in await asyncio.gather(*clients, return_exceptions=True):
                assert isinstance(outcome, TrainingError)

    run(scene())
    assert (federation.summary["status"], federation.summary["rounds"]) == ("failed", 0)


def _broken(reply: Message) -> Message:
    """Forge an answer to another question, in clear."""
    return messaging.InitReply() if isinstance(reply, messaging.TrainReply | SecaggTrainReply) else reply


def _strange(reply: Message) -> Message:
    """Forge variables of an optimizer's module that the server has none of."""
    if isinstance(reply, messaging.TrainReply):
        return dataclasses.replace(reply, aux_var={"momentum": ScaffoldAuxVar(delta=0.0)})
    return reply


def _hopeless(reply: Message) -> Message:
    """Forge a validation loss that would spoil everybody's average."""
    return dataclasses.replace(reply, loss=float("nan")) if isinstance(reply, messaging.EvaluationReply) else reply


def _unlike(reply: Message) -> Message:
    """Forge figures that can't be added to anybody's."""
    if isinstance(reply, messaging.EvaluationReply):
        empty = MeanMetric.state_cls()
        return dataclasses.replace(reply, metrics={"loss": empty, "multi-classif": empty})
    return reply


@pytest.mark.parametrize(
    ("forge", "fault"),
    [
        (forger("nan"), "its updates hold values that are not finite in conv/kernel:0"),
        (forger("dtype"), "its updates hold values of type float64 in conv/kernel:0, not float32"),
        (forger("steps"), "it claims 2000 steps, its images allow 2"),
        (_strange, "it sends auxiliary variables 'momentum', which nobody asked for"),
        (_broken, "answered with 'init_reply' where 'train_reply' was due"),
    ],
)
def test_a_dishonest_client_is_left_out_and_then_put_out(small: Paths, forge: Forger, fault: str) -> None:
    """A client whose updates are none costs the others nothing, and after three in a row its images are dealt anew."""
    federation = Federation(small, plan(rounds=5), clients=3)
    outcomes = run(federation.play_with(None, forge, None))
    assert federation.summary["status"] == "completed"
    assert np.isfinite(federation.summary["test_loss"])
    rows = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert [(row["round"], row["state"], row["reason"]) for row in rows] == [
        (str(number), "refused", fault) for number in (1, 2, 3)
    ]
    assert [row["size"] for row in federation.table("history.csv")] == ["3", "3", "3", "2", "2"]
    (out,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    reason = f"its replies were refused 3 times in a row, last: {fault}"
    assert (out["client"], out["round"], out["detail"]) == ("client_1", "2", reason)
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert isinstance(outcomes[1], RefusedError)
    assert str(outcomes[1]) == (
        f"the server refused client_1: put out of this run: {reason}; mend what that names; then ask who operates the "
        "federation"
    )


def test_an_update_that_is_sent_again_is_refused(small: Paths) -> None:
    """A client that answers each round with what it has learned in the first is told by that, and put out."""
    federation = Federation(small, plan(rounds=5), clients=3)
    run(federation.play_with(None, forger("other-round"), None))
    rows = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("trained", ""),
        *[("refused", "its updates are those that it sent in round 1")] * 3,
    ]
    assert federation.summary["status"] == "completed"


def test_who_is_put_out_stays_out_until_the_operator_says_otherwise(
    small: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not let in again, nor by the server's next process; on the denylist and off it again, it may return."""
    federation = Federation(small, plan(rounds=40), clients=3)
    refused, denied = "put out of this run: its replies were refused 3 times in a row", set[str]()

    async def reach(number: int) -> None:
        while federation.summary["rounds"] < number and len(federation.table("history.csv")) < number:
            await asyncio.sleep(0.01)

    async def first() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(number, forge=forger("nan") if number == 1 else None) for number in range(3)]
            with pytest.raises(RefusedError, match=refused):
                await clients[1]
            with pytest.raises(RefusedError, match=refused):
                await federation.client(1)
            await reach(5)
            server.cancel()
            await asyncio.wait([server, *clients])

    async def then() -> None:
        async with federation.server() as (state, server):
            monkeypatch.setattr(state.endpoint.door, "denied", lambda: denied)
            clients = [federation.client(number) for number in (0, 2)]
            with pytest.raises(RefusedError, match=refused):
                await federation.client(1)
            denied.add("client_1")
            state.endpoint.enforce_denials()
            denied.clear()
            state.endpoint.enforce_denials()
            clients.append(federation.client(1))
            await server
            await asyncio.gather(*clients)

    run(first())
    assert federation.summary["status"] == "stopped"
    run(then())
    assert federation.summary["status"] == "completed"
    states = [row["state"] for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert states[:3] == ["refused"] * 3
    assert set(states[3:]) == {"trained"}


def test_a_round_that_draws_dishonest_clients_alone_is_drawn_again(small: Paths) -> None:
    """Where one client is drawn, and it is dishonest, the round does not count, and the run goes on with another."""
    spec = {"uniform": {"n_samples": 1}}
    federation = Federation(small, plan(rounds=6, sampling=spec), clients=3)
    run(federation.play_with(None, forger("nan"), None))
    assert (federation.summary["status"], federation.summary["rounds"]) == ("completed", 6)
    trained = {row["client"] for row in federation.table("clients.csv") if row["state"] == "trained"}
    assert trained <= {"client_0", "client_2"}
    assert "void" in {row["event"] for row in federation.table("events.csv")}


@pytest.mark.parametrize(
    ("changes", "forge", "failed"),
    [({"secagg": "masking"}, _broken, 1), ({"deterministic": True}, forger("nan"), 3)],
)
def test_rounds_that_need_everybody_go_on_without_who_is_put_out(
    small: Paths, changes: dict[str, Any], forge: Forger, failed: int
) -> None:
    """Where a round counts only whole, few of them fail, a single one where all is encrypted; then come the others."""
    federation = Federation(small, plan(rounds=2, **changes), clients=3)
    run(federation.play_with(None, forge, None))
    assert (federation.summary["status"], federation.summary["rounds"]) == ("completed", 2)
    assert {row["client"] for row in federation.table("clients.csv")} == {"client_0", "client_2"}
    assert [row["event"] for row in federation.table("events.csv")].count("void") == failed


def test_a_site_s_steps_are_bounded_by_the_images_that_it_says_it_has(
    small: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    """A site is asked for the number of its images when it joins; more steps than these allow are refused."""
    folders.write_folders(small.raw, small.root / "own", 1, "iid", 1)
    federation = Federation(small, plan(rounds=1, train={"batch_size": 200}), clients=2)
    own = small.root / "own" / "mnist_iid" / "client_0"

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(0), federation.client(1, own_data=own, forge=forger("steps", 2))]
            await server
            await asyncio.gather(*clients)

    with caplog.at_level(logging.INFO):
        run(scene())
    assert "client_1 has 480 training images of its own, as it says" in caplog.text
    (row,) = [row for row in federation.table("clients.csv") if row["client"] == "client_1"]
    assert (row["state"], row["reason"]) == ("refused", "it claims 4 steps, its images allow 3")


def test_a_site_that_says_nothing_of_its_images_is_refused(small: Paths) -> None:
    """A number of images that can be none keeps a site out, and nobody else."""

    def boast(message: Message) -> Message:
        return messaging.MetadataReply({"n_samples": -1}) if isinstance(message, messaging.MetadataReply) else message

    folders.write_folders(small.raw, small.root / "own", 1, "iid", 1)
    federation = Federation(small, plan(rounds=1), clients=2)
    own = small.root / "own" / "mnist_iid" / "client_0"

    async def scene() -> None:
        async with federation.server() as (_, server):
            clients = [federation.client(0), federation.client(1, own_data=own, forge=boast)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    assert {row["client"] for row in federation.table("clients.csv")} == {"client_0"}
    (out,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert (out["client"], out["detail"]) == ("client_1", "it says that it has '-1' images")


@pytest.mark.parametrize(
    ("forge", "fault"),
    [(_hopeless, "its loss is nan"), (_unlike, "its metrics hold 'MeanState' for multi-classif")],
)
def test_a_dishonest_validation_is_left_out(small: Paths, forge: Forger, fault: str) -> None:
    """A client whose validation figures are none still trains, and is not in the average."""
    federation = Federation(small, plan(), clients=2)
    run(federation.play_with(None, forge))
    assert all(np.isfinite(float(row["loss"])) for row in federation.table("history.csv"))
    assert {row["loss"] == "" for row in federation.table("clients.csv") if row["client"] == "client_1"} == {True}
    assert {row["state"] for row in federation.table("clients.csv")} == {"trained"}
    assert f"its reply is refused: {fault}" in {row["detail"] for row in federation.table("events.csv")}


def test_names_are_ordered_as_people_count() -> None:
    """`client_2` has a lower seat than `client_10`."""
    assert sorted(["client_10", "client_2", "b", "client_0"], key=natural) == ["b", "client_0", "client_2", "client_10"]


def test_seeds_derived_for_different_uses_differ() -> None:
    """One run's seed gives each seat of each size its own, the same every time."""
    seeds = {derived_seed(0, size, seat) for size in range(1, 33) for seat in range(size)}
    assert len(seeds) == 32 * 33 // 2
    assert derived_seed(0, 3, 1) == 3852155480


def test_a_deterministic_run_counts_only_whole_rounds(small: Paths) -> None:
    """Where a client is lost, a deterministic run waits for it instead of going on without; a stop leaves no trace."""
    limits = {"join_grace": 0.2, "rejoin_grace": 0.1, "quorum_timeout": 0.3}
    federation = Federation(small, plan(rounds=3, deterministic=True, federation=limits))

    async def scene() -> None:
        async with federation.server() as (_, server):

            async def leave(number: int) -> None:
                if number == 2:
                    raise asyncio.CancelledError

            clients = [federation.client(0), federation.client(1, before_round=leave)]
            with pytest.raises(
                QuorumError, match=r"1 clients were there for 0.3 s; wanted at least 2 \(deterministic\)"
            ):
                await server
            clients[0].cancel()
            await asyncio.wait(clients)
        assert federation.summary["rounds"] == 1
        async with federation.server() as (_, server):
            clients = [federation.client(number) for number in range(2)]
            await server
            await asyncio.gather(*clients)

    run(scene())
    assert [(row["round"], row["clients"]) for row in federation.table("history.csv")] == [
        ("1", "2"),
        ("2", "2"),
        ("3", "2"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("clients.csv is damaged"), "clients.csv is damaged"),
        (RuntimeError("no font"), r"unforeseen RuntimeError at \w+\.py:\d+: no font"),
    ],
)
def test_a_run_without_its_report_is_the_run_that_it_was(
    small: Paths,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    """A report that can't be made is a warning, after the summary is written; the run is complete."""

    def fail(folder: Path) -> None:
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        raise error

    monkeypatch.setattr(report, "write", fail)
    federation = Federation(small, plan(rounds=1))
    with caplog.at_level(logging.WARNING):
        run(federation.play())
    assert (federation.summary["status"], federation.summary["rounds"]) == ("completed", 1)
    (line,) = [line for line in caplog.messages if line.startswith("there is no report: ")]
    assert re.fullmatch(f"there is no report: {reason}", line)
    assert not (small.results / "latest" / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"deterministic": True}, "deterministic run"),
        ({"privacy": {"epsilon": 50.0, "max_grad_norm": 1.0}}, "run with DP-SGD"),
        ({"fairness": {"algorithm": "monitor", "groups": "class"}}, "run with fairness"),
    ],
    ids=["deterministic", "privacy", "fairness"],
)
def test_a_stock_client_takes_no_part_in_what_it_lacks(small: Paths, changes: dict[str, Any], kind: str) -> None:
    """What stock declearn clients do not know leaves them out, with the reason, and the run goes on with the others."""
    federation = Federation(small, plan(rounds=1, **changes))

    async def scene() -> None:
        async with federation.server() as (state, server):
            stock = WebsocketsClient(
                f"wss://localhost:{state.endpoint.port}", "client_1", str(small.certs / CA_CERTIFICATE)
            )
            assert stock._ssl is not None
            stock._ssl.load_cert_chain(
                small.client_certs / client_certificate("client_1"), small.client_certs / client_key("client_1")
            )
            other = federation.client(0)
            async with stock:
                assert await stock.register()
                await server
            await other

    run(scene())
    assert federation.summary["status"] == "completed"
    assert [row["client"] for row in federation.table("clients.csv")] == ["client_0"]
    (refused,) = [row for row in federation.table("events.csv") if row["event"] == "refused"]
    assert (refused["client"], refused["detail"]) == ("client_1", f"a {kind} takes no stock declearn client")
