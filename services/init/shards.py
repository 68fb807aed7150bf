"""Deal the training images: for every size of federation, who holds which.

The cut is declearn's own (`declearn.dataset.utils.split_multi_classif_dataset`), made on indices in place of images, so
the same size, scheme and seed give the images that declearn's `prepare_data.py` gives. declearn is imported only when
something must be cut: that takes seconds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError, UsageError
from services.experiment import Scheme
from services.paths import writing
from services.shards import Cut, Seat, index_file, load_indices
from services.terminal.progress import counted

Indices = NDArray[np.uint32]
Deal = Sequence[tuple[Indices, Indices]]


@dataclass(frozen=True)
class Recipe:
    """How images are dealt.

    Attributes:
        scheme: name of declearn's scheme, or `shards`.
        seed: of the random draws.
        valid_fraction: share of each seat's images kept for validation, in ]0, 1[.
        alpha: concentration of the Dirichlet distribution; of no effect with other schemes.
        classes_per_client: pieces for each seat with scheme `shards`; of no effect with others.
    """

    scheme: Scheme
    seed: int | None
    valid_fraction: float = 0.2
    alpha: float = 0.5
    classes_per_client: int = 2


def check_size(size: int, scheme: Scheme, classes: int, *, key: str = "CLIENTS") -> None:
    """Refuse a size that `scheme` can't deal to, where there are so many `classes`.

    Raises:
        UsageError: `labels` gives each client classes of its own.
    """
    if scheme == "labels" and size > classes:
        raise UsageError(
            f"{key} is {size} and the scheme is labels",
            f"at most {classes} clients, one for each class of images",
            f"lower {key}, or choose another scheme",
        )


def sizes(largest: int, scheme: Scheme, classes: int) -> range:
    """List the sizes from 1 to `largest` that `scheme` can deal so many `classes` to."""
    return range(1, (min(largest, classes) if scheme == "labels" else largest) + 1)


def deal(labels: NDArray[np.uint8], size: int, recipe: Recipe) -> Deal:
    """Deal the images with these `labels` to `size` seats.

    Args:
        labels: (n,), the class of each image.
        size: number of seats.
        recipe: how.

    Returns:
        for each seat its training and its validation indices, in the order in which declearn deals them.
    """
    if recipe.scheme == "shards":
        return _deal_pieces(labels, size, recipe)
    from declearn.dataset.utils import split_multi_classif_dataset  # noqa: PLC0415 - takes seconds, often not needed

    options: dict[str, Any] = {"alpha": recipe.alpha} if recipe.scheme == "dirichlet" else {}
    split = split_multi_classif_dataset(
        (np.arange(len(labels), dtype=np.uint32), labels),
        n_shards=size,
        scheme=recipe.scheme,
        p_valid=recipe.valid_fraction,
        seed=recipe.seed,
        **options,
    )
    return [(train, valid) for (train, _), (valid, _) in split]


def _deal_pieces(labels: NDArray[np.uint8], size: int, recipe: Recipe) -> Deal:
    """Sort the images by label, cut them into equal pieces, and deal `classes_per_client` of these to each seat.

    McMahan et al. 2017, section 3, with 100 clients and two pieces each; a piece may span the end of one class and the
    beginning of the next. Where images can't be cut evenly, the first pieces hold one more.
    """
    rng = np.random.default_rng(recipe.seed)
    pieces = np.array_split(np.argsort(labels, kind="stable").astype(np.uint32), size * recipe.classes_per_client)
    seats = []
    for chosen in rng.permutation(len(pieces)).reshape(size, recipe.classes_per_client):
        held = rng.permutation(np.concatenate([pieces[number] for number in chosen]))
        valid = math.ceil(len(held) * recipe.valid_fraction)
        seats.append((held[valid:], held[:valid]))
    return seats


def describe(labels: NDArray[np.uint8], seats: Deal, classes: int) -> Cut:
    """Count what each seat was dealt, of so many `classes`."""
    return Cut(
        digest(seats),
        tuple(
            Seat(
                len(train),
                len(valid),
                tuple(int(count) for count in np.bincount(labels[train], minlength=classes)),
            )
            for train, valid in seats
        ),
    )


def check_usable(size: int, cut: Cut, recipe: Recipe, *, key: str = "CLIENTS") -> None:
    """Refuse a deal that leaves a client without images.

    Raises:
        UsageError: names the first such client; its seed is not redrawn, or the cut would no longer be declearn's.
    """
    for number, seat in enumerate(cut.seats):
        if not (seat.train and seat.valid):
            raise UsageError(
                f"{key} is {size}, and scheme {recipe.scheme} with seed {recipe.seed} leaves client {number}"
                f" with {seat.train} training and {seat.valid} validation images",
                "at least one of each for every client",
                f"lower {key}, or change the scheme, alpha or the seed",
            )


def check_batch(size: int, cut: Cut, batch_size: int, *, key: str = "CLIENTS") -> None:
    """Refuse a deal in which a client has fewer training images than a batch holds.

    Larger federations, to which the data set may be dealt anew later, are not looked at: a client that then holds fewer
    trains on all of them in one short batch.

    Raises:
        UsageError: names the first client that has fewest.
    """
    number, seat = min(enumerate(cut.seats), key=lambda pair: pair[1].train)
    if seat.train < batch_size:
        raise UsageError(
            f"train.batch_size is {batch_size}, and client {number} of {size} has {seat.train} training images",
            f"at most {seat.train}",
            f"lower train.batch_size or {key}, or deal otherwise (data.scheme, data.alpha, seed)",
        )


def digest(seats: Deal) -> str:
    """Give the SHA-256 over all indices, seat by seat, training before validation, as little-endian uint32."""
    sha256 = hashlib.sha256()
    for seat in seats:
        for indices in seat:
            sha256.update(np.asarray(indices, dtype="<u4").tobytes())
    return sha256.hexdigest()


def is_kept(folder: Path, size: int, cut: Cut, labels: NDArray[np.uint8], classes: int) -> bool:
    """Tell whether the index sets for `size` in `folder` are whole and just what `cut` says of them."""
    try:
        seats = [load_indices(folder, size, seat) for seat in range(size)]
    except DataError:
        return False
    return digest(seats) == cut.sha256 and describe(labels, seats, classes) == cut


def write(folder: Path, dealt: Mapping[int, Deal]) -> None:
    """Write index sets into `folder`, each file whole or not at all.

    Args:
        folder: `data/shards`.
        dealt: what the seats of each size were dealt.

    Raises:
        StorageError: the folder can't be written.
    """
    for size in counted(dealt, "writing index sets, for each number of clients"):
        for seat, (train, valid) in enumerate(dealt[size]):
            with writing(index_file(folder, size, seat)) as file:
                np.savez(file, train=train, valid=valid)
