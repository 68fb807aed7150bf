"""What the page shows: the regions of `templates/`, rendered from a snapshot of the run (`services.server.view`).

Every text is escaped by the templates: names of clients and their reasons are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from services.report.chart import Chart, Line, draw
from services.wording import OVER, WORDS, ago, number, share, size, span

MOST_EVENTS = 100
"""Events that the page shows, the latest first."""


class Renderer:
    """Renders the page and its regions."""

    def __init__(self) -> None:
        self._jinja = jinja2.Environment(
            # charts are drawn as reports draw them
            loader=jinja2.ChoiceLoader(
                [jinja2.PackageLoader("services.server.page"), jinja2.PackageLoader("services.report")]
            ),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters |= {"number": number, "share": share, "span": span, "size": size, "ago": ago, "bar": bar}

    def page(self, run: Mapping[str, Any]) -> str:
        """Render the whole page."""
        regions = {name: Markup(html) for name, html in self.regions(run).items()}  # noqa: S704 - our own templates'
        return self._jinja.get_template("page.html").render(run=run, regions=regions)

    def regions(self, run: Mapping[str, Any]) -> dict[str, str]:
        """Render each region, by its name."""
        history = run["history"]
        rounds = max(run["rounds_planned"], len(history["round"]))
        facts = {
            "headline": {"words": WORDS.get(run["phase"], run["phase"]), "over": run["phase"] in OVER},
            "curves": {
                "charts": {column.title(): _chart(history, column, rounds) for column in ("accuracy", "loss")},
                "rows": [dict(zip(history, row, strict=True)) for row in zip(*history.values(), strict=True)],
            },
            "clients": {"clients": run["clients"] | run["gone"]},
            "events": {"events": run["events"][: -MOST_EVENTS - 1 : -1]},
            "draw": {
                "drawable": run["drawable"] is not None,
                "ready": run["drawable"],
                "classes": run["dataset"]["classes"],
            },
            "experiment": {"experiment": yaml.safe_dump(run["experiment"], sort_keys=False, allow_unicode=True)},
        }
        return {
            name: self._jinja.get_template(f"{name}.html").render(run=run, **values) for name, values in facts.items()
        }


def _chart(history: Mapping[str, Sequence[Any]], column: str, rounds: int) -> Chart | None:
    """Lay out the curves of one figure; None before the first round."""
    lines = [
        Line("clients' validation images", "validation", history[column]),
        Line("held-out test images", "test", history[f"test_{column}"]),
    ]
    told = "; ".join(f"{line.name} {number(line.values[-1])}" for line in lines if line.values)
    return draw(column.title(), f"{column.title()}: {told}", lines, rounds=rounds)


def bar(counts: Sequence[int], names: Sequence[str]) -> Markup:
    """Draw a bar whose parts are as wide as the numbers of images of each class."""
    told = ", ".join(f"{name}: {count:,}" for name, count in zip(names, counts, strict=True))
    whole, left, parts = max(1, sum(counts)), 0.0, []
    part = Markup('<rect class="c{}" x="{:.2f}" width="{:.2f}" height="8"/>')
    for position, count in enumerate(counts):
        width = 100 * count / whole
        parts.append(part.format(position % 10, left, width))
        left += width
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(told, Markup("").join(parts))
