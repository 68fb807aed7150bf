"""The plans in experiments/, through containers, each cut short; whole, with their figures: docs/recipes.md."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from tests.compose.conftest import Maker
from tests.recipes import FASHION, RECIPES, settings

pytestmark = pytest.mark.compose

SHORT = "rounds=2 train.steps=5 federation.min_clients=2 federation.join_grace=1"
"""In place of what the plan says: two rounds of five local steps."""

TESTED_ELSEWHERE = {"own-data": "test_own_data.py"}
"""Recipes that another file runs, as short as they are."""


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - TESTED_ELSEWHERE.keys()))
def test_a_recipe_runs_to_its_end(make_stack: Maker, tmp_path: Path, name: str) -> None:
    """Two clients train the plan by whatever it asks for, and leave a finite score and no traceback."""
    if name == "fashion-mnist" and not FASHION.exists():
        pytest.skip("dataset-fashion-mnist is not installed")
    plan = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    stack = make_stack(plan, **{"SET": SHORT, "CLIENTS": 2, "MAX_CLIENTS": 2, **settings(name, tmp_path)})
    stack.up()
    assert stack.wait_server() == 0
    summary = stack.summary
    assert (summary["status"], summary["rounds"], summary["clients"]) == ("completed", 2, 2)
    assert 0 < summary["test_accuracy"] <= 1
    assert math.isfinite(summary["test_loss"])
    stack.check_history(2)
