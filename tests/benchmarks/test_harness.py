"""The harness of benchmarks: who is run when, what is kept, and what it takes for a ratio to be refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import harness
from benchmarks.harness import OURS, Benchmark, BenchmarkError, Figure, Form, Measure, Side, Target
from benchmarks.suite import BENCHMARKS


def slow(_: Form) -> dict[str, list[float]]:
    """Take two, or six."""
    return {"round": [2.0, 6.0, 2.0]}


def quick(form: Form) -> dict[str, list[float]]:
    """Take one; half of it in the short form."""
    return {"round": [0.5 if form == "short" else 1.0]}


def own(_: Form) -> dict[str, list[float]]:
    """Tell the process that this runs in, and its parent."""
    return {"round": [os.getpid(), os.getppid()]}


def failing(_: Form) -> dict[str, list[float]]:
    """Say something and fail."""
    sys.stdout.write("said before\n")
    sys.stdout.flush()
    raise ValueError("no such luck")


def made_up(ours: Measure = quick, *rivals: Measure, target: Target | None = None, guarded: bool = True) -> Benchmark:
    """Make a benchmark up; its rivals are called by the names of their functions."""
    return Benchmark(
        "made-up",
        "What somebody made up.",
        (Figure("round", "a round", target=target),),
        Side(OURS, "us", ours),
        tuple(Side(rival.__name__, "them", rival) for rival in rivals),
        guarded=guarded,
    )


def at_once(measure: Measure, form: Form) -> Mapping[str, Sequence[float]]:
    """Run a side in this process."""
    return measure(form)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every side run in this process, which is faster."""
    monkeypatch.setattr(harness, "fresh", at_once)


def test_sides_are_run_in_turn() -> None:
    """Ours and each rival are run one after the other, and that as often as was asked for."""
    lines: list[str] = []
    harness.run(made_up(quick, slow, quick), 2, call=at_once, tell=lines.append)
    assert [line.split(": ")[1] for line in lines] == ["ours", "slow", "quick"] * 2


def test_a_figure_is_the_median_of_all_samples_with_its_spread() -> None:
    """All samples of a side are kept, by run, with median, least and most; a ratio is ours over the rival's median."""
    result = harness.run(made_up(quick, slow), 2, call=at_once)
    assert result["figures"] == {
        "round": {
            "sides": {
                "ours": {"median": 1.0, "min": 1.0, "max": 1.0, "samples": [[1.0], [1.0]]},
                "slow": {"median": 2.0, "min": 2.0, "max": 6.0, "samples": [[2.0, 6.0, 2.0]] * 2},
            },
            "ratios": {"slow": 0.5},
        }
    }
    assert (result["benchmark"], result["pairs"], result["form"]) == ("made-up", 2, "full")


def test_machine_and_versions_are_kept() -> None:
    """A result tells cores, memory, load, versions, date and commit, and is JSON."""
    found = harness.run(made_up(), 1, call=at_once)["facts"]
    assert found.keys() == {
        "date", "commit", "cores", "memory_gb", "machine", "load", "python", "tensorflow", "declearn", "flower",
    }  # fmt: skip
    assert found["declearn"].startswith("2.9.")
    assert json.loads(json.dumps(found)) == found


def test_a_commit_is_named_with_what_differs_from_it(tmp_path: Path) -> None:
    """A + tells that files differ from the commit, but for those that measuring writes; no repository is None."""
    assert harness.commit(tmp_path) is None

    def git(*words: str) -> None:
        author = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    result, source = tmp_path / "benchmarks" / "results" / "one.json", tmp_path / "source.py"
    result.parent.mkdir(parents=True)
    for path in (result, source):
        path.write_text("", encoding="utf-8")
    git("init")
    git("add", ".")
    git("commit", "--message", "all of it")
    name = harness.commit(tmp_path)
    assert name
    result.write_text("anew", encoding="utf-8")
    assert harness.commit(tmp_path) == name
    source.write_text("anew", encoding="utf-8")
    assert harness.commit(tmp_path) == f"{name}+"


