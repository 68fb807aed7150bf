"""Tables: lines of values, with or without names of columns, and labels that are numbers or names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.errors import DataError
from services.readers import table
from services.readers.base import Contents, Reading

FLOWERS = "long,wide,kind\n5.1,3.5,rose\n4.9,-3,iris\n70,2.5,rose\n"


def read(folder: Path, text: str | bytes, name: str = "train.csv", **how: Any) -> Contents:
    """Write a table and read it."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return table.read(folder, "test", Reading(**how))


def refusal(folder: Path, text: str | bytes, **how: Any) -> str:
    """Read a table, which must fail, and give the line without the folder's name."""
    with pytest.raises(DataError) as caught:
        read(folder, text, **how)
    return str(caught.value).replace(f"{folder}/", "")


def values(contents: Contents) -> list[Any]:
    """List the examples to train on."""
    listed: list[Any] = contents.train.rows[np.arange(len(contents.train.rows))].tolist()
    return listed


def test_labels_may_be_names(tmp_path: Path) -> None:
    """Names are numbered as they sort, and the other columns are features as they are."""
    contents = read(tmp_path, FLOWERS, label="kind")
    assert contents.classes == ("iris", "rose")
    assert contents.train.labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(values(contents), [[5.1, 3.5], [4.9, -3], [70, 2.5]])


def test_a_list_of_classes_numbers_them(tmp_path: Path) -> None:
    """`classes.txt` says which name is which number, also of a class that the table does not have."""
    (tmp_path / "classes.txt").write_text("rose\niris\nlily\n")
    contents = read(tmp_path, FLOWERS, label="kind")
    assert contents.classes == ("rose", "iris", "lily")
    assert contents.train.labels.tolist() == [0, 1, 0]
    (tmp_path / "classes.txt").write_text("iris\nlily\n")
    assert refusal(tmp_path, FLOWERS, label="kind") == (
        "train.csv, line 2: label 'rose'; wanted one of iris, lily; correct it, or list all classes in classes.txt"
    )


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("label,a,b\n1,10,20\n0,30,40\n", None),
        ("a,label,b\n10,1,20\n30,0,40\n", None),
        ("1,10,20\n0,30,40\n", None),
        ("10,20,1\n30,40,0\n", "3"),
        ("a,b,kind\n10,20,1\n30,40,0\n", "kind"),
        ("a,b,c\n10,20,1\n30,40,0\n", "3"),
        ("label,0,1\n1,10,20\n0,30,40\n", None),
        ("label;a;b\n1;10;20\n0;30;40\n", None),
        ("label\ta\tb\n1\t10\t20\n0\t30\t40\n", None),
        ("\ufefflabel,a,b\r\n1.0,10,20\r\n\r\n0.0,30,40", None),
        ('"label","a","b"\n"1","10","20"\n"0","30","40"\n', None),
    ],
)
def test_a_table_has_many_forms(tmp_path: Path, text: str, label: str | None) -> None:
    """Columns are named or not, the label stands anywhere, and commas may be semicolons or tabs: it is one table."""
    contents = read(tmp_path, text, label=label)
    assert contents.classes is None
    assert contents.train.labels.tolist() == [1, 0]
    assert values(contents) == [[10, 20], [30, 40]]


def test_more_lines_than_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lines are read at a time, the table is the same, and a bad line is named by its own number."""
    monkeypatch.setattr(table, "LINES", 2)
    text = "label,a\n" + "".join(f"{number % 3},{number / 4}\n" for number in range(7))
    contents = read(tmp_path, text)
    assert contents.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert values(contents) == [[number / 4] for number in range(7)]
    assert refusal(tmp_path, text + "\n1,x\n").startswith("train.csv, line 10: 'x' in column a; wanted a finite number")


def _pixels(side: int, top: int = 255) -> str:
    rng = np.random.default_rng(0)
    rows = [[n % 2, *rng.integers(0, top + 1, side * side)] for n in range(6)]
    return "\n".join(",".join(map(str, row)) for row in rows)


def test_a_square_of_bytes_is_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As many columns of bytes as a square has are an image, which the log says; `shape` says that they are not."""
    with caplog.at_level(logging.INFO, "fed.data"):
        rows = read(tmp_path, _pixels(8)).train.rows
    assert (rows.shape, rows.dtype) == ((6, 8, 8), np.dtype(np.uint8))
    assert caplog.messages[0] == (
        f"{tmp_path}/train.csv: 64 columns of whole numbers from 0 to 255 taken for images of 8 x 8 (data.shape: [64]"
        " for features)"
    )
    rows = read(tmp_path, _pixels(8), shape=(64,)).train.rows
    assert (rows.shape, rows.dtype) == ((6, 64), np.dtype(np.float32))
    assert read(tmp_path, _pixels(7)).train.rows.shape == (6, 49)
    assert read(tmp_path, _pixels(8, 256)).train.rows.shape == (6, 64)


def test_zeros_and_ones_are_no_shades(tmp_path: Path) -> None:
    """Images of nothing but zeros and ones are black and white, not two shades of black."""
    rows = read(tmp_path, _pixels(8, 1), shape=(8, 8)).train.rows
    assert rows.dtype == np.float32
    assert set(np.unique(rows[np.arange(6)])) == {0, 1}


