"""`fed sweep`: the combinations, what is run and skipped, and what becomes of failures and signals."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services import demo, experiment, sweep
from services.demo import DemoError
from services.errors import ExperimentError, StoppedError, UsageError
from services.experiment import Override, Plan
from services.paths import Paths
from services.sweep import Combination, SweepError, grid

MODELS = Path("experiments")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give an experiment file of three rounds."""
    path = tmp_path / "e.yml"
    path.write_text("rounds: 3")
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Give paths with a folder of results."""
    made = Paths(tmp_path / "root")
    made.results.mkdir(parents=True)
    return made


# -- the grid ---------------------------------------------------------------------------------------------------------


def test_every_combination_is_one(file: Path) -> None:
    """Each value of a key goes with each of the others, the last key varying fastest, over what stands below."""
    combinations = grid(
        file, [Override.of("seed", 7, "")], ["optimizer.client.lrate=0.01,0.05", "data.scheme=iid,labels"]
    )
    assert [
        (each.settings[0], each.settings[1], each.plan.optimizer.client.lrate, each.plan.data.scheme)
        for each in combinations
    ] == [
        ("optimizer.client.lrate=0.01", "data.scheme=iid", 0.01, "iid"),
        ("optimizer.client.lrate=0.01", "data.scheme=labels", 0.01, "labels"),
        ("optimizer.client.lrate=0.05", "data.scheme=iid", 0.05, "iid"),
        ("optimizer.client.lrate=0.05", "data.scheme=labels", 0.05, "labels"),
    ]
    assert {(each.plan.rounds, each.plan.seed) for each in combinations} == {(3, 7)}


@pytest.mark.parametrize(
    ("assignment", "settings"),
    [
        (
            "optimizer.client.modules=[adam, ewma],[],[momentum: {beta: 0.9, nesterov: true}]",
            [
                "optimizer.client.modules=[adam, ewma]",
                "optimizer.client.modules=[]",
                "optimizer.client.modules=[momentum: {beta: 0.9, nesterov: true}]",
            ],
        ),
        (
            "data={scheme: dirichlet, alpha: 1},{scheme: iid}",
            ["data={scheme: dirichlet, alpha: 1}", "data={scheme: iid}"],
        ),
        ("train.steps=5,null", ["train.steps=5", "train.steps=null"]),
        ("train.steps=", ["train.steps="]),
        ("seed=1,1,01,2", ["seed=1", "seed=2"]),
    ],
)
def test_commas_part_values(file: Path, assignment: str, settings: list[str]) -> None:
    """A comma parts values, but not inside of brackets; what comes to the same plan is run once."""
    assert [each.settings for each in grid(file, [], [assignment])] == [(setting,) for setting in settings]


def test_no_values_are_one_run(file: Path) -> None:
    """Without `--set` there is the file's own plan."""
    assert grid(file, [], []) == [Combination((), Plan(rounds=3))]


def test_a_combination_that_is_no_plan_is_refused(file: Path) -> None:
    """A value that can't be, and a key that stands twice, are told before anything runs."""
    with pytest.raises(ExperimentError, match=r"^--set rounds=0: rounds is 0; wanted at least 1"):
        grid(file, [], ["rounds=1,0"])
    with pytest.raises(UsageError, match=r"^--set seed stands twice; wanted a key once, with all its values; "):
        grid(file, [], ["seed=1", "seed=2"])


# -- the runs ---------------------------------------------------------------------------------------------------------


