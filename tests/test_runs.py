"""How a person names a run; which runs several words stand for is tested with `fed compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services import runs
from services.errors import DataError, UsageError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs, the newer of them linked to, and a sweep of both."""
    folder = tmp_path / "results"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "summary.json").write_text("{}")
    (folder / "latest").symlink_to("b")
    (folder / "sweeps" / "s").mkdir(parents=True)
    (folder / "sweeps" / "s" / "sweep.json").write_text(json.dumps({"runs": [{"run_id": "a"}, {"run_id": "b"}]}))
    return folder


def test_one_run_is_found_by_id_link_and_folder(results: Path) -> None:
    """An id, `latest` and a folder lead to the run's own folder."""
    assert runs.find_one("a", results) == results / "a"
    assert runs.find_one("latest", results) == results / "b"
    assert runs.find_one(str(results / "b"), results) == results / "b"


def test_a_sweep_of_several_is_not_one_run(results: Path) -> None:
    """It is refused, with a run of it to name; a sweep of a single run is that run."""
    with pytest.raises(UsageError) as caught:
        runs.find_one("s", results)
    assert str(caught.value) == "s is a sweep of 2 runs; wanted one run; name one of them, such as a"
    (results / "sweeps" / "s" / "sweep.json").write_text(json.dumps({"runs": [{"run_id": "a"}]}))
    assert runs.find_one("s", results) == results / "a"


def test_results_without_a_run_are_told_as_such(tmp_path: Path) -> None:
    """Where there is no newest run, the line says so, and not that `latest` is no run."""
    with pytest.raises(UsageError) as caught:
        runs.find_one("latest", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no run yet; wanted a run at least; start one, or name a run's folder"
    )


def test_a_damaged_sweep_is_named(results: Path) -> None:
    """A sweep's file that lists no runs is told in one line."""
    (results / "sweeps" / "s" / "sweep.json").write_text("{}")
    with pytest.raises(DataError, match=r"sweep.json can't be read \(it is damaged\)"):
        runs.members(results / "sweeps" / "s")
