"""What a run leaves behind: one folder of files a person or a program can read at any time.

Each file is written whole or not at all (`services.paths.write_atomic`), so that a run that dies leaves what it had.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import importlib.metadata
import io
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services import __version__, experiment
from services.errors import StorageError
from services.paths import write_atomic

LATEST = "latest"
PACKAGES = ("declearn", "tensorflow-cpu", "tensorflow", "keras", "websockets", "cryptography", "numpy")

logger = logging.getLogger("fed.server")


@dataclasses.dataclass(frozen=True)
class Round:
    """One row of `history.csv`; times in seconds, bytes of messages without TLS and framing.

    Attributes:
        round: number of the round, from 1.
        seconds: wall time of the round, evaluation included.
        train_s: longest local training.
        eval_s: longest local evaluation.
        clients: clients whose updates were averaged.
        dropped: clients that began the round and did not finish it.
        loss: validation loss over all clients.
        accuracy: validation accuracy over all clients.
        test_loss: loss on the test images.
        test_accuracy: accuracy on the test images.
        bytes_sent: from the server to its clients.
        bytes_received: from the clients to their server.
    """

    round: int
    seconds: float
    train_s: float
    eval_s: float
    clients: int
    dropped: int
    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float
    bytes_sent: int
    bytes_received: int

    @property
    def overhead_s(self) -> float:
        """Seconds of the round that are neither training nor evaluation of the slowest client."""
        return self.seconds - self.train_s - self.eval_s


@dataclasses.dataclass(frozen=True)
class ClientRound:
    """One row of `clients.csv`: what one client did in one round; empty where it did not come to that."""

    round: int
    client: str
    size: int | None
    seat: int | None
    state: str
    steps: int | None
    train_s: float | None
    eval_s: float | None
    loss: float | None
    accuracy: float | None
    bytes_sent: int
    bytes_received: int


HISTORY_COLUMNS = (
    "round",
    "seconds",
    "train_s",
    "eval_s",
    "overhead_s",
    "clients",
    "dropped",
    "loss",
    "accuracy",
    "test_loss",
    "test_accuracy",
    "bytes_sent",
    "bytes_received",
)
CLIENT_COLUMNS = tuple(field.name for field in dataclasses.fields(ClientRound))


class RunFolder:
    """The folder of one run.

    Args:
        results: folder that holds one folder a run, and `latest`, which points at the newest.

    Raises:
        StorageError: `results` can't be written.
    """

    def __init__(self, results: Path) -> None:
        self.rounds: list[Round] = []
        self.clients: list[ClientRound] = []
        self.run_id, self.path = _create(results)
        _point(results / LATEST, self.run_id)

    @property
    def label(self) -> str:
        """How to name the folder to a person: `results/<run-id>`, wherever `results` is mounted or linked to."""
        return f"{self.path.parent.name}/{self.run_id}"

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file of the run."""
        write_atomic(self.path / name, content)

    def write_plan(self, plan: experiment.Plan) -> None:
        """Write the resolved experiment, so that the run can be repeated from its folder alone."""
        self.write("experiment.yml", experiment.dump(plan))

    def add_round(self, round_: Round, clients: Sequence[ClientRound]) -> None:
        """Add one round to `history.csv` and `clients.csv`."""
        self.rounds.append(round_)
        self.clients.extend(clients)
        self.write("history.csv", _table(HISTORY_COLUMNS, self.rounds))
        self.write("clients.csv", _table(CLIENT_COLUMNS, self.clients))

    def write_summary(self, facts: dict[str, Any]) -> None:
        """Write `summary.json`: what a program reads first."""
        self.write("summary.json", json.dumps(plain(facts), indent=2, ensure_ascii=False) + "\n")

    def write_model(self, network: Any) -> None:
        """Write `model.keras`, which plain Keras loads, ready to be evaluated and trained on."""
        import keras  # noqa: PLC0415 - takes seconds, and who has a network has it loaded

        # a copy: declearn compiles without metrics, and with an optimizer that is never used and fails to load
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        copy.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        copy.optimizer.build(copy.trainable_variables)
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "model.keras"
            copy.save(saved)
            self.write("model.keras", saved.read_bytes())


def versions() -> dict[str, str]:
    """Tell the versions a run's figures depend on."""
    found = {"fed": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _create(results: Path) -> tuple[str, Path]:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        run_id = stamp if attempt == 0 else f"{stamp}-{attempt + 1}"
        try:
            (results / run_id).mkdir(parents=True, mode=0o755)
        except FileExistsError:
            continue
        except OSError as exc:
            raise StorageError(
                f"results folder {results} can't be written ({exc.strerror})",
                f"a folder that user {os.geteuid()} may write",
                f"run `chmod 1777 {results}`, or set RESULTS to another folder",
            ) from exc
        return run_id, results / run_id
    raise StorageError(f"{results} holds a hundred runs of {stamp}", "a free run name", "start again")


def _point(link: Path, target: str) -> None:
    """Let `latest` point at the newest run, replacing the old link in one step."""
    temporary = link.with_name(f".{LATEST}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as exc:
        logger.warning("%s still points elsewhere (%s)", link, exc.strerror)
        temporary.unlink(missing_ok=True)


def _table(columns: Sequence[str], rows: Iterable[Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Turn what JSON has no word for into what it has: NaN into null, arrays into lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
