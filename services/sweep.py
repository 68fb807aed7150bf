"""`fed sweep`: the runs of a grid of settings, one after another, each as `fed demo` would do it.

What was done is kept in `results/sweeps/<name>/sweep.json`, so that the same command goes on where it was stopped. The
name comes from the plans themselves: another grid is another sweep.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services import compare, demo, experiment, source
from services.errors import FedError, StoppedError, UsageError
from services.experiment import overrides
from services.experiment.contradictions import check_clients
from services.paths import Paths, write_atomic
from services.runs import LATEST, SUMMARY, SWEEP, SWEEPS

CURVES = "curves.png"

logger = logging.getLogger("fed.sweep")


class SweepError(FedError):
    """Some runs ended with an error; this ends with the code of the first of them.

    Attributes:
        table: of all runs that there are.
    """

    def __init__(self, table: str, failed: int, runs: int, code: int) -> None:
        super().__init__(
            f"{failed} of {runs} runs failed", "", "see their lines above; the same command runs them again"
        )
        self.table = table
        self.exit_code = code


@dataclass(frozen=True)
class Combination:
    """One point of the grid.

    Attributes:
        settings: what it sets, as `key=value`.
        plan: what comes of it.
    """

    settings: tuple[str, ...]
    plan: experiment.Plan


def grid(path: Path, base: Sequence[experiment.Override], assignments: Sequence[str]) -> list[Combination]:
    """Read the experiment file once for each combination of values; the last key varies fastest.

    Args:
        path: of the experiment file.
        base: values in place of the file's, the weakest first, over which those of the grid stand.
        assignments: such as `data.scheme=iid,labels`; a comma inside of brackets or quotes parts no values.

    Raises:
        UsageError: a key stands twice.
        ExperimentError: a combination is no plan.
    """
    keys: dict[str, list[str]] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if key in keys:
            raise UsageError(f"--set {key} stands twice", "a key once, with all its values", "join them with commas")
        keys[key] = [key + sign + value for value in overrides.split(text, ",")] or [assignment]
    found: list[Combination] = []
    for settings in itertools.product(*keys.values()):
        plan = experiment.load(path, [*base, *(overrides.read(setting, "--set") for setting in settings)])
        if not any(plan == other.plan for other in found):
            found.append(Combination(settings, plan))
    return found


def run(
    combinations: Sequence[Combination], clients: int, paths: Paths, models: Path, *, label: str, fresh: bool = False
) -> str:
    """Run all combinations that are not complete, and compare them.

    Args:
        combinations: what to run.
        clients: number of client processes.
        paths: of them `raw`, `data` and `results` count here.
        models: folder of the file that `model.module` names.
        label: begins the sweep's name.
        fresh: begin anew although some runs are complete.

    Returns:
        A table of the runs.

    Raises:
        SweepError: some ended with an error; the others were run all the same.
        StoppedError: a signal ended the sweep.
    """
    for each in combinations:
        check_clients(each.plan, clients)
    folder = paths.results / SWEEPS / f"{label}-{_digest(combinations, clients, paths, models)[:8]}"
    runs = [] if fresh else _kept(folder, paths.results, len(combinations))
    runs = runs or [{"run_id": None, "status": "waiting", "code": None} for _ in combinations]

    def keep() -> None:
        listed = [{"settings": list(each.settings), **kept} for each, kept in zip(combinations, runs, strict=True)]
        write_atomic(folder / SWEEP, json.dumps({"clients": clients, "runs": listed}, indent=2) + "\n")

    keep()
    logger.info("sweep %s: %d runs", f"{paths.results.name}/{SWEEPS}/{folder.name}", len(combinations))
    with demo.stoppable(), tempfile.TemporaryDirectory(prefix="fed-sweep-") as temporary:
        roots: dict[str, Path] = {}
        for number, (each, kept) in enumerate(zip(combinations, runs, strict=True), 1):
            what = f"run {number} of {len(combinations)} ({' '.join(each.settings) or 'as the file says'})"
            if kept["status"] == "completed":
                logger.info("%s is complete: %s", what, kept["run_id"])
                continue
            logger.info("%s begins", what)
            root = roots.setdefault(_deal(each.plan), Path(temporary) / str(len(roots)))
            kept |= {"status": "stopped", "code": StoppedError.exit_code}
            begun = _Latest(each.plan, paths.results)
            try:
                demo.run(each.plan, clients, paths, models, root=root, fresh=not begun.unfinished)
                kept |= {"status": "completed", "code": 0}
            except StoppedError:
                logger.warning("%s is stopped; the same command goes on with it", what)
                raise
            except FedError as exc:
                kept |= {"status": "failed", "code": exc.exit_code}
                logger.error("%s failed: %s", what, exc)
            finally:
                kept["run_id"] = begun.run_id()
                keep()
    done = [paths.results / kept["run_id"] for kept in runs if kept["run_id"] is not None]
    table = compare.run([str(each.resolve()) for each in done], paths.results, folder / CURVES) if done else ""
    failed = [kept["code"] for kept in runs if kept["code"]]
    if failed:
        raise SweepError(table, len(failed), len(runs), failed[0])
    return table


class _Latest:
    """What `latest` leads to before a run of `plan`, by which that run is known afterwards.

    Attributes:
        unfinished: it is a run of this very plan, with which the server goes on.
    """

    def __init__(self, plan: experiment.Plan, results: Path) -> None:
        self._plan = plan
        self._link = results / LATEST
        self._before = self._link.resolve().name if self._is_its_plans() else None
        self.unfinished = self._before is not None and self._status() in UNFINISHED

    def run_id(self) -> str | None:
        """Name the run that there is now, or None where it did not come to one."""
        if not self._is_its_plans():
            return None
        name = self._link.resolve().name
        return name if name != self._before or self.unfinished else None

    def _is_its_plans(self) -> bool:
        try:
            return experiment.load(self._link / "experiment.yml") == self._plan
        except FedError:
            return False

    def _status(self) -> Any:
        try:
            return compare.read(self._link).summary.get("status")
        except FedError:
            return None


UNFINISHED = ("running", "stopped")
"""The states of a run with which the server goes on."""


def _digest(combinations: Sequence[Combination], clients: int, paths: Paths, models: Path) -> str:
    """Tell a sweep by what it runs: plans, models of one's own, number of clients, and where the data are."""
    told = [str(clients), str(paths.data)]
    for each in combinations:
        module = each.plan.model.module
        told += [experiment.dump(each.plan), "" if module is None else source.read(module, models).sha256]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _deal(plan: experiment.Plan) -> str:
    """Tell plans that deal the same data alike from others."""
    return plan.data.model_dump_json() + str(plan.seed if plan.data.seed is None else "")


def _kept(folder: Path, results: Path, count: int) -> list[dict[str, Any]]:
    """Read what an earlier start came to; a complete run whose folder is gone counts as none."""
    try:
        runs = json.loads((folder / SWEEP).read_text(encoding="utf-8"))["runs"]
        runs = [{key: each[key] for key in ("run_id", "status", "code")} for each in runs]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    for each in runs:
        if each["run_id"] is not None and not (results / each["run_id"] / SUMMARY).exists():
            each |= {"run_id": None, "status": "waiting", "code": None}
    return runs if len(runs) == count else []