def test_each_run_has_a_process_of_its_own() -> None:
    """Each run of each side is in another process, started by the one that measures."""
    runs = harness.run(made_up(own, own), 2)["figures"]["round"]["sides"]
    samples = [sample for side in runs.values() for sample in side["samples"]]
    assert len({process for process, _ in samples}) == len(samples) == 4
    assert {parent for _, parent in samples} == {os.getpid()}


def test_a_side_that_fails_ends_the_benchmark(capfd: pytest.CaptureFixture[str]) -> None:
    """Where a side fails, what it said last is shown, and the error names benchmark and side in one line."""
    with pytest.raises(BenchmarkError, match=r"^made-up: failing: its process ended with code 1$"):
        harness.run(made_up(quick, failing), 1)
    shown = capfd.readouterr().err
    assert "    said before\n" in shown
    assert shown.endswith("    ValueError: no such luck\n")


def test_a_side_that_gives_other_figures_is_refused() -> None:
    """A side must give samples of each figure it is said to give, and of no other."""
    with pytest.raises(BenchmarkError, match=r"^made-up: ours gave samples of \[\]; wanted \['round'\]$"):
        harness.run(made_up(lambda _: {"round": []}), 1, call=at_once)


def test_a_rival_may_give_some_figures_alone() -> None:
    """A figure that a rival does not give has our side alone, and no ratio."""
    figures = (Figure("round", "a round"), Figure("wall", "all of it"))
    rival = Side("slow", "them", slow, frozenset({"round"}))
    benchmark = Benchmark("made-up", "", figures, Side(OURS, "us", lambda _: {"round": [1], "wall": [3]}), (rival,))
    result = harness.run(benchmark, 1, call=at_once)
    assert result["figures"]["round"]["ratios"] == {"slow": 0.5}
    assert result["figures"]["wall"]["sides"].keys() == {OURS}
    assert result["figures"]["wall"]["ratios"] == {}


# -- targets and the baseline -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (None, None),
        (Target(1.0), True),
        (Target(0.9), False),
        (Target(0.5, "slow"), True),
        (Target(0.4, "slow"), False),
        (Target(0.5, "nobody"), None),
    ],
)
def test_a_target_is_a_number_or_a_multiple_of_a_rival(target: Target | None, *, met: bool | None) -> None:
    """A target is met by the median in its own unit, or by its ratio to the median of the rival it names."""
    benchmark = made_up(quick, slow, target=target)
    result = harness.run(benchmark, 1, call=at_once)
    assert harness.met(benchmark.figures[0], result["figures"]["round"]) is met


def result_of(ratio: float) -> list[dict[str, Any]]:
    """Make up a result with one ratio."""
    return [{"benchmark": "made-up", "figures": {"round": {"ratios": {"slow": ratio}}}}]


def test_a_ratio_beyond_its_margin_is_named() -> None:
    """One line names benchmark, figure and rival, ratio, baseline and margin; up to the margin all is well."""
    baseline = {"made-up/round/slow": {"ratio": 0.5, "margin": 0.2}}
    assert harness.check(result_of(0.6), baseline) == []
    assert harness.check(result_of(0.61), baseline) == [
        "made-up/round/slow: ratio 0.610 is beyond the baseline 0.500 and its margin of 20%"
    ]


def test_a_ratio_without_a_baseline_is_named() -> None:
    """A ratio that nothing holds is not passed over."""
    assert harness.check(result_of(0.6), {}) == [
        "made-up/round/slow: ratio 0.600 has no baseline; measure one with `script/bench --baseline`"
    ]


def test_a_new_baseline_keeps_margins(tmp_path: Path) -> None:
    """A new baseline takes the ratio, and keeps the margin that somebody chose and what else there is."""
    path = tmp_path / "baseline.json"
    path.write_text(
        json.dumps({"made-up/round/slow": {"ratio": 9, "margin": 0.4}, "z": {"ratio": 1, "margin": 0.1}}),
        encoding="utf-8",
    )
    harness.write_baseline(result_of(0.6), path)
    assert harness.read_baseline(path) == {
        "made-up/round/slow": {"ratio": 0.6, "margin": 0.4},
        "z": {"ratio": 1, "margin": 0.1},
    }


