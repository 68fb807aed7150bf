"""Who holds what, as a picture and as a table: for each client, how many training images of each class."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.shards import Seat
from services.tables import damaged, lines

FILE, TABLE = "distribution.png", "distribution.csv"

MOST_NAMED = 20
"""More classes than this are told apart by a colour bar; a legend of them would fill the picture."""


def draw(seats: Sequence[Seat], classes: Sequence[str]) -> bytes:
    """Draw a bar for each client, its length the number of training images, a part of it for each class.

    Args:
        seats: what each client holds.
        classes: their names.

    Returns:
        a PNG.
    """
    # takes half a second, and `init` mostly finds its picture drawn
    from matplotlib import colormaps  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import Normalize  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    few = len(classes) <= MOST_NAMED
    scale = Normalize(0, max(1, len(classes) - 1))
    # neighbours differ where there are few classes; where there are many, their order is what can be seen
    palette = "tab10" if len(classes) <= 10 else "tab20" if few else "viridis"  # noqa: PLR2004 - colours of each
    colours = [colormaps[palette](number if few else scale(number)) for number in range(len(classes))]

    figure = Figure(figsize=(9, 1.6 + 0.3 * len(seats)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    clients = range(len(seats))
    left = [0] * len(seats)
    for number, name in enumerate(classes):
        widths = [seat.labels[number] for seat in seats]
        axes.barh(clients, widths, left=left, color=colours[number], label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="training images", ylabel="client")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    if few:
        figure.legend(loc="outside right upper", title="class", fontsize="small")
    else:
        figure.colorbar(ScalarMappable(scale, palette), ax=axes, label="class")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


_HEAD = ("clients", "seat", "train", "valid")


def dump(deals: Mapping[int, Sequence[Seat]], classes: Sequence[str]) -> str:
    """Write deals as CSV: a row a number of clients and seat, with how many images it trains on of each class.

    Args:
        deals: by number of clients, what each of them holds.
        classes: their names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_HEAD, *classes])
    for size, seats in deals.items():
        writer.writerows([size, number, seat.train, seat.valid, *seat.labels] for number, seat in enumerate(seats))
    return text.getvalue()


def load(path: Path) -> tuple[dict[int, tuple[Seat, ...]], tuple[str, ...]]:
    """Read what `dump` wrote: the deals by number of clients, and the names of the classes; none where there is none.

    Raises:
        DataError: the file can't be read, or is damaged.
    """
    head, *rows = lines(path) or [[*_HEAD]]
    deals: dict[int, list[Seat]] = {}
    try:
        for row in rows:
            size, number, train, valid, *labels = map(int, row)
            seats = deals.setdefault(size, [])
            if number != len(seats) or min(train, valid, *labels) < 0:
                raise damaged(path)
            seats.append(Seat(train, valid, tuple(labels)))
    except ValueError:
        raise damaged(path) from None
    if tuple(head[: len(_HEAD)]) != _HEAD:
        raise damaged(path)
    return {size: tuple(seats) for size, seats in deals.items()}, tuple(head[len(_HEAD) :])
