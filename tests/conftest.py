"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.init import dataset
from services.paths import Paths
from tests.support import RAW, write_source


@pytest.fixture(scope="session")
def mnist() -> dataset.Dataset:
    """The real data set, read once."""
    return dataset.load(RAW)


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dataset.Source]:
    """A folder of IDX files, written once: 600 + 50 images of noise in the shape of MNIST."""
    raw = tmp_path_factory.mktemp("noise")
    return raw, write_source(raw, train=600, test=50)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: tuple[Path, dataset.Source]) -> Paths:
    """Paths of a federation of its own, whose data set is 600 + 50 images of noise that pass for MNIST."""
    raw, source = noise
    paths = Paths(tmp_path / "root")
    shutil.copytree(raw, paths.raw)
    monkeypatch.setattr(dataset, "MNIST", source)
    monkeypatch.setattr(dataset, "SOURCES", {source.name: source})
    return paths
