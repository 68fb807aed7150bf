"""What each plan in experiments/ comes to: run whole, one after another, as containers through Docker Compose.

Wall is from `docker compose up` to the server's end: dealing, imports, rounds and results. A round is the median of the
run's. With `--write`, the rows of the table in docs/recipes.md are replaced by what was measured.

    python -m benchmarks.recipes [NAME …] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.compose.stack import Stack
from tests.recipes import RECIPES, settings
from tests.support import REPOSITORY

PAGE = REPOSITORY / "docs" / "recipes.md"

CLIENTS = {"central-dp": 10}
"""Number of clients of the recipes that are made for another than three."""

LONGEST = 3600.0
"""Seconds that a recipe may take."""


def main(argv: list[str] | None = None) -> int:
    """Run the recipes and print a row of a table for each and, as the last line, JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=sorted(RECIPES), help="of a file in experiments/")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/recipes.md")
    options = parser.parse_args(argv)
    unknown = set(options.names) - RECIPES.keys()
    if unknown:
        parser.error(f"no recipe {sorted(unknown)}; wanted some of {sorted(RECIPES)}")
    results: dict[str, Any] = {}
    for name in options.names:
        results[name] = run(name, CLIENTS.get(name, 3))
        print(row(name, results[name]), flush=True)
        if options.write:
            write(row(name, results[name]))
    print(json.dumps(results))
    return 0 if all(result["status"] == "completed" for result in results.values()) else 1


def run(name: str, clients: int) -> dict[str, Any]:
    """Run one recipe to its end and give its figures."""
    with tempfile.TemporaryDirectory(prefix="fed-recipe-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        folder.chmod(0o755)
        plan = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
        stack = Stack(
            f"fed-recipe-{os.getpid()}",
            folder,
            plan,
            **{"CLIENTS": clients, "MAX_CLIENTS": clients, **settings(name, folder)},
        )
        began = time.monotonic()
        try:
            stack.up()
            stack.wait_server(LONGEST)
            wall = time.monotonic() - began
            summary = stack.summary
            rounds = [float(line["seconds"]) for line in stack.table("history.csv")]
        finally:
            stack.down()
    return {
        "status": summary["status"],
        "reason": summary["reason"],
        "accuracy": summary["test_accuracy"],
        "rounds": summary["rounds"],
        "round_s": statistics.median(rounds) if rounds else None,
        "wall_s": wall,
    }


def row(name: str, result: dict[str, Any]) -> str:
    """Write one recipe's figures as a row of the table."""
    if result["status"] != "completed":
        return f"| {name} | {result['status']}: {result['reason']} | | | |"
    return (
        f"| `{name}` | {result['accuracy']:.4f} | {result['rounds']} "
        f"| {result['round_s']:.1f} | {result['wall_s']:.0f} |"
    )


def write(line: str) -> None:
    """Replace the row of the same name in the page."""
    start = line.split("|")[1]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    PAGE.write_text("\n".join(line if old.startswith(f"|{start}|") else old for old in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
