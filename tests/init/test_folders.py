"""`fed data`: the folders that declearn's `prepare_data.py` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import ConflictError, UsageError
from services.experiment import Scheme
from services.init import folders
from services.paths import Paths
from services.readers.folder import load_site
from tests.support import RAW, contents


def _theirs(raw: Path, clients: int, scheme: Any, seed: int) -> list[dict[str, NDArray[Any]]]:
    """Do what declearn's `prepare_data.py` does, but for saving the arrays."""
    from declearn.dataset.examples import load_mnist  # noqa: PLC0415 - takes seconds
    from declearn.dataset.utils import split_multi_classif_dataset  # noqa: PLC0415

    split = split_multi_classif_dataset(load_mnist(train=True, folder=str(raw)), clients, scheme, seed=seed)
    return [
        {"train_data": x_train, "train_target": y_train, "valid_data": x_valid, "valid_target": y_valid}
        for (x_train, y_train), (x_valid, y_valid) in split
    ]


def _assert_same(root: Path, expected: list[dict[str, NDArray[Any]]]) -> None:
    assert sorted(path.name for path in root.glob("client_*")) == sorted(f"client_{n}" for n in range(len(expected)))
    for number, arrays in enumerate(expected):
        for name, array in arrays.items():
            written = np.load(root / f"client_{number}" / f"{name}.npy", mmap_mode="r")
            assert written.dtype == array.dtype
            np.testing.assert_array_equal(written, array)


@pytest.mark.parametrize("scheme", ["iid", "labels", "biased", "dirichlet"])
def test_arrays_are_those_of_prepare_data(small: Paths, tmp_path: Path, scheme: Scheme) -> None:
    """For the same number, scheme and seed every array has the values, type and order of declearn's."""
    assert folders.write_folders(small.raw, tmp_path, 4, scheme, 11) == 11
    _assert_same(tmp_path / f"mnist_{scheme}", _theirs(small.raw, 4, scheme, 11))


def test_real_arrays_are_those_of_prepare_data(tmp_path: Path) -> None:
    """On the real data set, too."""
    folders.write_folders(RAW, tmp_path, 3, "iid", 0)
    _assert_same(tmp_path / "mnist_iid", _theirs(RAW, 3, "iid", 0))


def test_folder_reads_as_a_sites_own_data(small: Paths, tmp_path: Path) -> None:
    """What is written is what a client reads as its own data."""
    folders.write_folders(small.raw, tmp_path, 2, seed=0)
    shard = load_site(tmp_path / "mnist_iid" / "client_1")
    assert shard.valid_images is not None
    assert (len(shard.train_images), len(shard.valid_images)) == (240, 60)


def test_drawn_seed_is_given_back(small: Paths, tmp_path: Path) -> None:
    """Without a seed one is drawn, and the seed returned and noted makes the same files again."""
    seed = folders.write_folders(small.raw, tmp_path / "once", 3)
    assert json.loads((tmp_path / "once" / "mnist_iid" / "manifest.json").read_text())["seed"] == seed
    folders.write_folders(small.raw, tmp_path / "again", 3, seed=seed)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_clients_of_another_split_are_not_mixed_in(small: Paths, tmp_path: Path) -> None:
    """Fewer clients than a folder holds is a conflict; as many write it anew."""
    folders.write_folders(small.raw, tmp_path, 4, seed=0)
    with pytest.raises(ConflictError) as caught:
        folders.write_folders(small.raw, tmp_path, 2, seed=0)
    root = tmp_path / "mnist_iid"
    assert str(caught.value) == (
        f"{root} holds client_2 and 1 more of another split; wanted nothing beside the 2 clients asked for;"
        f" delete {root}, or give another folder"
    )
    folders.write_folders(small.raw, tmp_path, 4, seed=1)
    _assert_same(root, _theirs(small.raw, 4, "iid", 1))


@pytest.mark.parametrize(("clients", "found"), [(0, "the number of clients is 0"), (-3, "the number of clients is -3")])
def test_number_below_one_is_refused(small: Paths, tmp_path: Path, clients: int, found: str) -> None:
    """No client, or fewer, is refused before anything is read."""
    with pytest.raises(UsageError, match=found):
        folders.write_folders(small.raw, tmp_path, clients)


def test_more_clients_than_the_scheme_can_serve_are_refused(small: Paths, tmp_path: Path) -> None:
    """Scheme `labels` refuses 11 clients, and a draw that leaves a client with nothing writes nothing."""
    with pytest.raises(UsageError, match="the number of clients is 11 and the scheme is labels"):
        folders.write_folders(small.raw, tmp_path, 11, "labels")
    with pytest.raises(UsageError, match="leaves client 0 with 0 training and 1 validation images"):
        folders.write_folders(small.raw, tmp_path, 600)
    assert not (tmp_path / "mnist_iid").exists()
