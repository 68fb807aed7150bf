"""The command of TensorBoard's image: each run is there once, under its id, as runs come and go."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import REPOSITORY


@pytest.fixture(scope="module")
def board() -> ModuleType:
    """The script, which is in no package."""
    spec = importlib.util.spec_from_file_location("board", REPOSITORY / "script" / "image" / "board.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(links: Path) -> dict[str, Path]:
    """Tell what each link leads to."""
    return {path.name: path.readlink() for path in links.iterdir()}


def test_each_run_is_linked_once(board: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`latest`, runs without event files, and what is no run are left out; links lead on from wherever one stands."""
    results, links = tmp_path / "results", tmp_path / "links"
    links.mkdir()
    for name in ("20260101-000000", "20260101-000000-2"):
        (results / name / board.EVENTS).mkdir(parents=True)
    (results / "20260102-000000").mkdir()
    (results / "sweeps" / "s").mkdir(parents=True)
    (results / "compare.png").touch()
    (results / "latest").symlink_to("20260101-000000-2")
    monkeypatch.chdir(tmp_path)
    board.link(Path("results"), links)
    assert found(links) == {name: results / name / board.EVENTS for name in ("20260101-000000", "20260101-000000-2")}


def test_links_follow_the_runs(board: ModuleType, tmp_path: Path) -> None:
    """A run that begins is linked, one that is removed is not, and the others stay as they are."""
    results, links = tmp_path / "results", tmp_path / "links"
    links.mkdir()
    board.link(results, links)
    assert found(links) == {}
    for name in ("a", "b"):
        (results / name / board.EVENTS).mkdir(parents=True)
    board.link(results, links)
    kept = (links / "b").lstat().st_ino
    (results / "a" / board.EVENTS).rmdir()
    (results / "c" / board.EVENTS).mkdir(parents=True)
    board.link(results, links)
    assert set(found(links)) == {"b", "c"}
    assert (links / "b").lstat().st_ino == kept
