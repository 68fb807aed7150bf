"""One lab for all tests of a session: four hosts, each with an engine that holds the image."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab

IMAGE = os.environ.get("IMAGE", "fed")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Hosts on one wire; they are gone afterwards, whatever happened."""
    if os.geteuid() != 0:
        reason = "network namespaces are made by root alone"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    made = Lab(f"fed{os.getpid() % 100_000}", 4)
    made.up([IMAGE])
    try:
        yield made
    finally:
        made.down()
