"""What TensorBoard shows of a run: read back with TensorBoard, each round once whatever happened in between."""

from __future__ import annotations

import dataclasses
import errno
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from declearn.model.api import Vector
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, metadata

from services.errors import StorageError
from services.experiment import Plan
from services.server import tensorboard
from services.server.checkpoint import Checkpoint
from services.server.evaluation import Score
from services.server.event_file import EventFile
from services.server.tensorboard import Board
from services.tables import ALL, ClientRound, Measure, Round
from tests.events import curve, hparams, read

SCORE = Score(0.05, 0.985, np.diag([5, 6]))


def state(rounds: int, *, clients: tuple[str, ...] = ("client_0", "client_1"), **changes: Any) -> Checkpoint:
    """Make the state of a run after some rounds; its figures are those of the round, and of a client of its number."""
    fields: dict[str, Any] = {
        "round": rounds,
        "weights": Vector.build({"dense/kernel": np.arange(12.0).reshape(3, 4), "dense/bias": np.zeros(4)}),
        "best": None,
        "best_round": 1,
        "losses": (),
        "optimizer": {},
        "client_states": {},
        "seats": {},
        "elapsed": 1.0,
        "rounds": tuple(
            Round(number, 10.0, 7.0, 2.0, 2, 1, 1 / number, 0.5, 0.25, 0.75, 100, 50, 3)
            for number in range(1, rounds + 1)
        ),
        "clients": tuple(
            ClientRound(number, name, 2, 0, "trained", "", 5, 7.0, 2.0, number + place / 10, 0.5, 50, 25)
            for number in range(1, rounds + 1)
            for place, name in enumerate(clients)
        ),
    }
    return Checkpoint(**fields | changes)


def folders(run: Path) -> set[str]:
    """List the folders that TensorBoard takes for runs."""
    return {path.parent.relative_to(run / "tensorboard").as_posix() for path in run.rglob("*tfevents*")}


def test_each_round_is_a_step_of_each_curve(tmp_path: Path) -> None:
    """The server's and each client's curves are the figures of the tables, and clients share charts with the server."""
    board = Board(tmp_path, Plan())
    board.write(state(1))
    board.write(state(2))
    assert folders(tmp_path) == {"server", "client_0", "client_1"}
    server = read(tmp_path / "tensorboard" / "server").Tags()
    assert server["scalars"] == [tag for tag in tensorboard.ROUND_TAGS if tag != "privacy/epsilon"]
    client = read(tmp_path / "tensorboard" / "client_1").Tags()
    assert client["scalars"] == ["curves/loss", "curves/accuracy", "time/train_s"]
    assert client["histograms"] == []
    assert set(client["scalars"]) < set(server["scalars"])
    assert curve(tmp_path / "tensorboard" / "server", "curves/loss") == [(1, 1.0), (2, 0.5)]
    assert curve(tmp_path / "tensorboard" / "server", "time/overhead_s") == [(1, 1.0), (2, 1.0)]
    assert curve(tmp_path / "tensorboard" / "client_1", "curves/loss") == [(1, 1.1), (2, 2.1)]


def test_a_resumed_run_has_each_round_once(tmp_path: Path) -> None:
    """A server that takes up a run adds what the one before did not come to, and repeats nothing."""
    Board(tmp_path, Plan()).write(state(2))
    resumed = Board(tmp_path, Plan())
    resumed.write(state(3))
    resumed.write(state(3))
    resumed.write(state(5))
    for name in folders(tmp_path):
        assert [step for step, _ in curve(tmp_path / "tensorboard" / name, "curves/accuracy")] == [1, 2, 3, 4, 5]
    server = read(tmp_path / "tensorboard" / "server")
    # of round 4 the weights are no longer known
    assert [each.step for each in server.Histograms("weights/dense/kernel")] == [2, 3, 5]


def test_a_client_that_comes_and_goes_has_the_rounds_that_it_was_in(tmp_path: Path) -> None:
    """A client without a figure in a round has no step there, and one that comes later begins later."""
    three = state(3)
    left, dropped, *others = three.clients
    dropped = dataclasses.replace(dropped, state="gone", loss=None, accuracy=None, train_s=None)
    late = dataclasses.replace(others[-1], client="client_2")
    board = Board(tmp_path, Plan())
    board.write(dataclasses.replace(state(1), clients=(left, dropped)))
    board.write(dataclasses.replace(three, clients=(left, dropped, *others, late)))
    assert [step for step, _ in curve(tmp_path / "tensorboard" / "client_1", "curves/loss")] == [2, 3]
    assert [step for step, _ in curve(tmp_path / "tensorboard" / "client_2", "curves/loss")] == [3]


