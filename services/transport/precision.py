"""Weights and updates that travel as float16, half as many bytes, and are of the model's own type at either end.

The messages stay declearn's, whose arrays say what type they are of; auxiliary variables, states and figures are left
alone. An array that float16 can't hold goes as it is, so that nothing is clipped: one with a value above 65,504 or that
is not finite, or of values so small that too much of them would be rounded away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from declearn.model.api import Vector
from numpy.typing import NDArray

FLOAT16 = "float16"
"""Name of this in a plan, and in the message by which a client is told."""

LARGEST_ERROR = 1e-3
"""Norm of what an array may lose, as a share of its own norm. Rounding to the 11 digits of float16 costs half of that
at most; values below 6.1e-5 have fewer digits, and cost more."""

LARGEST = float(np.finfo(np.float16).max)

V = TypeVar("V", bound=Vector[Any])


def narrowed(vector: V) -> V:
    """Give a vector whose arrays are of float16, but for those that it can't hold."""
    return type(vector).unpack({name: _narrowed(array) for name, array in vector.pack().items()})


def widened(vector: V, types: Mapping[str, np.dtype[Any]]) -> V:
    """Give a vector whose arrays of float16 are of the types named; all others, and strange ones, stay as they are."""
    halves = {name for name, value in vector.coefs.items() if name in types and np.asarray(value).dtype == np.float16}
    if not halves:
        return vector
    arrays = vector.pack()
    return type(vector).unpack(
        {name: array.astype(types[name]) if name in halves else array for name, array in arrays.items()}
    )


def types_of(vector: Vector[Any]) -> dict[str, np.dtype[Any]]:
    """Tell of which type each array of a vector is."""
    return {name: np.asarray(value).dtype for name, value in vector.coefs.items()}


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype not in (np.float32, np.float64):
        return array
    largest = np.abs(array).max(initial=0)
    if not largest <= LARGEST:  # as it is not where one of them is no number
        return array
    half = array.astype(np.float16)
    if largest == 0:
        return half
    # squares that are too small for any number are zero on both sides, which is no less
    return half if _square(array - half) < LARGEST_ERROR**2 * _square(array) else array


def _square(array: NDArray[Any]) -> float:
    """Give the square of an array's norm."""
    flat = array.ravel()
    return float(np.dot(flat, flat))
