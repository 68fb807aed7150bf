"""The plans in experiments/, and what some of them need beside the default settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import REPOSITORY

RECIPES = {path.stem: path for path in sorted((REPOSITORY / "experiments").glob("*.yml"))}
"""Each recipe's file, by its name."""

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


def settings(name: str, folder: Path) -> dict[str, Any]:
    """Give what `.env` would say for a recipe; `folder` receives data that are made for it."""
    del folder
    return {"fashion-mnist": {"DATA": FASHION}}.get(name, {})
