"""Reading a run's folder: what is there is told, what is missing may be, what is damaged is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from services.errors import DataError
from services.report import facts
from services.report.facts import Model
from services.server.engines.sklearn import SklearnEngine
from services.server.engines.tensorflow import TensorflowEngine
from services.shards import Seat
from services.tables import Measure
from tests.report import made


def test_everything_that_the_files_tell_is_read(tmp_path: Path) -> None:
    """Summary, tables, deals, findings, plan and the model's digest are those of the files."""
    events = [made.event(0, "joined", "client_0")]
    measures = [Measure(1, "all", "mse.mse", 0.5)]
    folder = made.write(tmp_path / "run", events=events, measures=measures)
    found = facts.read(folder)
    assert found.summary.run_id == made.RUN_ID
    assert found.summary.classes == made.DIGITS
    assert list(found.rounds) == [made.round_(1), made.round_(2)]
    assert [(each.round, each.client) for each in found.clients] == [
        (1, "client_0"),
        (1, "client_1"),
        (2, "client_0"),
        (2, "client_1"),
    ]
    assert list(found.events) == events
    assert list(found.measures) == measures
    assert found.deals == {2: (Seat(400, 100, (40,) * 10), Seat(600, 150, (60,) * 10))}
    assert found.confusion is not None
    assert found.confusion[0].sum() == 104
    assert len(found.mistakes) == 3
    assert found.plan == (folder / "experiment.yml").read_text(encoding="utf-8")
    assert found.model == Model("model.keras", 7, hashlib.sha256(b"a model").hexdigest())
    assert found.done == 2


def test_a_run_that_came_to_nothing_has_a_summary_alone(tmp_path: Path) -> None:
    """Whatever a run comes to later may be missing."""
    folder = made.write(tmp_path / "run", history=())
    (folder / "events.csv").unlink()
    (folder / "experiment.yml").unlink()
    found = facts.read(folder)
    assert (found.done, found.events, found.plan, found.model, found.confusion) == (0, [], "", None, None)


@pytest.mark.parametrize("engine", [SklearnEngine(), TensorflowEngine()])
def test_the_model_of_each_engine_is_found(tmp_path: Path, engine: TensorflowEngine | SklearnEngine) -> None:
    """A run's model is in the file of its framework, one of those that are looked for."""
    folder = made.write(tmp_path / "run")
    (folder / "model.keras").unlink()
    (folder / engine.file).write_bytes(b"x")
    model = facts.read(folder).model
    assert model is not None
    assert model.name == engine.file


def test_a_summary_of_an_older_version_is_read(tmp_path: Path) -> None:
    """What was added to the summary later may be missing in it, and what is not known is passed over."""
    folder = made.write(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("classes", "image_shape", "clients_wanted", "privacy", "model_sha256"):
        del summary[key]
    (folder / "summary.json").write_text(json.dumps(summary | {"colour": "red"}))
    assert facts.read(folder).summary.classes == ()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", "{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        ("summary.json", "[]", "Input should be an object"),
        ("summary.json", '{"run_id": 7}', "run_id: Input should be a valid string"),
        ("history.csv", "round\n1\n", "row 1: seconds is {'round': '1'}"),
        ("clients.csv", "a,b\n1\n", "row 1 has 1 cells, and the head 2"),
        ("events.csv", "time,round,event,client,detail\nnow,x,joined,,\n", "row 1: round is 'x'"),
        ("metrics.csv", "\0", "row 1"),
        ("distribution.csv", "clients,seat,train,valid,0\n2,1,5,5,5\n", "it is damaged"),
        ("confusion.csv", "true,0,1\n0,5,x\n1,0,5\n", "it is damaged"),
        ("mistakes.json", '[{"image": 1}]', "it is damaged"),
        ("experiment.yml", "\udcff", "it is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, reason: str) -> None:
    """Each file that does not hold what it should is told in one line."""
    folder = made.write(tmp_path / "run")
    (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    if name == "metrics.csv":
        (folder / name).write_text("round,client,metric,value\nx,all,m,1\n")
        reason = "row 1: round is 'x'"
    with pytest.raises(DataError) as caught:
        facts.read(folder)
    assert str(caught.value) == (
        f"{folder / name} can't be read ({reason}); wanted a file as the server writes it; leave that run out"
    )


def test_a_history_with_a_gap_is_damaged(tmp_path: Path) -> None:
    """Rounds are numbered from 1 on, each once: figures of others could not be told in their place."""
    folder = made.write(tmp_path / "run", history=[made.round_(1), made.round_(3)])
    with pytest.raises(DataError, match=r"history.csv can't be read \(it is damaged\)"):
        facts.read(folder)


def test_a_folder_without_a_summary_is_no_run(tmp_path: Path) -> None:
    """The summary alone must be there."""
    with pytest.raises(DataError) as caught:
        facts.read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/summary.json can't be read (No such file or directory); wanted a file as the server writes it;"
        " leave that run out"
    )