class Stage:
    """Stands for `demo.run`: leaves a run as the server would, and keeps what it was called with.

    Args:
        results: folder of the runs.
        outcomes: what becomes of a plan, by its seed: an error, or something to do; nothing is a complete run.
    """

    def __init__(self, results: Path, outcomes: dict[int, Exception | Callable[[], None]] | None = None) -> None:
        self.results = results
        self.outcomes = outcomes or {}
        self.seeds: list[int] = []
        self.roots: list[Path] = []
        self.fresh: list[bool] = []

    def __call__(self, plan: Plan, clients: int, paths: Paths, models: Path, *, root: Path, fresh: bool) -> None:
        assert (clients, paths.results, models) == (2, self.results, MODELS)
        self.seeds.append(plan.seed)
        self.roots.append(root)
        self.fresh.append(fresh)
        outcome = self.outcomes.get(plan.seed)
        if isinstance(outcome, DemoError):
            raise outcome
        if fresh:
            name = f"run-{len(list(self.results.glob('run-*')))}"
            (self.results / name).mkdir()
            (self.results / name / "experiment.yml").write_text(experiment.dump(plan))
            (self.results / "latest").unlink(missing_ok=True)
            (self.results / "latest").symlink_to(name)
        self.conclude(plan, "stopped" if outcome else "completed")
        if callable(outcome):
            outcome()

    def conclude(self, plan: Plan, status: str) -> None:
        """Write the newest run's summary."""
        summary = {"status": status, "experiment": json.loads(plan.model_dump_json()), "test_accuracy": 0.5}
        (self.results / "latest" / "summary.json").write_text(json.dumps(summary))


def start(monkeypatch: pytest.MonkeyPatch, paths: Paths, stage: Stage, *seeds: int, **options: Any) -> str:
    """Sweep over these seeds with `stage` in place of the demo."""
    monkeypatch.setattr(demo, "run", stage)
    combinations = [Combination((f"seed={seed}",), Plan(seed=seed)) for seed in seeds]
    return sweep.run(combinations, 2, paths, MODELS, label="e", **options)


def kept(paths: Paths) -> list[tuple[str | None, str, int | None]]:
    """Read what the only sweep has written of its runs."""
    (path,) = (paths.results / "sweeps").glob("e-*/sweep.json")
    return [(each["run_id"], each["status"], each["code"]) for each in json.loads(path.read_text())["runs"]]


def test_runs_are_listed_and_compared(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """Each combination is a new run, listed with its settings; a table and a picture show them together."""
    stage = Stage(paths.results)
    table = start(monkeypatch, paths, stage, 1, 2)
    assert (stage.seeds, stage.fresh) == ([1, 2], [True, True])
    assert kept(paths) == [("run-0", "completed", 0), ("run-1", "completed", 0)]
    assert [line.split()[:2] for line in table.splitlines()] == [["run", "seed"], ["run-0", "1"], ["run-1", "2"]]
    (folder,) = (paths.results / "sweeps").iterdir()
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "curves.png"}
    content = json.loads((folder / "sweep.json").read_text())
    assert [each["settings"] for each in content["runs"]] == [["seed=1"], ["seed=2"]]
    assert content["clients"] == 2


def test_what_is_dealt_alike_is_dealt_once(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """Runs of one split share a folder of data, those of another have another, and all are gone afterwards."""
    stage = Stage(paths.results)
    monkeypatch.setattr(demo, "run", stage)
    contents: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 1, "rounds": 9, "train": {"epochs": 2}},
        {"seed": 2},
        {"seed": 3, "data": {"seed": 5}},
        {"seed": 4, "data": {"seed": 5}},
        {"seed": 1, "data": {"scheme": "labels"}},
        {"seed": 1, "model": "cnn"},
    ]
    combinations = [Combination((), Plan.model_validate(content)) for content in contents]
    sweep.run(combinations, 2, paths, MODELS, label="e")
    order = list(dict.fromkeys(stage.roots))
    assert [order.index(root) for root in stage.roots] == [0, 0, 1, 2, 2, 3, 0]
    assert not any(root.parent.exists() for root in order)


