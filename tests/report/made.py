"""Folders of runs that never were, written file by file as the server writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services import distribution, experiment, tables
from services.experiment import Plan
from services.report import findings
from services.shards import Seat
from services.tables import ClientRound, Event, Measure, Round

RUN_ID = "20260102-030405"
DIGITS = tuple("0123456789")

SUMMARY: dict[str, Any] = {
    "run_id": RUN_ID,
    "status": "completed",
    "reason": "",
    "rounds": 2,
    "rounds_planned": 2,
    "clients": 2,
    "clients_wanted": 3,
    "scheme": "iid",
    "seed": 7,
    "dataset": "mnist",
    "image_shape": [28, 28],
    "classes": list(DIGITS),
    "data_sha256": "d" * 64,
    "model_sha256": None,
    "model_round": 2,
    "test_accuracy": 0.96,
    "test_loss": 0.125,
    "privacy": None,
    "wall_s": 75.25,
    "versions": {"fed": "0.1.0", "numpy": "2.0.0"},
    "experiment": json.loads(Plan(rounds=2).model_dump_json()),
}


def round_(number: int, **changes: Any) -> Round:
    """Make a row of `history.csv`."""
    figures: dict[str, Any] = {
        "round": number,
        "seconds": 10.0,
        "train_s": 6.0,
        "eval_s": 3.0,
        "clients": 2,
        "dropped": 0,
        "loss": 0.5 / number,
        "accuracy": 1 - 0.1 / number,
        "test_loss": 0.4 / number,
        "test_accuracy": 1 - 0.08 / number,
        "bytes_sent": 3_000_000,
        "bytes_received": 2_000_000,
        "size": 2,
    }
    return Round(**(figures | changes))


def row(number: int, client: str, state: str = "trained", reason: str = "", **changes: Any) -> ClientRound:
    """Make a row of `clients.csv`."""
    done = state == "trained"
    figures: dict[str, Any] = {
        "round": number,
        "client": client,
        "size": 2,
        "seat": int(client[-1]) if client[-1:] in ("0", "1") else None,
        "state": state,
        "reason": reason,
        "steps": 10 if done else None,
        "train_s": 5.0 if done else None,
        "eval_s": 2.0 if done else None,
        "loss": 0.5 if done else None,
        "accuracy": 0.9 if done else None,
        "bytes_sent": 1_500_000,
        "bytes_received": 1_000_000 if done else 22,
    }
    return ClientRound(**(figures | changes))


def event(number: int, what: str, client: str = "", detail: str = "") -> Event:
    """Make a row of `events.csv`."""
    return Event("2026-01-02T03:04:05.000+00:00", number, what, client, detail)


def write(
    folder: Path,
    *,
    history: Sequence[Round] = (round_(1), round_(2)),
    rows: Iterable[ClientRound] | None = None,
    events: Iterable[Event] = (),
    measures: Sequence[Measure] = (),
    seats: Sequence[Seat] | None = None,
    classes: Sequence[str] = DIGITS,
    mistakes: int = 3,
    **summary: Any,
) -> Path:
    """Write the folder of a run: of two clients that train two rounds, unless it is to be another."""
    folder.mkdir(parents=True, exist_ok=True)
    told = SUMMARY | {"rounds": len(history), "classes": list(classes)} | summary
    (folder / "summary.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "experiment.yml").write_text(experiment.dump(Plan(rounds=2)), encoding="utf-8")
    (folder / tables.EVENTS).write_text(tables.dump(tables.EVENT_COLUMNS, events), encoding="utf-8")
    if not history:
        return folder
    if rows is None:
        rows = [row(each.round, f"client_{number}") for each in history for number in range(2)]
    (folder / tables.HISTORY).write_text(tables.dump(tables.HISTORY_COLUMNS, history), encoding="utf-8")
    (folder / tables.CLIENTS).write_text(tables.dump(tables.CLIENT_COLUMNS, rows), encoding="utf-8")
    if measures:
        (folder / tables.MEASURES).write_text(tables.dump(tables.MEASURE_COLUMNS, measures), encoding="utf-8")
    if seats is None:
        seats = [Seat(400, 100, tuple(40 for _ in classes)), Seat(600, 150, tuple(60 for _ in classes))]
    deals = {len(seats): seats}
    (folder / distribution.TABLE).write_text(distribution.dump(deals, classes), encoding="utf-8")
    counts = np.diag([96 // len(classes) + 1] * len(classes))
    counts[0, 1] = 4
    (folder / findings.CONFUSION).write_text(findings.dump_confusion(counts, classes), encoding="utf-8")
    (folder / findings.MISTAKES).write_text(findings.dump_mistakes(wrong(mistakes)), encoding="utf-8")
    (folder / "model.keras").write_bytes(b"a model")
    return folder


def faulty(folder: Path, **more: Any) -> Path:
    """Write a run with every kind of fault: 4 clients, 6 rounds of 8, stopped; `more` is in its summary."""
    rows = [
        *(row(number, "client_0") for number in range(1, 7)),
        *(row(number, "client_1") for number in (1, 2)),
        row(3, "client_1", "gone", "connection lost"),
        row(6, "client_1"),
        *(row(number, "client_2", "idle", "not drawn") for number in (2, 4)),
        row(3, "client_2", "late", "no reply in 60 s"),
        row(5, "client_2", "refused", "its update is not finite"),
        row(4, "client_3", "error", "OSError(5, 'Input/output error')"),
    ]
    events = [
        event(0, "joined", "client_0"),
        event(0, "dealt", "", "2 clients"),
        event(2, "dropped", "client_1", "it left"),
        event(2, "void", "", "1 of 2 clients finished it"),
        event(3, "lost", "client_1", "connection lost"),
        event(3, "resumed"),
        event(3, "dealt", "", "3 clients"),
        event(5, "returned", "client_1"),
    ]
    return write(
        folder,
        history=[round_(number, dropped=int(number in (3, 4, 5))) for number in range(1, 7)],
        rows=rows,
        events=events,
        **{"status": "stopped"} | more,
        reason="stopped by a signal",
        rounds_planned=8,
        model_round=5,
    )


def wrong(number: int) -> list[findings.Mistake]:
    """Make up mistakes: a 0 that is taken for a 1, in an image of noise."""
    images = np.random.default_rng(0).integers(0, 256, (max(1, number), 28, 28), dtype=np.uint8)
    labels = np.zeros(len(images), np.uint8)
    scores = np.tile([0.2, 0.8], (len(images), 1))
    return findings.pick(images, labels, scores, scores[:, 1], scores)[:number]


def table(path: Path) -> list[dict[str, str]]:
    """Read a table as another program would."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
