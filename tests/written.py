"""What a run has written so far, as tests read it from outside."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file; one that is not there yet has no rows."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Written:
    """The folder of the newest run of some federation, whatever it runs on."""

    @property
    def latest(self) -> Path:
        """That folder."""
        raise NotImplementedError

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.latest / "summary.json").read_text(encoding="utf-8"))
        return content

    def table(self, name: str) -> list[dict[str, str]]:
        """Read one of its tables."""
        return rows(self.latest / name)

    @property
    def rounds(self) -> int:
        """Number of rounds that are in the history."""
        return len(self.table("history.csv"))

    def trained(self, client: str) -> set[int]:
        """Rounds in which a client trained."""
        found = self.table("clients.csv")
        return {int(row["round"]) for row in found if row["client"] == client and row["state"] == "trained"}

    def happened(self, event: str, client: str) -> bool:
        """Tell whether `events.csv` tells of an event of a client."""
        return any((row["event"], row["client"]) == (event, client) for row in self.table("events.csv"))
