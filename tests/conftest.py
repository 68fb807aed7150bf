"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.init import dataset
from services.paths import Paths
from tests.support import RAW, write_source


@pytest.fixture(scope="session")
def mnist() -> dataset.Dataset:
    """The real data set, read once."""
    return dataset.load(RAW)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Paths of a federation of its own, whose data set is 600 + 50 images of noise that pass for MNIST."""
    paths = Paths(tmp_path / "root")
    source = write_source(paths.raw, train=600, test=50)
    monkeypatch.setattr(dataset, "MNIST", source)
    monkeypatch.setattr(dataset, "SOURCES", {source.name: source})
    return paths