def test_secure_aggregation_leaves_clients_no_curves(tmp_path: Path) -> None:
    """Where clients' figures are hidden, only the server is there."""
    Board(tmp_path, Plan(secagg="masking")).write(
        state(2, measures=(Measure(1, "client_0", "mae.mae", 1.0), Measure(1, ALL, "mae.mae", 2.0)))
    )
    assert folders(tmp_path) == {"server"}
    assert curve(tmp_path / "tensorboard" / "server", "metrics/mae.mae") == [(1, 2.0)]


def test_metrics_are_curves_too(tmp_path: Path) -> None:
    """The figures of metrics.csv are there by metric, also those measured once more after the last round."""
    measures = [Measure(1, ALL, "mae.mae", 0.5), Measure(1, "client_0", "mae.mae", 0.25), Measure(2, ALL, "gap.1", 3.0)]
    board = Board(tmp_path, Plan())
    board.write(state(1, measures=tuple(measures[:2])))
    board.write(state(1, measures=tuple(measures)))
    board.write(state(1, measures=tuple(measures)))
    assert curve(tmp_path / "tensorboard" / "server", "metrics/mae.mae") == [(1, 0.5)]
    assert curve(tmp_path / "tensorboard" / "server", "metrics/gap.1") == [(2, 3.0)]
    assert curve(tmp_path / "tensorboard" / "client_0", "metrics/mae.mae") == [(1, 0.25)]


def test_histograms_count_each_tensor(tmp_path: Path) -> None:
    """Each tensor of the model has its histogram, of the values it has; what is no number is not counted."""
    weights = {"a": np.arange(12.0), "b": np.array([np.nan, np.inf, 1.0]), "c": np.full(3, np.nan)}
    Board(tmp_path, Plan()).write(state(1, weights=Vector.build(weights)))
    events = read(tmp_path / "tensorboard" / "server")
    assert events.Tags()["histograms"] == ["weights/a", "weights/b"]
    (counted,) = events.Histograms("weights/a")
    found = counted.histogram_value
    assert (counted.step, found.num, found.min, found.max, found.sum) == (1, 12, 0, 11, 66)
    assert sum(found.bucket) == 12
    assert events.Histograms("weights/b")[0].histogram_value.num == 1


def test_a_large_tensor_is_counted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tensor of more values than the limit as many are drawn, from all over it."""
    monkeypatch.setattr(tensorboard, "MOST_VALUES", 1000)
    Board(tmp_path, Plan()).write(state(1, weights=Vector.build({"a": np.arange(1_000_000.0).reshape(1000, 1000)})))
    (counted,) = read(tmp_path / "tensorboard" / "server").Histograms("weights/a")
    assert counted.histogram_value.num == 1000
    assert counted.histogram_value.max - counted.histogram_value.min > 900_000


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_point(tmp_path: Path, figure: float) -> None:
    """A round that nobody evaluated, or whose loss is not finite, has no point in that curve."""
    one, two = state(2).rounds
    Board(tmp_path, Plan()).write(dataclasses.replace(state(2), rounds=(dataclasses.replace(one, loss=figure), two)))
    assert curve(tmp_path / "tensorboard" / "server", "curves/loss") == [(2, 0.5)]


@pytest.mark.parametrize("name", ["..", ".", "server", "../../up", "/etc", ".hidden", "é" * 40, 'St. Mary, "West"'])
def test_a_client_may_bear_any_name(tmp_path: Path, name: str) -> None:
    """Whatever a client is called, its file is one folder below that of the run, and none of the server's."""
    run = tmp_path / "results" / "run"
    Board(run, Plan()).write(state(1, clients=(name,)))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    found = folders(run) - {"server"}
    assert len(found) == 1
    assert "/" not in found.pop()
    assert curve(run / "tensorboard" / "server", "curves/loss") == [(1, 1.0)]


