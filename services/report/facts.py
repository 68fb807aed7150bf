"""What the files in a run's folder tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from services import distribution, tables
from services.errors import DataError
from services.report import findings
from services.report.findings import Mistake
from services.runs import KERAS_MODEL, PLAN, SKLEARN_MODEL, SUMMARY
from services.shards import Seat
from services.tables import ClientRound, Event, Measure, Round, damaged


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Privacy(_Told):
    """What `summary.json` says of privacy."""

    kind: str
    epsilon: float
    epsilon_spent: float | None
    delta: float
    noise_multiplier: float | None


class Summary(_Told):
    """What `summary.json` says; what an older version did not write has a default."""

    run_id: str
    status: str
    reason: str
    rounds: int
    rounds_planned: int
    clients: int
    clients_wanted: int | None = None
    scheme: str
    seed: int
    dataset: str
    data_sha256: str
    model_sha256: str | None = None
    model_round: int | None = None
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, ...] = ()
    test_accuracy: float | None
    test_loss: float | None
    privacy: Privacy | None = None
    wall_s: float
    versions: dict[str, str]
    experiment: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """The file that a run's model is kept in.

    Attributes:
        name: of the file.
        size: of it, in bytes.
        sha256: of its content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Facts:
    """One run.

    Attributes:
        summary: how it ended.
        rounds: its history.
        clients: what each client did in each round.
        events: who came, went and dropped out, as it happened.
        measures: further metrics.
        deals: by number of clients, what each of them held.
        deal_classes: names of the classes in `deals`.
        confusion: counts (classes, classes), a row a true class, and their names; None without a model.
        mistakes: the worst ones.
        plan: text of the resolved experiment, or nothing.
        model: the file of its model, where there is one.
    """

    summary: Summary
    rounds: Sequence[Round]
    clients: Sequence[ClientRound]
    events: Sequence[Event]
    measures: Sequence[Measure]
    deals: Mapping[int, Sequence[Seat]]
    deal_classes: Sequence[str]
    confusion: tuple[NDArray[np.int64], Sequence[str]] | None
    mistakes: Sequence[Mistake]
    plan: str
    model: Model | None

    @property
    def done(self) -> int:
        """Rounds that count."""
        return len(self.rounds)


def read(folder: Path) -> Facts:
    """Read a run's folder; files that a run comes to later, or not at all, may be missing.

    Raises:
        DataError: a file can't be read, or is damaged.
    """
    summary = read_summary(folder)
    deals, deal_classes = distribution.load(folder / distribution.TABLE)
    rounds = tables.load(folder / tables.HISTORY, Round)
    if [each.round for each in rounds] != list(range(1, len(rounds) + 1)):
        raise damaged(folder / tables.HISTORY)
    return Facts(
        summary=summary,
        rounds=rounds,
        clients=tables.load(folder / tables.CLIENTS, ClientRound),
        events=tables.load(folder / tables.EVENTS, Event),
        measures=tables.load(folder / tables.MEASURES, Measure),
        deals=deals,
        deal_classes=deal_classes,
        confusion=findings.load_confusion(folder / findings.CONFUSION),
        mistakes=findings.load_mistakes(folder / findings.MISTAKES),
        plan=_text(folder / PLAN),
        model=_model(folder),
    )


def read_summary(folder: Path) -> Summary:
    """Read how a run ended.

    Raises:
        DataError: `summary.json` is missing or damaged.
    """
    path = folder / SUMMARY
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise damaged(path, exc) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} can't be read ({f'{where}: ' if where else ''}{first['msg'].splitlines()[0][:200]})",
            "a file as the server writes it",
            "leave that run out",
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as exc:
        raise damaged(path, exc) from None


def _model(folder: Path) -> Model | None:
    for name in (KERAS_MODEL, SKLEARN_MODEL):
        path = folder / name
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return Model(name, file.tell(), sha256)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise damaged(path, exc) from exc
    return None
