"""What one dishonest client of five does to the model, or two, by the rule under which updates are put together.

The plan is the default one, the data set MNIST's own, dealt to five. The last client takes part as the others do, and
sends something else than it has learned (`tests/faults/dishonest_client.py`), within the bounds of what is refused in
any case. All are in one process, over TLS on loopback. A figure is the test accuracy after the last round. With
`--write`, the table in docs/methods.md is replaced by what was measured.

    python -m benchmarks.attacks [KIND=STRENGTH[*CLIENTS] …] [--rule RULE …] [--set KEY=VALUE …] [--write]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import RAW, REPOSITORY

if TYPE_CHECKING:
    from services.paths import Paths

PAGE = REPOSITORY / "docs" / "methods.md"
BEGIN, END = "<!-- python -m benchmarks.attacks --write -->\n", "<!-- end -->\n"

CLIENTS = 5

ATTACKS = ["none", "sign=10", "scale=100", "random=100", "sign=10*2"]
"""Kinds of `tests.faults.dishonest_client`, with a strength that is fatal to the mean; and how many, if not one."""

RULES: dict[str, list[str]] = {
    "mean": [],
    "norm": ["robust.max_update_norm=5"],
    "median": ["robust.aggregator=median"],
    "trimmed-mean": ["robust.aggregator=trimmed-mean", "robust.trim=0.2"],
    "both": ["robust.aggregator=trimmed-mean", "robust.trim=0.2", "robust.max_update_norm=5"],
}
"""What each sets in the plan."""


def main(argv: list[str] | None = None) -> int:
    """Run each attack under each rule, print the table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"none, or as {', '.join(ATTACKS[1:])}")
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", default=[], help="of the plan, as `fed demo` takes it")
    parser.add_argument("--write", action="store_true", help="put the whole table into docs/methods.md")
    options = parser.parse_args(argv)
    if options.write and (options.attacks or options.set or options.rule != list(RULES)):
        parser.error("--write takes the whole table")
    quiet()
    from services.paths import Paths

    table: dict[str, list[str]] = {}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fed-attacks-") as folder:
        paths = Paths(Path(folder))
        paths.raw.parent.mkdir(parents=True)
        paths.raw.symlink_to(RAW)
        for attack in options.attacks or ATTACKS:
            for rule in options.rule:
                found = run(paths, attack, RULES[rule] + options.set)
                results.append({"attack": attack, "rule": rule, **found})
                table.setdefault(attack, []).append(cell(found))
                print(f"{attack} under {rule}: {cell(found)}, by round {found['accuracies']}", flush=True)
    text = rows(table, options.rule)
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")
    print(json.dumps(results))
    return 0


def quiet() -> None:
    """Keep the federation's own lines, and TensorFlow's, out of the table."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def run(paths: Paths, attack: str, settings: list[str]) -> dict[str, Any]:
    """Run one federation; gives how it ended and its test accuracy by round."""
    from services import experiment
    from services.errors import FedError
    from services.experiment import overrides
    from tests.faults.dishonest_client import forger
    from tests.federation import Federation

    plan = experiment.load(REPOSITORY / "experiment.yml", [overrides.read(each, "--set") for each in settings])
    federation = Federation(paths, plan, clients=CLIENTS, max_clients=CLIENTS)
    began = time.monotonic()
    kind, _, rest = attack.partition("=")
    strength, _, count = rest.partition("*")
    forgers = [] if kind == "none" else [forger(kind, float(strength)) for _ in range(int(count or 1))]
    with contextlib.suppress(FedError):  # a mean that is no number ends the run
        asyncio.run(federation.play_with(*[None] * (CLIENTS - len(forgers)), *forgers))
    return {
        "status": federation.summary["status"],
        "kept": federation.summary["test_accuracy"],
        "accuracies": [float(row["test_accuracy"]) for row in federation.table("history.csv")],
        "wall_s": round(time.monotonic() - began, 1),
    }


def cell(found: Mapping[str, Any]) -> str:
    """Write the figure of one run: the accuracy after the last round, or the round that it failed in."""
    last: float = found["accuracies"][-1] if found["accuracies"] else float("nan")
    if found["status"] != "completed":
        return f"fails in round {len(found['accuracies'])}"
    return f"{last:.4f}"


def rows(table: Mapping[str, list[str]], rules: list[str]) -> str:
    """Write the table, a row an attack."""
    lines = [["Attack", *(f"`{rule}`" for rule in rules)], ["---"] * (len(rules) + 1)]
    lines += [[f"`{attack}`" if "=" in attack else attack, *cells] for attack, cells in table.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
