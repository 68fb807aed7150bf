"""The runs in a folder of results: where they are, and how a person names them."""

from __future__ import annotations

import json
from pathlib import Path

from services.errors import UsageError
from services.tables import damaged

SUMMARY, SWEEP = "summary.json", "sweep.json"

PLAN = "experiment.yml"
"""The resolved experiment of a run."""

KERAS_MODEL, SKLEARN_MODEL = "model.keras", "model.npz"
"""What a run's model is kept in, after its framework."""

LATEST = "latest"
"""Link in `results` to the newest run."""

SWEEPS = "sweeps"
"""Folder of `results` that holds a folder for each sweep."""


def find(word: str, results: Path) -> list[Path]:
    """List the folders of the runs that `word` stands for.

    Args:
        word: a run's id or folder, or `latest`; or a sweep's name or folder.
        results: folder of the runs that are named by their id.

    Raises:
        UsageError: it is no run and no sweep, or a sweep without a run.
        DataError: the sweep's file is damaged.
    """
    for folder in (results / word, results / SWEEPS / word, Path(word)):
        if (folder / SUMMARY).exists():
            return [folder.resolve()]
        if (folder / SWEEP).exists():
            found = [results / run_id for run_id in members(folder) if (results / run_id / SUMMARY).exists()]
            if not found:
                raise UsageError(f"sweep {word} has no run yet", "a run at least", "start it, or choose another")
            return [each.resolve() for each in found]
    raise UsageError(
        f"{word} is no run and no sweep", "a run's id or folder, `latest`, or a sweep", f"look into {results}"
    )


def find_one(word: str, results: Path) -> Path:
    """Give the folder of the one run that `word` stands for.

    Raises:
        UsageError: it is no run, or there is none yet, or it is a sweep of several.
        DataError: a sweep's file is damaged.
    """
    if word == LATEST and not (results / LATEST / SUMMARY).exists():
        raise UsageError(f"{results} holds no run yet", "a run at least", "start one, or name a run's folder")
    folders = find(word, results)
    if len(folders) > 1:
        raise UsageError(
            f"{word} is a sweep of {len(folders)} runs", "one run", f"name one of them, such as {folders[0].name}"
        )
    return folders[0]


def members(sweep: Path) -> list[str]:
    """List the ids of a sweep's runs, in its order, but for those that did not come to one.

    Raises:
        DataError: its file is damaged.
    """
    try:
        runs = json.loads((sweep / SWEEP).read_text(encoding="utf-8"))["runs"]
        return [str(each["run_id"]) for each in runs if each["run_id"] is not None]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise damaged(sweep / SWEEP, exc) from None
