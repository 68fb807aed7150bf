"""`fed compare`: which runs a word stands for, what the table says, and what the picture shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services import compare
from services.errors import DataError, UsageError
from services.experiment import Plan

HEAD = "round,test_loss,test_accuracy,bytes_sent,bytes_received\n"


def write(results: Path, name: str, plan: Mapping[str, Any], **summary: Any) -> Path:
    """Write a run of two rounds of `plan`, whose second has no figures."""
    folder = results / name
    folder.mkdir(parents=True)
    content = json.loads(Plan.model_validate(plan).model_dump_json())
    facts = {
        "status": "completed",
        "clients": 3,
        "rounds": 2,
        "test_accuracy": 0.98765,
        "test_loss": 0.0412,
        "wall_s": 33.6,
    }
    (folder / "summary.json").write_text(json.dumps(facts | summary | {"experiment": content}))
    (folder / "history.csv").write_text(f"{HEAD}1,0.5,0.9,2000000,1000000\n2,,,550000,100000\n")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three runs and a sweep of two of them, in a folder of results."""
    folder = tmp_path / "results"
    write(folder, "a", {"optimizer": {"client": {"lrate": 0.01, "modules": []}}})
    write(
        folder,
        "b",
        {
            "optimizer": {"client": {"lrate": 0.05, "modules": [{"momentum": {"beta": 0.9}}]}},
            "data": {"scheme": "dirichlet", "alpha": 0.1},
            "secagg": "masking",
        },
        status="stopped",
        test_accuracy=None,
    )
    write(folder, "c", {"aggregator": "gma"})
    (folder / "latest").symlink_to("c")
    sweep = folder / "sweeps" / "s"
    sweep.mkdir(parents=True)
    runs = [{"run_id": "b"}, {"run_id": None}, {"run_id": "gone"}, {"run_id": "a"}]
    (sweep / "sweep.json").write_text(json.dumps({"runs": runs}))
    return folder


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["latest", "c", "a"], ["c", "a"]),
        (["s"], ["b", "a"]),
        (["c", "s", "a"], ["c", "b", "a"]),
    ],
)
def test_a_run_is_named_in_several_ways(results: Path, tmp_path: Path, words: list[str], names: list[str]) -> None:
    """An id, `latest` and a sweep stand for runs, each of which is told of once."""
    lines = compare.run(words, results, tmp_path / "x.png").splitlines()
    assert [line.split()[0] for line in lines] == ["run", *names]


def test_a_folder_may_be_anywhere(results: Path, tmp_path: Path) -> None:
    """A run or a sweep may be named by its folder, too; a run's may be outside of the results."""
    elsewhere = write(tmp_path, "elsewhere", {})
    words = [str(elsewhere), str(results / "sweeps" / "s")]
    lines = compare.run(words, results, tmp_path / "x.png").splitlines()
    assert [line.split()[0] for line in lines] == ["run", "elsewhere", "b", "a"]


@pytest.mark.parametrize("word", ["nowhere", "sweeps", ""])
def test_what_is_neither_run_nor_sweep_is_refused(results: Path, tmp_path: Path, word: str) -> None:
    """A word that stands for nothing is told, and no picture is written."""
    with pytest.raises(UsageError) as caught:
        compare.run(["a", word], results, tmp_path / "x.png")
    assert str(caught.value) == (
        f"{word} is no run and no sweep; wanted a run's id or folder, `latest`, or a sweep; look into {results}"
    )
    assert not (tmp_path / "x.png").exists()


def test_a_sweep_without_runs_is_refused(results: Path, tmp_path: Path) -> None:
    """A sweep that has come to no run is told as such."""
    (results / "sweeps" / "s" / "sweep.json").write_text('{"runs": [{"run_id": null}]}')
    with pytest.raises(UsageError, match=r"^sweep s has no run yet; "):
        compare.run(["s"], results, tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a/summary.json", "{"),
        ("a/summary.json", "[]1"),
        ("a/history.csv", f"{HEAD}1,x,0.9,2,1\n"),
        ("sweeps/s/sweep.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(results: Path, tmp_path: Path, name: str, text: str) -> None:
    """A file that does not hold what it should is told in one line."""
    (results / name).write_text(text)
    with pytest.raises(DataError) as caught:
        compare.run(["a", "s"], results, tmp_path / "x.png")
    assert str(caught.value) == (
        f"{(results / name).resolve()} can't be read (it is damaged); wanted a file as the server writes it;"
        " leave that run out"
    )


def test_the_table_has_what_differs_and_how_it_ended(results: Path, tmp_path: Path) -> None:
    """A line a run: the keys in which plans differ, as short as can be, then figures; what is not there is empty."""
    (results / "b" / "history.csv").unlink()
    assert compare.run(["a", "b"], results, tmp_path / "x.png") == (
        "run  scheme     alpha  lrate  modules               secagg   status     clients  rounds  test_accuracy"
        "  test_loss  wall_s  MB_sent  MB_received\n"
        "a    iid        0.5    0.01   []                    null     completed        3       2         0.9877"
        "     0.0412      34      2.5          1.1\n"
        "b    dirichlet  0.1    0.05   [momentum(beta=0.9)]  masking  stopped          3       2               "
        "     0.0412      34      0.0          0.0\n"
    )
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_keys_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Where two keys end alike, as many parts are shown as tell them apart."""
    rates = {"client": {"lrate": 0.1}, "server": {"lrate": 0.5}}
    write(tmp_path, "a", {"optimizer": rates})
    write(tmp_path, "b", {"aggregator": {"averaging": {"steps_weighted": False}}})
    lines = compare.table([compare.read(tmp_path / name) for name in "ab"]).splitlines()
    assert lines[0].split()[:4] == ["run", "client.lrate", "server.lrate", "aggregator"]
    assert lines[2].split()[:4] == ["b", "0.002", "1", "averaging(steps_weighted=false)"]


def test_plans_of_an_older_version_lack_keys(results: Path, tmp_path: Path) -> None:
    """A key that one run's plan does not have is empty in its line."""
    path = results / "a" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["experiment"]["secagg"]
    path.write_text(json.dumps(summary))
    lines = compare.run(["a", "c"], results, tmp_path / "x.png").splitlines()
    assert "secagg" in lines[0]
    assert "null" not in lines[1]
    assert "null" in lines[2]


@pytest.mark.parametrize("count", [1, 10, 12])
def test_the_picture_has_a_line_a_run(tmp_path: Path, count: int) -> None:
    """Each run is a line of its own colour, named by what it differs in or by itself; gaps are left out."""
    for number in range(count):
        write(tmp_path, f"r{number}", {"seed": number})
    figure = compare.figure([compare.read(tmp_path / f"r{number}") for number in range(count)])
    for axes, height in zip(figure.axes, (0.9, 0.5), strict=True):
        assert len(axes.lines) == count
        assert len({line.get_color() for line in axes.lines}) == count
        for line in axes.lines:
            assert (list(line.get_xdata()), list(line.get_ydata())) == ([1.0], [height])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == (["r0"] if count == 1 else [f"seed={number}" for number in range(count)])
