"""The tables of a run: what is written reads back, and what can't be a table is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from services import tables
from services.errors import DataError
from services.tables import ClientRound, Event, Measure, Round

ROUND = Round(1, 10.0, 6.5, 3.0, 2, 1, 0.25, 0.5, 0.125, 0.75, 1000, 500, 3)
TRAINED = ClientRound(1, "a, b", 3, 0, "trained", "", 250, 7.5, 2.0, 0.25, 0.5, 1000, 89, 1.5)
GONE = ClientRound(1, "client_1", None, None, "gone", 'said "no"\nand went', None, None, None, None, None, 1000, 0)


def test_rows_read_back_as_they_were(tmp_path: Path) -> None:
    """Each table gives the very rows that were written, whatever their texts hold, None where a cell is empty."""
    path = tmp_path / "table.csv"
    without = dataclasses.replace(ROUND, round=2, epsilon=0.5)
    path.write_text(tables.dump(tables.HISTORY_COLUMNS, [ROUND, without]), encoding="utf-8")
    assert tables.load(path, Round) == [ROUND, without]
    path.write_text(tables.dump(tables.CLIENT_COLUMNS, [TRAINED, GONE]), encoding="utf-8")
    assert tables.load(path, ClientRound) == [TRAINED, GONE]
    measure = Measure(3, "all", "mse.mse", 0.5)
    path.write_text(tables.dump(tables.MEASURE_COLUMNS, [measure]), encoding="utf-8")
    assert tables.load(path, Measure) == [measure]
    event = Event("2026-01-02T03:04:05+00:00", 0, "joined", "client_0", "")
    path.write_text(tables.dump(tables.EVENT_COLUMNS, [event]), encoding="utf-8")
    assert tables.load(path, Event) == [event]


def test_a_number_that_is_none_stays_so(tmp_path: Path) -> None:
    """A loss that is not a number reads back as such."""
    path = tmp_path / "history.csv"
    path.write_text(tables.dump(tables.HISTORY_COLUMNS, [dataclasses.replace(ROUND, loss=float("nan"))]))
    assert str(tables.load(path, Round)[0].loss) == "nan"


def test_a_table_that_is_missing_or_bare_has_no_rows(tmp_path: Path) -> None:
    """No file, an empty one, and one with nothing but its head are tables without rows."""
    path = tmp_path / "history.csv"
    assert tables.load(path, Round) == []
    path.write_text("")
    assert tables.load(path, Round) == []
    path.write_text(tables.dump(tables.HISTORY_COLUMNS, []))
    assert tables.load(path, Round) == []


def test_a_table_of_an_older_version_lacks_what_has_a_default(tmp_path: Path) -> None:
    """A column that came later may be missing, and one that is no field is passed over."""
    path = tmp_path / "history.csv"
    columns = [column for column in tables.HISTORY_COLUMNS if column != "epsilon"]
    path.write_text(tables.dump(columns, [ROUND]))
    assert tables.load(path, Round) == [ROUND]


HEAD = "round,client,metric,value\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEAD + "1,all,mse.mse,0.5\n1,all,mse.mse,much\n", "row 2: value is 'much'"),
        (HEAD + "1,all,mse.mse,\n", "row 1: value is ''"),
        (HEAD + "one,all,mse.mse,0.5\n", "row 1: round is 'one'"),
        (HEAD + f"1,all,mse.mse,{'x' * 70}\n", f"row 1: value is '{'x' * 58}…"),
        (HEAD + "1,all,mse.mse\n", "row 1 has 3 cells, and the head 4"),
        (HEAD + "1,all,mse.mse,0.5\n1,al", "row 2 has 2 cells, and the head 4"),
        (
            "round,client,metric\n1,all,mse.mse\n",
            "row 1: value is {'round': '1', 'client': 'all', 'metric': 'mse.mse'}",
        ),
        (HEAD + "1,all,\udce9,0.5\n", "it is damaged"),
        (HEAD + f"1,all,{'x' * 200_000},0.5\n", "it is damaged"),
    ],
    ids=["text", "empty", "no number", "long", "short row", "torn", "column missing", "no UTF-8", "endless cell"],
)
def test_what_is_no_such_table_is_named(tmp_path: Path, content: str, reason: str) -> None:
    """A cell, or a row, that can't be one is told in one line, with its place and as much of it as finds it."""
    path = tmp_path / "metrics.csv"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        tables.load(path, Measure)
    assert str(caught.value) == (
        f"{path} can't be read ({reason}); wanted a file as the server writes it; leave that run out"
    )


def test_a_table_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The reason is that of the operating system."""
    with pytest.raises(DataError, match=r"can't be read \(Is a directory\)"):
        tables.load(tmp_path, Measure)
