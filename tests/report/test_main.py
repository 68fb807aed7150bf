"""The report of a run: which files are written, from which, and what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.errors import DataError, StorageError, UsageError
from services.report import main
from services.shards import Seat
from tests.report import made
from tests.report.made import event
from tests.support import contents

PRIVACY = {"kind": "sample", "epsilon": 3.0, "epsilon_spent": 2.5, "delta": 1e-5, "noise_multiplier": 0.75}
ALL = {"curves.png", "clients.png", "distribution.png", "confusion.png", "mistakes.png", "privacy.png", "report.html"}


def test_page_and_pictures_come_of_the_files(tmp_path: Path) -> None:
    """Each plot has its PNG beside the page; the same files give the same, to the last byte, and stay as they are."""
    folder = made.write(tmp_path / "results" / "a", privacy=PRIVACY, history=[made.round_(1, epsilon=2.5)])
    before = contents(folder)
    assert main.run("a", tmp_path / "results", None) == folder / "report.html"
    after = contents(folder)
    assert after.keys() - before.keys() == ALL
    assert {name: after[name] for name in before} == before
    assert all(after[name].startswith(b"\x89PNG") for name in ALL if name.endswith(".png"))
    main.run(str(folder), tmp_path / "results", None)
    assert contents(folder) == after


def test_it_may_be_written_elsewhere(tmp_path: Path) -> None:
    """A run that containers made belongs to another user: its report can be made in a folder of one's own."""
    folder = made.write(tmp_path / "results" / "a")
    (tmp_path / "results" / "latest").symlink_to("a")
    before = contents(folder)
    assert main.run("latest", tmp_path / "results", tmp_path / "mine") == tmp_path / "mine" / "report.html"
    assert contents(folder) == before
    assert {path.name for path in (tmp_path / "mine").iterdir()} == ALL - {"privacy.png"}


def test_a_run_without_a_round_has_a_page_alone(tmp_path: Path) -> None:
    """There is nothing to draw of it, and its page says why."""
    folder = made.write(tmp_path / "a", history=(), test_accuracy=None, test_loss=None, status="failed", reason="a bug")
    before = {path.name for path in folder.iterdir()}
    main.write(folder)
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    assert "It failed after 0 of 2 rounds: a bug." in (folder / "report.html").read_text(encoding="utf-8")


def test_pictures_that_there_is_nothing_to_show_in_are_not_drawn(tmp_path: Path) -> None:
    """No mistake, no deal: no picture of them."""
    folder = made.write(tmp_path / "a", mistakes=0)
    (folder / "distribution.csv").unlink()
    main.write(folder)
    assert {path.name for path in folder.glob("*.png")} == {"curves.png", "clients.png", "confusion.png"}


def test_a_page_with_pictures_of_many_classes_stays_small(tmp_path: Path) -> None:
    """128 clients, 256 classes and 24 mistakes are less than 3 MB."""
    classes = [f"class {number}" for number in range(256)]
    rows = [made.row(1, f"client_{number}", size=128, seat=number) for number in range(128)]
    folder = made.write(
        tmp_path / "a",
        history=[made.round_(1, size=128)],
        rows=rows,
        seats=[Seat(256, 10, (1,) * 256)] * 128,
        classes=classes,
        mistakes=24,
    )
    page = main.write(folder)
    assert page.stat().st_size < 3_000_000


def test_which_run_is_meant_must_be_clear(tmp_path: Path) -> None:
    """No run yet, and a word that is none, are told in one line."""
    with pytest.raises(UsageError, match=r"holds no run yet"):
        main.run("latest", tmp_path, None)
    with pytest.raises(UsageError, match=r"^b is no run and no sweep"):
        main.run("b", tmp_path, None)


def test_a_damaged_file_leaves_the_old_page(tmp_path: Path) -> None:
    """Where a file can't be read, nothing is written, and the line names it."""
    folder = made.write(tmp_path / "a", events=[event(0, "joined", "client_0")])
    main.write(folder)
    (folder / "clients.csv").write_text("round\n\n")
    before = contents(folder)
    with pytest.raises(DataError, match=r"clients.csv can't be read"):
        main.write(folder)
    assert contents(folder) == before


def test_what_stands_in_the_way_is_told(tmp_path: Path) -> None:
    """A file where the folder should be is an error of one line."""
    folder = made.write(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"can't be written"):
        main.write(folder, tmp_path / "file")
