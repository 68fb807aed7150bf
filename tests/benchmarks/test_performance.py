"""docs/performance.md: what was measured, and what was not."""

from __future__ import annotations

from pathlib import Path

from benchmarks import __main__ as command
from benchmarks import harness, performance
from benchmarks.harness import Target
from benchmarks.suite import BENCHMARKS
from tests.benchmarks.test_harness import at_once, made_up, quick, slow


def test_the_page_is_what_the_results_make() -> None:
    """The committed page is the one that the committed results make; where it is not, `script/bench --page`."""
    assert performance.PAGE.read_text(encoding="utf-8") == performance.page(BENCHMARKS)


def test_every_result_is_of_a_benchmark() -> None:
    """Each file of results is of a benchmark that there is, in full, with no figure or side that it does not have."""
    known = {each.name: each for each in BENCHMARKS}
    for path in harness.RESULTS.glob("*.json"):
        result = harness.load(path.stem)
        assert result is not None
        benchmark = known[path.stem]
        assert (result["benchmark"], result["form"]) == (path.stem, "full")
        assert result["pairs"] >= harness.PAIRS
        assert result["figures"].keys() == {figure.name for figure in benchmark.figures}
        for figure in result["figures"].values():
            assert figure["sides"].keys() <= {side.name for side in benchmark.sides}


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    """A benchmark without a result has its row and its section, and both say so."""
    page = performance.page([made_up(quick, slow, target=Target(0.5, "slow"))], tmp_path)
    assert "| `made-up` | round | not measured |  | ≤ 0.5 of slow |  |\n" in page
    assert page.endswith("\nNot measured.\n")


def test_what_was_measured_is_on_the_page(tmp_path: Path) -> None:
    """A result has its row in the overview, with ratio and whether the target is met, and a table with all sides."""
    benchmark = made_up(quick, slow, target=Target(0.5, "slow"))
    harness.save(harness.run(benchmark, 5, call=at_once), tmp_path)
    page = tmp_path / "page.md"
    assert command.main(["--page"], [benchmark], tmp_path, page=page) == 0
    text = page.read_text(encoding="utf-8")
    assert "| `made-up` | round | 1.00 s | 0.500 of slow | ≤ 0.5 of slow | yes |\n" in text
    assert "| round | ours | 1.00 s | 1.00 … 1.00 |  | ≤ 0.5 of slow, met |\n" in text
    assert "| round | slow | 2.00 s | 2.00 … 6.00 | 0.500 |  |\n" in text
    assert "\n5 runs of each on 20" in text
