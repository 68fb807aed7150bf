"""The picture of who holds what."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from services import distribution
from services.shards import Cut, Seat


def cut(clients: int, classes: int) -> Cut:
    """Make up a deal in which each client holds more than the one before."""
    seats = tuple(Seat(client + 1, 1, (client + 1,) * classes) for client in range(clients))
    return Cut("", seats)


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 256])
@pytest.mark.parametrize("clients", [1, 3, 128])
def test_any_deal_can_be_drawn(clients: int, classes: int) -> None:
    """Whatever the numbers of clients and classes, the result is a picture, the taller the more clients."""
    content = distribution.draw(cut(clients, classes), [f"class {number}" for number in range(classes)])
    picture = matplotlib.image.imread(io.BytesIO(content))
    assert picture.shape[0] == pytest.approx(100 * (1.6 + 0.3 * clients), abs=1)


def test_the_same_deal_is_the_same_picture() -> None:
    """The picture depends on the deal alone."""
    names = tuple("abc")
    assert distribution.draw(cut(3, 3), names) == distribution.draw(cut(3, 3), names)
    assert distribution.draw(cut(3, 3), names) != distribution.draw(cut(2, 3), names)


def test_each_class_has_a_colour_of_its_own() -> None:
    """Among few classes no two share a colour."""
    seats = (Seat(10, 1, (1,) * 10),)
    content = distribution.draw(Cut("", seats), tuple("0123456789"))
    picture = matplotlib.image.imread(io.BytesIO(content))
    row = picture[picture.shape[0] // 2, :, :3]
    saturated = row[np.ptp(row, axis=1) > 0.2]
    assert len(np.unique(saturated.round(1), axis=0)) >= 9
