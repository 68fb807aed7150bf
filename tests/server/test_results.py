"""The folder of a run: its files, whole at any time, and what they say."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import logging
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import services
from services import experiment, logs
from services.errors import StorageError
from services.experiment import Plan
from services.server import results
from services.server.results import RunFolder, outlived
from services.source import Source
from services.tables import ClientRound, Round

ROUND = Round(
    round=1,
    seconds=10.0,
    train_s=7.5,
    eval_s=2.0,
    clients=2,
    dropped=1,
    loss=0.25,
    accuracy=0.9,
    test_loss=0.123456789,
    test_accuracy=0.9876,
    bytes_sent=1234567,
    bytes_received=89,
    size=3,
)
TRAINED = ClientRound(1, "client_0", 3, 0, "trained", "", 250, 7.5, 2.0, 0.25, 0.9, 1000, 89)
DROPPED = ClientRound(1, "client_1", None, None, "gone", "connection lost", None, None, None, None, None, 1000, 0)


class Clock(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock at 2026-01-02 03:04:05 UTC."""
    monkeypatch.setattr(datetime, "datetime", Clock)


@pytest.mark.usefixtures("still")
def test_a_run_is_named_after_its_start(tmp_path: Path) -> None:
    """A run's folder bears its start in UTC, a second run of that second also a number, and `latest` leads to it."""
    first = RunFolder.create(tmp_path / "results")
    second = RunFolder.create(tmp_path / "results")
    second.publish()
    assert (first.run_id, second.run_id) == ("20260102-030405", "20260102-030405-2")
    assert second.path == tmp_path / "results" / second.run_id
    assert second.label == "results/20260102-030405-2"
    assert (tmp_path / "results" / "latest").readlink() == Path(second.run_id)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [first.run_id, second.run_id, "latest"]


@pytest.mark.usefixtures("still")
def test_what_stands_in_the_way_of_latest_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder named `latest` stays, the run goes on without the link, and no trace of the link is left."""
    (tmp_path / "latest").mkdir()
    with caplog.at_level(logging.WARNING):
        folder = RunFolder.create(tmp_path)
        folder.publish()
    assert caplog.messages == [f"{tmp_path}/latest still points elsewhere (Is a directory)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.run_id, "latest"]


def test_results_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    """The line names folder, reason, user and the way out."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "results"
    with pytest.raises(StorageError) as caught:
        RunFolder.create(path)
    assert str(caught.value) == (
        f"results folder {path} can't be written (Not a directory); wanted a folder that user {os.geteuid()} may"
        f" write; run `chmod 1777 {path}`, or set RESULTS to another folder"
    )


@pytest.mark.usefixtures("still")
def test_a_hundred_runs_in_a_second_are_enough(tmp_path: Path) -> None:
    """Where no name is free the line says so, and nothing is written over."""
    for number in range(1, 101):
        (tmp_path / f"20260102-030405{'' if number == 1 else f'-{number}'}").mkdir()
    with pytest.raises(StorageError) as caught:
        RunFolder.create(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds a hundred runs of 20260102-030405; wanted a free run name; start again"
    )


def table(path: Path) -> list[dict[str, str]]:
    """Read a table as a program would."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_round_is_a_row(tmp_path: Path) -> None:
    """history.csv has the columns promised, in order, a row a round, numbers with six digits, overhead worked out."""
    folder = RunFolder.create(tmp_path)
    folder.add_round(ROUND, [])
    folder.add_round(dataclasses.replace(ROUND, round=2, loss=float("nan"), accuracy=np.float64(0.5)), [])
    folder.write_tables(folder.rounds, folder.clients)
    assert (folder.path / "history.csv").read_text() == (
        "round,seconds,train_s,eval_s,overhead_s,clients,dropped,loss,accuracy,test_loss,test_accuracy,"
        "bytes_sent,bytes_received,size,epsilon\n"
        "1,10,7.5,2,0.5,2,1,0.25,0.9,0.123457,0.9876,1234567,89,3,\n"
        "2,10,7.5,2,0.5,2,1,nan,0.5,0.123457,0.9876,1234567,89,3,\n"
    )


def test_each_client_and_round_is_a_row(tmp_path: Path) -> None:
    """clients.csv has a row a client and round; what a client did not come to is empty."""
    folder = RunFolder.create(tmp_path)
    folder.add_round(ROUND, [TRAINED, DROPPED])
    folder.add_round(dataclasses.replace(ROUND, round=2), [dataclasses.replace(TRAINED, round=2)])
    folder.write_tables(folder.rounds, folder.clients)
    assert (folder.path / "clients.csv").read_text() == (
        "round,client,size,seat,state,reason,steps,train_s,eval_s,loss,accuracy,bytes_sent,bytes_received,epsilon\n"
        "1,client_0,3,0,trained,,250,7.5,2,0.25,0.9,1000,89,\n"
        "1,client_1,,,gone,connection lost,,,,,,1000,0,\n"
        "2,client_0,3,0,trained,,250,7.5,2,0.25,0.9,1000,89,\n"
    )


def test_a_client_may_bear_any_name(tmp_path: Path) -> None:
    """A name with a comma or a quote reads back as it is."""
    folder = RunFolder.create(tmp_path)
    name = 'St. Mary, "West"'
    folder.add_round(ROUND, [dataclasses.replace(TRAINED, client=name)])
    folder.write_tables(folder.rounds, folder.clients)
    assert [row["client"] for row in table(folder.path / "clients.csv")] == [name]


def test_events_are_lines_that_are_there_at_once(tmp_path: Path) -> None:
    """events.csv tells when, in which round, what happened to whom and why, as soon as it happened."""
    folder = RunFolder.create(tmp_path)
    folder.add_event(3, "dropped", "client_1", 'said "no", twice')
    (row,) = table(folder.path / "events.csv")
    assert datetime.datetime.fromisoformat(row.pop("time")).tzinfo is not None
    assert row == {"round": "3", "event": "dropped", "client": "client_1", "detail": 'said "no", twice'}


def test_the_log_tells_of_an_event_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each event is one record that says what it is about: the line for a person, or one that only programs get."""
    folder = RunFolder.create(tmp_path)
    with caplog.at_level(logging.INFO):
        folder.add_event(2, "joined", "client_0")
        folder.add_event(3, "lost", "client_1", "connection lost", line="lost client_1: connection lost")
        folder.add_event(3, "dealt", "", "1 clients", line="dealing to 1 clients", level=logging.INFO)
    told = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
    assert told == [
        (logs.EVENTS, "INFO", "joined client_0"),
        ("fed.server", "WARNING", "lost client_1: connection lost"),
        ("fed.server", "INFO", "dealing to 1 clients"),
    ]
    about = [tuple(getattr(each, fact) for fact in ("round", "event", "client")) for each in caplog.records]
    assert about == [(2, "joined", "client_0"), (3, "lost", "client_1"), (3, "dealt", None)]


