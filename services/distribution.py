"""A picture of who holds what: for each client, how many training images of each class."""

from __future__ import annotations

import io
from collections.abc import Sequence

from services.shards import Cut

FILE = "distribution.png"

MOST_NAMED = 20
"""More classes than this are told apart by a colour bar; a legend of them would fill the picture."""


def draw(cut: Cut, classes: Sequence[str]) -> bytes:
    """Draw a bar for each client, its length the number of training images, a part of it for each class.

    Args:
        cut: what each client holds.
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

    figure = Figure(figsize=(9, 1.6 + 0.3 * len(cut.seats)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    clients = range(len(cut.seats))
    left = [0] * len(cut.seats)
    for number, name in enumerate(classes):
        widths = [seat.labels[number] for seat in cut.seats]
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
