"""Random numbers that nobody can foretell, from the operating system and no seed, for differential privacy.

Noise that can be foretold hides nothing, and a batch that can be foretold is no secret that privacy could rest on; so
neither comes from a plan's seed, which the server and all clients know.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray


def _uniform(count: int) -> NDArray[np.float64]:
    """Draw from ]0, 1[ with 53 bits each."""
    words = np.frombuffer(os.urandom(8 * count), np.uint64)
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(shape: tuple[int, ...], deviation: float) -> NDArray[np.float32]:
    """Draw Gaussian noise of mean 0 (Box and Muller 1958).

    Args:
        shape: of the array.
        deviation: standard deviation, at least 0.
    """
    count = int(np.prod(shape))
    pairs = -(-count // 2)
    radius = np.sqrt(-2.0 * np.log(_uniform(pairs)))
    angle = 2.0 * np.pi * _uniform(pairs)
    drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return (deviation * drawn).astype(np.float32).reshape(shape)


def chosen(count: int, rate: float) -> NDArray[np.intp]:
    """Choose each of `count` things with chance `rate`, independently of the others; gives their numbers in order."""
    return np.flatnonzero(_uniform(count) < rate)
