"""Who holds what: the picture, and the table that another picture can be drawn from."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from services import distribution
from services.errors import DataError
from services.shards import Cut, Seat


def cut(clients: int, classes: int) -> Cut:
    """Make up a deal in which each client holds more than the one before."""
    seats = tuple(Seat(client + 1, 1, (client + 1,) * classes) for client in range(clients))
    return Cut("", seats)


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 256])
@pytest.mark.parametrize("clients", [1, 3, 128])
def test_any_deal_can_be_drawn(clients: int, classes: int) -> None:
    """Whatever the numbers of clients and classes, the result is a picture, the taller the more clients."""
    content = distribution.draw(cut(clients, classes).seats, [f"class {number}" for number in range(classes)])
    picture = matplotlib.image.imread(io.BytesIO(content))
    assert picture.shape[0] == pytest.approx(100 * (1.6 + 0.3 * clients), abs=1)


def test_the_same_deal_is_the_same_picture() -> None:
    """The picture depends on the deal alone."""
    names = tuple("abc")
    assert distribution.draw(cut(3, 3).seats, names) == distribution.draw(cut(3, 3).seats, names)
    assert distribution.draw(cut(3, 3).seats, names) != distribution.draw(cut(2, 3).seats, names)


def test_each_class_has_a_colour_of_its_own() -> None:
    """Among few classes no two share a colour."""
    seats = (Seat(10, 1, (1,) * 10),)
    content = distribution.draw(seats, tuple("0123456789"))
    picture = matplotlib.image.imread(io.BytesIO(content))
    row = picture[picture.shape[0] // 2, :, :3]
    saturated = row[np.ptp(row, axis=1) > 0.2]
    assert len(np.unique(saturated.round(1), axis=0)) >= 9


def test_deals_read_back_as_they_were(tmp_path: Path) -> None:
    """The table gives the very deals that were written, and the names of the classes, whatever they hold; no file is
    no deal.
    """
    path = tmp_path / "distribution.csv"
    assert distribution.load(path) == ({}, ())
    deals = {3: (Seat(10, 2, (4, 6)), Seat(5, 1, (0, 5)), Seat(8, 2, (8, 0))), 2: (Seat(12, 3, (6, 6)),) * 2}
    classes = ("train", 'a, "b"')
    path.write_text(distribution.dump(deals, classes))
    assert distribution.load(path) == (deals, classes)


@pytest.mark.parametrize(
    "content",
    [
        "seats,seat,train,valid,a\n2,0,5,1,5\n",
        "clients,seat,train,valid,a\n2,1,5,1,5\n",
        "clients,seat,train,valid,a\n2,0,5,1,-5\n",
        "clients,seat,train,valid,a\n2,0,5,1,many\n",
    ],
    ids=["head", "a seat missing", "below zero", "text"],
)
def test_a_damaged_table_is_refused(tmp_path: Path, content: str) -> None:
    """What is no deal is told in one line."""
    path = tmp_path / "distribution.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"distribution.csv can't be read \(it is damaged\)"):
        distribution.load(path)