def test_the_committed_baseline_is_of_guarded_benchmarks() -> None:
    """Each entry of the committed baseline names a figure and a rival of a guarded benchmark, with ratio and margin."""
    known = {
        f"{each.name}/{figure.name}/{side.name}"
        for each in BENCHMARKS
        if each.guarded
        for figure in each.figures
        for side in each.rivals
    }
    baseline = harness.read_baseline()
    assert baseline.keys() <= known
    assert all(entry.keys() == {"ratio", "margin"} for entry in baseline.values())


# -- the command ------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, *words: str, benchmark: Benchmark | None = None) -> int:
    """Run the command on one benchmark, with its files in `tmp_path`."""
    places = (tmp_path / "results", tmp_path / "baseline.json", tmp_path / "page.md")
    return command.main(list(words), [benchmark or made_up(quick, slow)], *places)


@pytest.mark.usefixtures("here")
def test_what_is_measured_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark's table is printed, a line a side with its ratio and target, and its samples are in its file."""
    assert run(tmp_path, "made", benchmark=made_up(quick, slow, target=Target(0.9))) == 0
    assert capsys.readouterr().out == (
        "made-up: What somebody made up.\n"
        "figure  side  median  least … most  ours / it  target\n"
        "round   ours  1.00 s  1.00 … 1.00              ≤ 0.9 s, missed\n"
        "round   slow  2.00 s  2.00 … 6.00   0.500\n\n"
    )
    kept = harness.load("made-up", tmp_path / "results")
    assert kept is not None
    assert kept["pairs"] == harness.PAIRS
    assert kept["figures"]["round"]["ratios"] == {"slow": 0.5}


@pytest.mark.usefixtures("here")
def test_check_ends_with_1_where_a_ratio_is_too_high(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` holds the short form against the baseline that `--baseline` wrote, keeps no result, and ends with 1 and
    one line on standard error where a ratio is beyond it.
    """
    assert run(tmp_path, "--baseline") == 0
    assert harness.read_baseline(tmp_path / "baseline.json") == {
        "made-up/round/slow": {"ratio": 0.25, "margin": harness.MARGIN}
    }
    assert run(tmp_path, "--check") == 0
    capsys.readouterr()
    assert run(tmp_path, "--check", benchmark=made_up(slow, slow)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "bench: made-up/round/slow: ratio 1.000 is beyond the baseline 0.250 and its margin of 25%"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("other",), "no benchmark begins with 'other'; wanted some of made-up"),
        (("--pairs", "2"), "--pairs is 2; wanted at least 5"),
        (("--short",), "made-up: not guarded, so without a short form"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    """A name of nothing, too few pairs, or the short form of what has none end with code 2 and one line."""
    with pytest.raises(SystemExit) as end:
        run(tmp_path, *words, benchmark=made_up(guarded=False))
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"script/bench: error: {line}"


def test_list_names_each_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` has a line a benchmark, with the time that it takes, and runs nothing."""
    assert run(tmp_path, "--list", benchmark=made_up(failing)) == 0
    assert capsys.readouterr().out.split() == ["made-up", "1", "min", "What", "somebody", "made", "up."]


def test_names_are_unique_and_rivals_of_targets_exist() -> None:
    """Each benchmark has a name of its own, each side of it too, and each target is of a side that gives the figure."""
    assert len({each.name for each in BENCHMARKS}) == len(BENCHMARKS)
    for each in BENCHMARKS:
        assert len({side.name for side in each.sides}) == len(each.sides)
        assert each.ours.name == OURS
        for figure in each.figures:
            rival = figure.target and figure.target.rival
            assert rival is None or rival in {side.name for side in each.rivals if harness.gives(side, figure)}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_side_can_be_run_in_another_process(benchmark: Benchmark) -> None:
    """What runs a side can be handed to a process that is started anew."""
    for side in benchmark.sides:
        assert callable(pickle.loads(pickle.dumps(side.measure)))  # noqa: S301 - written one line before
