"""Compose projects that are gone when their test is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import QUICK, Stack

Maker = Callable[..., Stack]


@pytest.fixture
def make_stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Make Compose projects; they and their volumes are removed afterwards."""
    made: list[Stack] = []
    tmp_path.chmod(0o755)

    def make(plan: dict[str, Any] | None = None, **settings: Any) -> Stack:
        words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:40].strip("-")
        stack = Stack(
            f"fed-test-{os.getpid()}-{len(made)}-{words}", tmp_path, QUICK if plan is None else plan, **settings
        )
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.down()