def test_a_run_folder_is_one_process_s(tmp_path: Path) -> None:
    """A second holder of a run's folder is refused; once the first lets go, it may have it."""
    folder = RunFolder.create(tmp_path)
    with pytest.raises(StorageError) as caught:
        RunFolder(folder.path)
    assert str(caught.value) == (
        f"run {folder.run_id} is at work in another process; wanted a run of its own; end that one"
    )
    folder.close()
    RunFolder(folder.path).close()


def test_what_a_killed_server_left_half_written_is_removed(tmp_path: Path) -> None:
    """Who takes up a run's folder clears it of half-written files; who does not get it touches nothing."""
    folder = RunFolder.create(tmp_path)
    (folder.path / "checkpoint").mkdir()
    left = [folder.path / ".history.csv.abc.tmp", folder.path / "checkpoint" / ".state.mpk.abc.tmp"]
    for path in left:
        path.touch()
    with pytest.raises(StorageError):
        RunFolder(folder.path)
    assert all(path.exists() for path in left)
    folder.close()
    RunFolder(folder.path).close()
    assert not any(path.exists() for path in left)
    assert (folder.path / "events.csv").exists()


def test_a_resumed_run_s_tables_are_those_of_its_state(tmp_path: Path) -> None:
    """Rounds that the state does not know, left by a process that died, are gone from the tables."""
    folder = RunFolder.create(tmp_path)
    folder.write_tables([ROUND, dataclasses.replace(ROUND, round=2)], [])
    folder.restore([ROUND], [TRAINED], 30.0)
    assert [row["round"] for row in table(folder.path / "history.csv")] == ["1"]
    assert folder.elapsed() >= 30.0


def test_the_summary_is_json_whatever_a_figure_is(tmp_path: Path) -> None:
    """What JSON has no word for is written as what it has: NaN and infinity as null, arrays as lists."""
    folder = RunFolder.create(tmp_path)
    facts: dict[str, Any] = {
        "status": "completed",
        "loss": float("nan"),
        "accuracy": np.float32(0.5),
        "counts": np.arange(3),
        "deep": [{"x": (1, float("inf"))}],
        "text": "é",
        "none": None,
        "true": True,
    }
    folder.write_summary(facts)
    text = (folder.path / "summary.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        "status": "completed",
        "loss": None,
        "accuracy": 0.5,
        "counts": [0, 1, 2],
        "deep": [{"x": [1, None]}],
        "text": "é",
        "none": None,
        "true": True,
    }
    assert text.endswith("}\n")


def test_the_plan_in_the_folder_is_the_plan(tmp_path: Path) -> None:
    """experiment.yml in a run's folder loads as the very plan that was run; model.py is the file of its model."""
    plan = Plan(rounds=7, seed=3)
    folder = RunFolder.create(tmp_path)
    folder.write_plan(plan, None)
    assert experiment.load(folder.path / "experiment.yml") == plan
    assert not (folder.path / "model.py").exists()
    folder.write_plan(plan, Source(tmp_path / "own.py", "def build(): ...", "build"))
    assert (folder.path / "model.py").read_text(encoding="utf-8") == "def build(): ..."


def test_versions_are_those_installed() -> None:
    """Versions name ours, Python's and each package there is, one of the two TensorFlows among them."""
    found = results.versions()
    assert found["fed"] == services.__version__
    assert found["keras"] == keras.__version__
    assert found["numpy"] == np.__version__
    assert {"python", "declearn", "websockets", "cryptography"} < found.keys()
    assert found.keys() & {"tensorflow", "tensorflow-cpu"}


def test_a_server_killed_at_its_page_alone_is_told_once(tmp_path: Path) -> None:
    """What a server leaves that is killed after its run is told to the next one, once; a clean end leaves nothing."""
    folder = RunFolder.create(tmp_path)
    folder.publish()
    folder.linger()
    assert outlived(tmp_path) is None, "it still lingers"
    folder._lock.close()  # as the kernel does with a process that is killed
    assert outlived(tmp_path) == folder.run_id
    assert outlived(tmp_path) is None

    other = RunFolder.create(tmp_path)
    other.publish()
    other.linger()
    other.close()
    assert outlived(tmp_path) is None
    assert outlived(tmp_path / "nowhere") is None
