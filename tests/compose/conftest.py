"""Compose projects that are gone when their test, or the module of their tests, is."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import QUICK, Stack

Maker = Callable[..., Stack]


@contextlib.contextmanager
def stacks(title: str, folder: Path) -> Iterator[Maker]:
    """Give what makes Compose projects in `folder`; they and their volumes are removed afterwards."""
    made: list[Stack] = []
    words = re.sub(r"[^a-z0-9]+", "-", title.lower().removeprefix("test_"))[:40].strip("-")
    folder.chmod(0o755)

    def make(plan: dict[str, Any] | None = None, **settings: Any) -> Stack:
        stack = Stack(
            f"fed-test-{os.getpid()}-{len(made)}-{words}", folder, QUICK if plan is None else plan, **settings
        )
        made.append(stack)
        return stack

    try:
        yield make
    finally:
        for stack in made:
            stack.down()


@pytest.fixture
def make_stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Make Compose projects for one test."""
    with stacks(request.node.name, tmp_path) as make:
        yield make
