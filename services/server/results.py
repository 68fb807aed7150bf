"""What a run leaves behind: one folder of files a person or a program can read at any time.

Each file is written whole or not at all (`services.paths.write_atomic`), so that a run that dies leaves what it had.
"""

from __future__ import annotations

import collections
import csv
import datetime
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from services import __version__, experiment, logs, tables
from services.errors import StorageError
from services.paths import sweep, write_atomic
from services.runs import LATEST, PLAN, SUMMARY
from services.source import Source
from services.tables import ClientRound, Measure, Round

LOCK = ".lock"
LINGERING = b"lingering"
"""What the lock holds while a server goes on for its status page alone; one that is killed then leaves it there."""

MODEL_SOURCE = "model.py"
PACKAGES = ("declearn", "tensorflow-cpu", "tensorflow", "keras", "scikit-learn", "websockets", "cryptography", "numpy")

RECENT_EVENTS = 500
"""Events that are kept in memory beside `events.csv`, for who looks at a run that goes on."""

logger = logging.getLogger("fed.server")
quiet = logging.getLogger(logs.EVENTS)


class Savable(Protocol):
    """The state of a run after a round; see `services.server.checkpoint`."""

    @property
    def rounds(self) -> Sequence[Round]: ...

    @property
    def clients(self) -> Sequence[ClientRound]: ...

    @property
    def measures(self) -> Sequence[Measure]: ...

    def save(self, folder: Path) -> None:
        """Write the state into the run's folder."""


class RunFolder:
    """The folder of one run, held by this process alone until it ends (flock on its `.lock`).

    What a server that was killed left half-written in it is removed.

    Args:
        path: the folder, which is there.

    Attributes:
        events: the latest of `events.csv`, of this process: time, round, event, client, detail.

    Raises:
        StorageError: the folder can't be written, or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.rounds: list[Round] = []
        self.clients: list[ClientRound] = []
        self.measures: list[Measure] = []
        self.events: collections.deque[tuple[str, int, str, str, str]] = collections.deque(maxlen=RECENT_EVENTS)
        self._lock = _hold(path)
        sweep(path)
        self._before = 0.0
        self._began = time.monotonic()

    @classmethod
    def create(cls, results: Path) -> RunFolder:
        """Make the folder of a new run in `results`; `publish` lets `latest` point at it.

        Raises:
            StorageError: `results` can't be written.
        """
        folder = cls(_create(results))
        folder.write(tables.EVENTS, tables.dump(tables.EVENT_COLUMNS, ()))
        return folder

    def publish(self) -> None:
        """Let `latest` point at this run; done once it has a summary, so that who follows it finds one."""
        _point(self.path.parent / LATEST, self.run_id)

    def linger(self) -> None:
        """Take down that the run is complete, and that this process goes on for its status page alone."""
        self._lock.write(LINGERING)
        self._lock.flush()

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.truncate(0)
        self._lock.close()

    @property
    def label(self) -> str:
        """How to name the folder to a person: `results/<run-id>`, wherever `results` is mounted or linked to."""
        return f"{self.path.parent.name}/{self.run_id}"

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file of the run."""
        write_atomic(self.path / name, content)

    def write_plan(self, plan: experiment.Plan, source: Source | None) -> None:
        """Write the resolved experiment, and the file that builds its model, so that the run can be repeated."""
        self.write(PLAN, experiment.dump(plan))
        if source is not None:
            self.write(MODEL_SOURCE, source.text)

    def add_round(self, round_: Round, clients: Sequence[ClientRound], measures: Sequence[Measure] = ()) -> None:
        """Add one round to the history; `keep` writes it."""
        self.rounds.append(round_)
        self.clients.extend(clients)
        self.measures.extend(measures)

    def add_event(
        self,
        round_: int,
        event: str,
        client: str,
        detail: str = "",
        *,
        line: str = "",
        level: int = logging.WARNING,
    ) -> None:
        """Add one line to `events.csv`: who joined, left, was dropped, and why; how the data set was dealt.

        One that can't be written is a warning: whoever joins or leaves is not to blame, and `keep` fails soon enough.

        Args:
            round_: the last that counts, or the one it is out of.
            event: what happened, in a word.
            client: to whom, or empty.
            detail: why, or how.
            line: how the log tells of it; empty where only the log's file and its lines for programs do.
            level: of that line.
        """
        about = {"round": round_, "event": event, "client": client or None}
        if line:
            logger.log(level, "%s", line, extra=about)
        else:
            quiet.info("%s", " ".join(filter(None, (event, client, detail))), extra=about)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        row = (now, round_, event, client, detail)
        self.events.append(row)
        try:
            with (self.path / tables.EVENTS).open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
        except OSError as exc:
            logger.warning("%s can't be written (%s)", self.path / tables.EVENTS, exc.strerror)

    def keep(self, state: Savable) -> None:
        """Write the state of the run, then the tables of all its rounds; in this order the tables never run ahead.

        Raises:
            StorageError: a file can't be written.
        """
        state.save(self.path)
        self.write_tables(state.rounds, state.clients, state.measures)

    def write_tables(
        self, rounds: Sequence[Round], clients: Sequence[ClientRound], measures: Sequence[Measure] = ()
    ) -> None:
        """Write `history.csv`, `clients.csv` and, where the plan asks for any metric, `metrics.csv`."""
        self.write(tables.HISTORY, tables.dump(tables.HISTORY_COLUMNS, rounds))
        self.write(tables.CLIENTS, tables.dump(tables.CLIENT_COLUMNS, clients))
        if measures:
            self.write(tables.MEASURES, tables.dump(tables.MEASURE_COLUMNS, measures))

    def elapsed(self) -> float:
        """Tell how many seconds the run has taken, over all processes that worked on it."""
        return self._before + time.monotonic() - self._began

    def restore(
        self,
        rounds: Sequence[Round],
        clients: Sequence[ClientRound],
        elapsed: float,
        measures: Sequence[Measure] = (),
    ) -> None:
        """Take up the rounds of an earlier process, and write their tables as that process should have left them."""
        self.rounds, self.clients, self.measures = list(rounds), list(clients), list(measures)
        self._before = elapsed
        self.write_tables(self.rounds, self.clients, self.measures)

    def write_summary(self, facts: dict[str, Any]) -> None:
        """Write `summary.json`: what a program reads first."""
        self.write(SUMMARY, json.dumps(plain(facts), indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """Tell the versions a run's figures depend on."""
    found = {"fed": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def outlived(results: Path) -> str | None:
    """Tell the newest run where its server was killed when nothing but its page was left; once, so that another begins.

    An engine that starts a killed server again would else begin a run that nobody asked for.
    """
    lock = results / LATEST / LOCK
    try:
        if lock.read_bytes() != LINGERING:
            return None
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
    except OSError:  # no run, or one whose server still lingers
        return None
    return lock.parent.resolve().name


def _hold(folder: Path) -> IO[bytes]:
    try:
        lock = (folder / LOCK).open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StorageError(
            f"run {folder.name} is at work in another process", "a run of its own", "end that one"
        ) from None
    except OSError as exc:
        raise StorageError(
            f"run folder {folder} can't be written ({exc.strerror})", "a writable folder", "mend its permissions"
        ) from exc
    return lock


def _create(results: Path) -> Path:
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
        return results / run_id
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