def test_a_failure_does_not_end_the_sweep(
    monkeypatch: pytest.MonkeyPatch, paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails is told, the others are run, and the first failure's code is the sweep's."""
    stage = Stage(paths.results, {1: DemoError("init", 3), 3: DemoError("server", 8)})
    with caplog.at_level(logging.INFO, "fed.sweep"), pytest.raises(SweepError) as caught:
        start(monkeypatch, paths, stage, 1, 2, 3)
    assert caught.value.exit_code == 3
    assert str(caught.value) == "2 of 3 runs failed; see their lines above; the same command runs them again"
    assert caught.value.table.splitlines()[1].startswith("run-0")
    assert kept(paths) == [(None, "failed", 3), ("run-0", "completed", 0), (None, "failed", 8)]
    assert "run 1 of 3 (seed=1) failed: init ended with code 3; see the lines of init above" in caplog.messages


def test_a_second_start_runs_what_is_not_complete(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """The same command skips complete runs, unless they are gone, and runs the others again; `--fresh` runs all."""
    with pytest.raises(SweepError):
        start(monkeypatch, paths, Stage(paths.results, {2: DemoError("server", 12)}), 1, 2, 3)
    second = Stage(paths.results)
    table = start(monkeypatch, paths, second, 1, 2, 3)
    assert second.seeds == [2]
    assert len(table.splitlines()) == 4
    (paths.results / "run-0" / "summary.json").unlink()
    third = Stage(paths.results)
    start(monkeypatch, paths, third, 1, 2, 3)
    assert third.seeds == [1]
    fourth = Stage(paths.results)
    start(monkeypatch, paths, fourth, 1, 2, 3, fresh=True)
    assert fourth.seeds == [1, 2, 3]


def test_another_grid_is_another_sweep(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """A sweep is known by its plans: others have a folder of their own and skip nothing."""
    start(monkeypatch, paths, Stage(paths.results), 1, 2)
    stage = Stage(paths.results)
    start(monkeypatch, paths, stage, 1, 3)
    assert stage.seeds == [1, 3]
    assert len(list((paths.results / "sweeps").iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_the_sweep_and_the_next_start_goes_on(
    monkeypatch: pytest.MonkeyPatch, paths: Paths, number: signal.Signals
) -> None:
    """A run that is stopped is listed as such, the next start goes on with that very run, and then with the others."""
    before = signal.getsignal(number)
    stage = Stage(paths.results, {2: lambda: os.kill(os.getpid(), number)})
    with pytest.raises(StoppedError, match=number.name):
        start(monkeypatch, paths, stage, 1, 2, 3)
    assert kept(paths) == [("run-0", "completed", 0), ("run-1", "stopped", 11), (None, "waiting", None)]
    assert signal.getsignal(number) == before
    second = Stage(paths.results)
    start(monkeypatch, paths, second, 1, 2, 3)
    assert (second.seeds, second.fresh) == ([2, 3], [False, True])
    assert kept(paths) == [("run-0", "completed", 0), ("run-1", "completed", 0), ("run-2", "completed", 0)]


def test_an_unfinished_run_of_another_plan_is_left(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """Where the newest run is unfinished and another's, a new one is begun beside it."""
    first = Stage(paths.results, {9: lambda: None})
    first(Plan(seed=9), 2, paths, MODELS, root=Path(), fresh=True)
    stage = Stage(paths.results)
    start(monkeypatch, paths, stage, 1)
    assert stage.fresh == [True]
    assert kept(paths) == [("run-1", "completed", 0)]


def test_an_older_run_of_the_same_plan_is_not_taken_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch, paths: Paths
) -> None:
    """A combination that fails before it comes to a run has none, though the newest run has its plan."""
    Stage(paths.results)(Plan(seed=1), 2, paths, MODELS, root=Path(), fresh=True)
    with pytest.raises(SweepError) as caught:
        start(monkeypatch, paths, Stage(paths.results, {1: DemoError("init", 3)}), 1)
    assert caught.value.table == ""
    assert kept(paths) == [(None, "failed", 3)]


def test_too_few_clients_are_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    """A combination with which no round could count ends the sweep before its first run."""
    stage = Stage(paths.results)
    monkeypatch.setattr(demo, "run", stage)
    plans = [Plan(), Plan.model_validate({"federation": {"min_clients": 3}})]
    with pytest.raises(UsageError, match=r"^CLIENTS is 2 and federation.min_clients is 3; "):
        sweep.run([Combination((), plan) for plan in plans], 2, paths, MODELS, label="e")
    assert stage.seeds == []
