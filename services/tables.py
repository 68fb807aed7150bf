"""The tables of a run, as the server writes them and reports read them: a dataclass a row, a field a column."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from services.errors import DataError

HISTORY, CLIENTS, MEASURES, EVENTS = "history.csv", "clients.csv", "metrics.csv", "events.csv"

ALL = "all"
"""In place of a client's name, for what holds of all together."""


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
        accuracy: validation accuracy over all clients that share it, or None where none does.
        test_loss: loss on the test images.
        test_accuracy: accuracy on the test images.
        bytes_sent: from the server to its clients.
        bytes_received: from the clients to their server.
        size: number of clients the data set was dealt to.
        epsilon: privacy spent so far on the data of the client that spent most, or None without privacy.
    """

    round: int
    seconds: float
    train_s: float
    eval_s: float
    clients: int
    dropped: int
    loss: float
    accuracy: float | None
    test_loss: float
    test_accuracy: float
    bytes_sent: int
    bytes_received: int
    size: int
    epsilon: float | None = None

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
    reason: str
    steps: int | None
    train_s: float | None
    eval_s: float | None
    loss: float | None
    accuracy: float | None
    bytes_sent: int
    bytes_received: int
    epsilon: float | None = None


@dataclasses.dataclass(frozen=True)
class Measure:
    """One row of `metrics.csv`.

    Attributes:
        round: number of the round.
        client: whose figure it is, or `all`.
        metric: what was measured, as `metric.figure`, or `metric.figure.class`.
        value: the figure.
    """

    round: int
    client: str
    metric: str
    value: float


@dataclasses.dataclass(frozen=True)
class Event:
    """One row of `events.csv`.

    Attributes:
        time: when, in UTC, as ISO 8601.
        round: the last round that counts; of `dropped`, `void` and `spent` the one that was begun.
        event: what happened.
        client: to whom, or empty.
        detail: why, or what came of it.
    """

    time: str
    round: int
    event: str
    client: str
    detail: str


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
    "size",
    "epsilon",
)
EVENT_COLUMNS = tuple(field.name for field in dataclasses.fields(Event))
CLIENT_COLUMNS = tuple(field.name for field in dataclasses.fields(ClientRound))
MEASURE_COLUMNS = tuple(field.name for field in dataclasses.fields(Measure))

Row = TypeVar("Row", Round, ClientRound, Measure, Event)


def dump(columns: Sequence[str], rows: Iterable[Any]) -> str:
    """Write rows as CSV, with a head; floats with six digits, None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)
    return text.getvalue()


def load(path: Path, kind: type[Row]) -> list[Row]:
    """Read a table that `dump` wrote; one that is not there has no rows. Columns that are not fields are passed over.

    Raises:
        DataError: it can't be read, or holds what such a table can't.
    """
    optional, adapter = _form(kind)
    rows = [
        {column: None if cell == "" and column in optional else cell for column, cell in row.items()}
        for row in read(path)
    ]
    try:
        return adapter.validate_python(rows)
    except ValidationError as exc:
        found = exc.errors()[0]
        number, *column = found["loc"]
        where = f"row {int(number) + 1}: {'.'.join(map(str, column))}"
        raise _unusable(path, f"{where} is {_shown(found['input'])}") from None


def read(path: Path) -> list[dict[str, str]]:
    """Read any table with a head, as texts; one that is not there has no rows.

    Raises:
        DataError: it can't be read.
    """
    head, *rows = lines(path) or [[]]
    return [dict(zip(head, row, strict=True)) for row in rows]


def lines(path: Path) -> list[list[str]]:
    """Read any table as rows of cells, its head first, each as long as that; none where the file is not there.

    Raises:
        DataError: it can't be read.
    """
    try:
        found = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise damaged(path, exc) from exc
    except (ValueError, csv.Error):
        raise damaged(path) from None
    for number, row in enumerate(found):
        if len(row) != len(found[0]):
            raise _unusable(path, f"row {number} has {len(row)} cells, and the head {len(found[0])}")
    return found


def damaged(path: Path, exc: Exception | None = None) -> DataError:
    """Word that a file of a run can't be used, for the reason that an operating system gave, if it did."""
    return _unusable(path, (exc.strerror if isinstance(exc, OSError) else None) or "it is damaged")


def _unusable(path: Path, reason: str) -> DataError:
    return DataError(f"{path} can't be read ({reason})", "a file as the server writes it", "leave that run out")


def _form(kind: type[Any]) -> tuple[frozenset[str], TypeAdapter[list[Any]]]:
    """Tell which of a row's fields may be empty, and make what checks them all."""
    hints = get_type_hints(kind)
    return frozenset(name for name, hint in hints.items() if type(None) in get_args(hint)), TypeAdapter(list[kind])  # type: ignore[valid-type]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - enough to find it


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