def test_shape_may_have_channels(tmp_path: Path) -> None:
    """`shape` makes images in colour of a table; values that are none of an image's are refused."""
    assert read(tmp_path, "0" + ",200" * 12 + "\n1" + ",9" * 12, shape=(2, 2, 3)).train.rows.shape == (2, 2, 2, 3)
    line = refusal(tmp_path, "0" + ",200.5" * 12 + "\n1" + ",9" * 12, shape=(2, 2, 3))
    assert line.startswith("train.csv holds values from 9 to 200.5; wanted floats in [0, 1], or uint8")


def test_a_test_set_stands_beside(tmp_path: Path) -> None:
    """`test.csv` is to test on, its names numbered as those to train on; a table of any name may be to train on."""
    (tmp_path / "test.csv").write_text("long,wide,kind\n1,2,rose\n")
    contents = read(tmp_path, FLOWERS, "flowers.csv", label="kind")
    assert contents.second is not None
    assert contents.second.labels.tolist() == [1]
    (tmp_path / "test.csv").write_text("long,wide,kind\n1,2,lily\n")
    (tmp_path / "flowers.csv").unlink()
    assert refusal(tmp_path, FLOWERS, label="kind").startswith(
        "test.csv, line 2: label 'lily'; wanted one of iris, rose"
    )
    (tmp_path / "test.csv").write_text("long,kind\n1,rose\n")
    assert refusal(tmp_path, FLOWERS, label="kind") == (
        "test.csv has other columns than train.csv; wanted the same columns, in the same order; write it again"
    )


def test_tables_of_unknown_use_are_refused(tmp_path: Path) -> None:
    """Of several tables it must be said which is to train on."""
    (tmp_path / "a.csv").write_text(FLOWERS)
    with pytest.raises(DataError) as caught:
        read(tmp_path, FLOWERS, "b.csv")
    assert str(caught.value) == (
        f"{tmp_path} holds a.csv, b.csv; wanted train.csv, or one .csv file of any name, and test.csv if there is one;"
        " rename or move them"
    )


@pytest.mark.parametrize(
    ("text", "how", "line"),
    [
        ("", {}, "train.csv is empty; wanted a line an example; write it again"),
        ("label,a\n", {}, "train.csv holds the names of columns alone; wanted a line an example; write it again"),
        ("1\n2\n", {}, "train.csv has one column; wanted a column of labels and columns of values; write it again"),
        ("label,a\n0,1\n1,2,3\n", {}, "train.csv, line 3: 3 values; wanted 2, as in the first line; mend that line"),
        ("label,a\n0,1\n1\n", {}, "train.csv, line 3: 1 values; wanted 2, as in the first line; mend that line"),
        (
            "label,a\n0,1\n1,two\n",
            {},
            (
                "train.csv, line 3: 'two' in column a; wanted a finite number;"
                " mend that line, or set data.label if these are the labels"
            ),
        ),
        ("0,1\n1,nan\n", {}, "train.csv, line 2: 'nan' in column 2; wanted a finite number;"),
        ("0,1\n1,1e39\n", {}, "train.csv, line 2: '1e39' in column 2; wanted a finite number;"),
        ("0,1\n1,\n", {}, "train.csv, line 2: '' in column 2; wanted a finite number;"),
        ("0,1\n,2\n", {}, "train.csv, line 2: no label in column 1; wanted a label; add it, or remove that line"),
        ("0,1\nnan,2\n", {}, "train.csv, line 2: no label in column 1; wanted a label; add it, or remove that line"),
        (
            "label,a\n0,1\n1.5,2\n",
            {},
            (
                "train.csv, line 3: label '1.5' in column label; wanted whole numbers from 0 on, or names;"
                " set data.label to the column that holds the labels"
            ),
        ),
        ("-1,1\n1,2\n", {}, "column 1 of train.csv holds labels from -1 to 1; wanted labels from 0 to 255; number"),
        ("0,1\n256,2\n", {}, "column 1 of train.csv holds labels from 0 to 256; wanted labels from 0 to 255; number"),
        ("a,b\n1,2\n", {"label": "c"}, "train.csv has no column 'c'; wanted one of a, b; correct data.label"),
        (
            "1,2\n1,2\n",
            {"label": "3"},
            "train.csv has no column '3'; wanted a number from 1 to 2, for want of names; correct data.label",
        ),
        ("kind,a\nrose,1\n", {}, "column kind of train.csv holds 1 class; wanted from 2 to 256 classes; add another"),
        (b"label,a\n\xff,1\n", {}, "train.csv is no UTF-8 text; wanted a table as text, comma-separated; save it as"),
        ("0,1,2\n1,2,3\n", {"shape": (2, 2)}, "train.csv holds examples of 2 values; wanted 2 x 2 (data.shape);"),
    ],
)
def test_a_line_that_is_not_like_the_others_is_refused(
    tmp_path: Path, text: str | bytes, how: dict[str, Any], line: str
) -> None:
    """What can't be read is named with its file, line and column, with what was wanted and what to do."""
    assert refusal(tmp_path, text, **how).startswith(line)


def test_an_unreadable_table_is_refused(tmp_path: Path) -> None:
    """What the system refuses to read is refused with its reason."""
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(DataError) as caught:
        table.read(tmp_path, "test", Reading())
    assert str(caught.value) == f"{tmp_path}/train.csv can't be read (Is a directory); mend its permissions"