def test_settings_are_the_plan_s_values(tmp_path: Path) -> None:
    """HPARAMS has each value of the plan by its dotted key, numbers as numbers, and the clients of the first round."""
    plan = Plan.model_validate({"seed": 7, "optimizer": {"client": {"lrate": 0.01, "modules": ["adam"]}}})
    board = Board(tmp_path, plan)
    board.write(state(1))
    board.write(state(2))
    content = hparams(tmp_path / "tensorboard" / "server")
    assert content is not None
    found = content.session_start_info.hparams
    numbers = ("seed", "rounds", "clients", "optimizer.client.lrate")
    assert [found[key].number_value for key in numbers] == [7, plan.rounds, 2, 0.01]
    assert found["optimizer.client.modules"].string_value == "[adam]"
    assert found["train.shuffle"].bool_value is True
    assert "secagg" not in found
    assert hparams(tmp_path / "tensorboard" / "client_0") is None


def picture(width: int, height: int) -> bytes:
    """Make a PNG."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_the_end_has_pictures_and_the_figures_of_the_model_that_is_kept(tmp_path: Path) -> None:
    """The pictures are those given, at the last round; HPARAMS is told that the run is over."""
    board = Board(tmp_path, Plan())
    board.write(state(3))
    png = picture(30, 20)
    board.conclude(3, SCORE, {"confusion": png}, completed=True)
    events = read(tmp_path / "tensorboard" / "server")
    assert events.Tags()["images"] == ["final/confusion"]
    (image,) = events.Images("final/confusion")
    assert (image.step, image.width, image.height, image.encoded_image_string) == (3, 30, 20, png)
    assert curve(tmp_path / "tensorboard" / "server", "final/test_accuracy") == [(3, 0.985)]
    assert curve(tmp_path / "tensorboard" / "server", "final/test_loss") == [(3, 0.05)]
    content = hparams(tmp_path / "tensorboard" / "server", metadata.SESSION_END_INFO_TAG)
    assert content is not None
    assert content.session_end_info.status == api_pb2.STATUS_SUCCESS


def test_a_run_that_is_stopped_and_goes_on_ends_once(tmp_path: Path) -> None:
    """A stopped run has pictures of what it had and no end; gone on with, those of its end beside them, each once."""
    board = Board(tmp_path, Plan())
    board.write(state(1))
    board.conclude(1, SCORE, {"confusion": picture(1, 1)}, completed=False)
    assert hparams(tmp_path / "tensorboard" / "server", metadata.SESSION_END_INFO_TAG) is None
    board = Board(tmp_path, Plan())
    board.write(state(1))
    board.conclude(1, SCORE, {"confusion": picture(1, 1)}, completed=False)
    board.write(state(2))
    board.conclude(2, SCORE, {"confusion": picture(2, 2)}, completed=True)
    events = read(tmp_path / "tensorboard" / "server")
    assert [(image.step, image.width) for image in events.Images("final/confusion")] == [(1, 1), (2, 2)]
    assert curve(tmp_path / "tensorboard" / "server", "curves/accuracy") == [(1, 0.5), (2, 0.5)]
    assert hparams(tmp_path / "tensorboard" / "server", metadata.SESSION_END_INFO_TAG) is not None


def test_what_cannot_be_written_is_a_warning_and_made_up_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client's folder that can't be made costs its curve alone, is told, and is written when it can be."""
    folder = tmp_path / "tensorboard"
    folder.mkdir()
    (folder / "client_0").touch()
    board = Board(tmp_path, Plan())
    with caplog.at_level(logging.WARNING):
        board.write(state(1))
    assert caplog.messages == [f"{folder}/client_0 can't be written (File exists)"]
    assert curve(folder / "client_1", "curves/loss") == [(1, 1.1)]
    (folder / "client_0").unlink()
    board.write(state(2))
    assert curve(folder / "client_0", "curves/loss") == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where there is no space left the run stops as for any other of its files."""

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(EventFile, "append", full)
    with pytest.raises(StorageError) as caught:
        Board(tmp_path, Plan()).write(state(1))
    folder = tmp_path / "tensorboard" / "server"
    assert str(caught.value) == (
        f"{folder} can't be written ({os.strerror(number)}); wanted space left on its disk;"
        " free some space, then start again"
    )
