"""Training data as folders, one a client: what declearn's `prepare_data.py` writes, for runs on a site's own data."""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import asdict
from pathlib import Path

import numpy as np

from services.errors import ConflictError, UsageError
from services.experiment import Scheme
from services.init import dataset, shards
from services.init.locking import exclusive
from services.paths import MANIFEST, write_atomic, writing

logger = logging.getLogger("fed.init")

# Pixels as declearn's `load_mnist` scales them: divided in double precision, then rounded to single.
SCALED = (np.arange(256) / 255).astype(np.float32)


def write_folders(raw: Path, folder: Path, clients: int, scheme: Scheme = "iid", seed: int | None = None) -> int:
    """Write `<folder>/mnist_<scheme>/client_<i>/{train,valid}_{data,target}.npy`.

    The arrays are those of declearn's `prepare_data.py` for the same number, scheme and seed: images (n, 28, 28),
    float32 in [0, 1], a fifth of them for validation; labels (n,), uint8. A `manifest.json` beside the clients states
    the seed and what each client holds; it is written last, so that only a whole set of folders has one.

    Args:
        raw: folder of the four IDX files.
        folder: where to write.
        clients: number of clients, at least 1.
        scheme: how images are split.
        seed: of the split; None draws one.

    Returns:
        the seed.

    Raises:
        UsageError: the scheme can't deal to that many clients.
        ConflictError: the folder holds more clients than asked for, of another split.
        DataError: a file of the data set is missing, truncated or altered.
        StorageError: the folder can't be written.
    """
    if clients < 1:
        raise UsageError(f"the number of clients is {clients}", "at least 1", "give the number of clients to split for")
    shards.check_size(clients, scheme, len(dataset.MNIST.classes), key="the number of clients")
    root = folder / f"mnist_{scheme}"
    _check_left_over(root, clients)
    recipe = shards.Recipe(scheme, secrets.randbelow(2**32) if seed is None else seed)
    images = dataset.load_file(raw, dataset.MNIST.train_images)
    labels = dataset.load_file(raw, dataset.MNIST.train_labels)
    dealt = shards.deal(labels, clients, recipe)
    cut = shards.describe(labels, dealt, len(dataset.MNIST.classes))
    shards.check_usable(clients, cut, recipe, key="the number of clients")
    with exclusive(root):
        (root / MANIFEST).unlink(missing_ok=True)
        for number, (train, valid) in enumerate(dealt):
            site = root / f"client_{number}"
            for part, indices in (("train", train), ("valid", valid)):
                with writing(site / f"{part}_data.npy") as file:
                    np.save(file, SCALED[images[indices]], allow_pickle=False)
                with writing(site / f"{part}_target.npy") as file:
                    np.save(file, labels[indices], allow_pickle=False)
            logger.info("%s: %s training and %s validation images", site, f"{len(train):,}", f"{len(valid):,}")
        content = asdict(recipe) | {"dataset": dataset.MNIST.name, "data_sha256": dataset.MNIST.sha256} | asdict(cut)
        write_atomic(root / MANIFEST, json.dumps(content, indent=1) + "\n")
    assert recipe.seed is not None  # noqa: S101 - drawn above
    return recipe.seed


def _check_left_over(root: Path, clients: int) -> None:
    wanted = {f"client_{number}" for number in range(clients)}
    left = sorted(path.name for path in root.glob("client_*") if path.name not in wanted)
    if left:
        raise ConflictError(
            f"{root} holds {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else "") + " of another split",
            f"nothing beside the {clients} clients asked for",
            f"delete {root}, or give another folder",
        )
