"""What TensorBoard shows of a run: curves, histograms of the model, pictures, and the settings that runs differ in.

Tags are the columns of the tables, in groups; the server and its clients have the same ones, so that their curves share
a chart. Everything comes from the run's state, so what could not be written in one round is made up for in the next.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary

from services.errors import StorageError
from services.experiment import Plan
from services.experiment.flat import flat, told
from services.server.checkpoint import Checkpoint
from services.server.evaluation import Score
from services.server.event_file import EventFile
from services.tables import ALL

FOLDER = "tensorboard"
SERVER = "server"
FILE = "events.out.tfevents.fed"
"""One in each folder; TensorBoard reads what has `tfevents` in its name."""

ROUND_TAGS = (
    "curves/loss",
    "curves/accuracy",
    "curves/test_loss",
    "curves/test_accuracy",
    "time/seconds",
    "time/train_s",
    "time/eval_s",
    "time/overhead_s",
    "traffic/bytes_sent",
    "traffic/bytes_received",
    "federation/clients",
    "federation/dropped",
    "privacy/epsilon",
)
CLIENT_TAGS = ("curves/loss", "curves/accuracy", "time/train_s", "privacy/epsilon")
"""The last part of each is the column of `history.csv`, and of `clients.csv`."""

BINS = 30
"""Bars of a histogram; TensorBoard draws no more."""

MOST_VALUES = 250_000
"""Values of one tensor that a histogram counts; of a larger tensor, as many are drawn."""

FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("fed.server")


class Board:
    """The event files of one run.

    Args:
        folder: of the run.
        plan: that it runs.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder / FOLDER
        self._plan = plan
        self._files: dict[str, EventFile] = {}

    def write(self, state: Checkpoint) -> None:
        """Write the rounds of a state that are not there yet, and histograms of its model.

        Under secure aggregation clients have no figures of their own, and so no curves.

        Raises:
            StorageError: the disk is full. Any other failure is a warning.
        """
        with self._forgiving(SERVER):
            server = self._file(SERVER)
            if state.rounds and server.step < 0:
                server.append(0, [_settings(self._plan, state.rounds[0].clients)])
        for name, rounds in self._missing(state).items():
            with self._forgiving(name):
                file = self._file(name)
                for number, figures in sorted(rounds.items()):
                    model = _histograms(state.weights) if (name, number) == (SERVER, state.round) else ()
                    file.append(number, [*_scalars(figures), *model])

    def _missing(self, state: Checkpoint) -> dict[str, dict[int, dict[str, float | None]]]:
        """Collect, by folder and round, the figures that its file lacks, and those of its last round."""
        found: dict[str, dict[int, dict[str, float | None]]] = {}

        def note(name: str, number: int, figures: Mapping[str, float | None]) -> None:
            # what a run has so far would else be gone through in each of its rounds
            if name not in self._files or number >= self._files[name].step:
                found.setdefault(name, {}).setdefault(number, {}).update(figures)

        for row in state.rounds:
            note(SERVER, row.round, _columns(row, ROUND_TAGS))
        hidden = self._plan.secagg is not None
        for client in () if hidden else state.clients:
            note(_folder_of(client.client), client.round, _columns(client, CLIENT_TAGS))
        for measure in state.measures:
            if measure.client == ALL or not hidden:
                name = SERVER if measure.client == ALL else _folder_of(measure.client)
                note(name, measure.round, {f"metrics/{measure.metric}": measure.value})
        return found

    def conclude(self, number: int, score: Score, pictures: Mapping[str, bytes], *, completed: bool) -> None:
        """Write the figures and pictures of the model that is kept.

        Args:
            number: of the last round.
            score: of that model on the test images.
            pictures: PNGs by title.
            completed: the run came to its end; else it may go on.

        Raises:
            StorageError: the disk is full. Any other failure is a warning.
        """
        values = [
            *_scalars({"final/test_loss": score.loss, "final/test_accuracy": score.accuracy}),
            *(_picture(f"final/{title}", content) for title, content in pictures.items()),
        ]
        if completed:
            values += summary.hparams({}, {})[2].value
        with self._forgiving(SERVER):
            self._file(SERVER).append(number, values)

    def _file(self, name: str) -> EventFile:
        if name not in self._files:
            self._files[name] = EventFile(self._folder / name / FILE)
        return self._files[name]

    @contextlib.contextmanager
    def _forgiving(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in FULL:
                raise StorageError(
                    f"{self._folder / name} can't be written ({exc.strerror})",
                    "space left on its disk",
                    "free some space, then start again",
                ) from exc
            logger.warning("%s can't be written (%s)", self._folder / name, exc.strerror)


def _folder_of(client: str) -> str:
    """Name a client's folder: whatever the client is called, a folder of its own within that of the run."""
    name = quote(client, safe=" ")
    if name.startswith("."):
        return f"%2E{name[1:]}"
    return f"{name}%" if name == SERVER else name


def _columns(row: Any, tags: Iterable[str]) -> dict[str, float | None]:
    return {tag: getattr(row, tag.rpartition("/")[2]) for tag in tags}


def _scalars(figures: Mapping[str, float | None]) -> Iterator[Any]:
    """Make values of those figures that are finite numbers."""
    for tag, figure in figures.items():
        if figure is not None and math.isfinite(figure):
            yield Summary.Value(tag=tag, simple_value=figure)


def _histograms(weights: Any) -> Iterator[Any]:
    """Count the weights of each of a model's tensors."""
    for name, tensor in weights.coefs.items():
        values = np.asarray(tensor).ravel()
        if values.size > MOST_VALUES:
            values = np.random.default_rng(0).choice(values, MOST_VALUES)
        values = values[np.isfinite(values)].astype(np.float64)
        if values.size:
            # TensorFlow ends the names of its variables so
            tag = f"weights/{name.removesuffix(':0')}"
            yield Summary.Value(tag=tag, histo=summary.make_histogram(values, BINS))


def _picture(tag: str, png: bytes) -> Any:
    width, height = struct.unpack(">II", png[16:24])  # of the chunk IHDR, the first one
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=image)


def _settings(plan: Plan, clients: int) -> Any:
    """Tell what may differ between runs: each value of the plan, and the number of clients in the first round."""
    settings = dict(flat(plan.model_dump(mode="json"))) | {"clients": clients}
    cells = {
        key: value if value is None or isinstance(value, int | float) else told(value)
        for key, value in settings.items()
    }
    return summary.hparams(cells, {})[1].value[0]
