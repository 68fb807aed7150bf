"""The report: one HTML file that needs nothing else, neither network nor scripts.

Names, reasons and texts of files come from clients, and from whoever wrote the files: the template escapes all of them,
and a policy in the page forbids whatever is no picture or style of its own.
"""

from __future__ import annotations

import base64
import functools
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from services.report import chart, story
from services.report.chart import Chart, Line
from services.report.facts import Facts
from services.report.timeline import ABSENT, IDLE, STATES, TRAINED, Client, Timeline, coarser
from services.transport.refusals import one_line
from services.wording import count, number, share, size, span

FILE = "report.html"

MOST_ROWS = 2000
"""Rows of a table that is as long as the run; of a longer one, its two ends."""

MOST_TEXT = 300
"""Characters of a text that a client, or a file, may choose."""

MOST_CLASSES = 30
"""More classes than this are shown as a picture, not as a table."""

MOST_CELLS = 40_000
"""Cells of the timeline: more rounds than fit share a column."""

MOST_TITLED = 400
"""Drop-outs in the timeline that tell their reason under the pointer; it also stands in the table."""


@dataclass(frozen=True)
class Bar:
    """A part of a client's row in the timeline, in SVG."""

    style: str
    path: str
    title: str = ""


def render(facts: Facts, timeline: Timeline, pictures: Mapping[str, bytes]) -> str:
    """Write the page.

    Args:
        facts: what the run's files tell.
        timeline: the same by rounds.
        pictures: PNGs by their names, of which those that replace a table are used.
    """
    summary = facts.summary
    return (
        _templates()
        .get_template(FILE)
        .render(
            facts=facts,
            summary=summary,
            timeline=timeline,
            ending=story.ending(summary, facts.done),
            happenings=story.happenings(facts, timeline),
            figures=_figures(facts, timeline),
            curves=_curves(facts, timeline),
            privacy_curve=_privacy_curve(facts),
            field=_field(timeline),
            states=_states(timeline),
            moves=any(client.marks for client in timeline.clients),
            rounds=_ends(facts.rounds),
            events=_ends(facts.events),
            event_words=story.EVENTS,
            spending=_spending(facts),
            deal=_deal(facts),
            confusion=_confusion(facts),
            metrics=_metrics(facts),
            pictures=pictures,
            commands=_commands(facts),
            most_classes=MOST_CLASSES,
        )
    )


# -- words ------------------------------------------------------------------------------------------------------------


def told(text: object, limit: int = MOST_TEXT) -> str:
    """Make a stranger's text harmless to the layout: no control characters, no change of direction, not too long."""
    return one_line(text, limit)


def verbatim(text: str, limit: int = 20_000) -> str:
    """Do the same with a text of several lines, whose blanks count."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text[:limit])


def png(content: bytes) -> str:
    """Write a picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@functools.cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("services.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for words in (told, verbatim, share, number, count, size, span, png):
        made.filters[words.__name__] = words
    return made


# -- what the template shows ------------------------------------------------------------------------------------------


def _figures(facts: Facts, timeline: Timeline) -> dict[str, Any]:
    """Give the figures at the top, and those that others are told by."""
    summary = facts.summary
    took_part = sum(client.trained > 0 for client in timeline.clients)
    started = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", summary.run_id)
    images = None if facts.confusion is None else int(facts.confusion[0].sum())
    return {
        "took_part": took_part,
        "started": "{}-{}-{} {}:{}:{} UTC".format(*started.groups()) if started else None,
        "test_images": images,
        "wrong": None if facts.confusion is None else int(facts.confusion[0].sum() - facts.confusion[0].trace()),
        "sent": sum(each.bytes_sent for each in facts.rounds),
        "received": sum(each.bytes_received for each in facts.rounds),
        "best": next((each for each in facts.rounds if each.round == summary.model_round), None),
        "names": _names(facts),
    }


def _names(facts: Facts) -> list[str]:
    """Name the classes, as many as any table knows."""
    told_ = [list(facts.summary.classes), list(facts.deal_classes)]
    return max([*told_, [] if facts.confusion is None else list(facts.confusion[1])], key=len)


def _ends(rows: Sequence[Any]) -> tuple[Sequence[Any], int, Sequence[Any]]:
    """Give a long list's beginning, how many are left out, and its end."""
    if len(rows) <= MOST_ROWS:
        return rows, 0, ()
    half = MOST_ROWS // 2
    return rows[:half], len(rows) - 2 * half, rows[-half:]


def _curves(facts: Facts, timeline: Timeline) -> list[Chart]:
    rounds, best = facts.rounds, facts.summary.model_round
    if not rounds:
        return []
    kept = next((each for each in rounds if each.round == best), None)

    def draw(title: str, validation: str, test: str, digits: int) -> Chart | None:
        values = [getattr(each, test) for each in rounds]
        said = (
            f"{title} on the test images: {number(values[0], digits)} after the first round,"
            f" {number(values[-1], digits)} after the last of {len(rounds)}"
            + (f", {number(getattr(kept, test), digits)} after round {best}, whose model is kept." if kept else ".")
        )
        return chart.draw(
            title,
            said,
            [
                Line("clients’ validation images", "validation", [getattr(each, validation) for each in rounds]),  # noqa: RUF001 - typography
                Line("held-out test images", "test", values),
            ],
            best=None if kept is None else (kept.round, getattr(kept, test)),
            void=sorted(timeline.tries),
            resumed=timeline.resumed,
        )

    both = draw("Accuracy", "accuracy", "test_accuracy", 4), draw("Loss", "loss", "test_loss", 4)
    return [each for each in both if each is not None]


def _privacy_curve(facts: Facts) -> Chart | None:
    privacy = facts.summary.privacy
    if privacy is None or not facts.rounds:
        return None
    spent = [each.epsilon for each in facts.rounds]
    return chart.draw(
        "Epsilon spent",
        f"Epsilon spent after {len(spent)} rounds: {number(spent[-1], 2)} of {privacy.epsilon:g}.",
        [Line("spent so far", "test", spent)],
        level=privacy.epsilon,
    )


def _field(timeline: Timeline) -> dict[str, Any] | None:
    """Lay out the timeline: a row of ten units a client, a column a round, or several where there are many."""
    if not timeline.columns or not timeline.clients:
        return None
    step = -(-timeline.columns * len(timeline.clients) // MOST_CELLS)
    shown = timeline if step == 1 else coarser(timeline, step)
    columns, clients = shown.columns, shown.clients
    troubled = sum(span.state not in {TRAINED, IDLE, ABSENT} for client in clients for span in client.spans)
    marks = [(row, mark) for row, client in enumerate(clients) for mark in client.marks if mark.after <= columns]
    return {
        "columns": columns,
        "rows": len(clients),
        "step": step,
        "row_px": 24 if len(clients) <= 24 else 14,  # noqa: PLR2004 - what fits a screen
        "least_px": 14 if columns <= 60 else 8 if columns <= 150 else 5,  # noqa: PLR2004 - likewise
        "bars": [
            bar for row, client in enumerate(clients) for bar in _bars(client, row, titled=troubled <= MOST_TITLED)
        ],
        "marks": [
            Bar(
                "comes" if comes else "goes",
                "".join(f"M{mark.after} {row * 10 + 1}v8" for row, mark in marks if mark.comes is comes),
            )
            for comes in (True, False)
        ],
        "grid": "".join(f"M{x} 0V{len(clients) * 10}" for x in range(1, columns)) if columns <= 150 else "",  # noqa: PLR2004
        "ticks": [(at, (at - 1) * step + 1) for at in chart.ticks(columns, _tick_step(columns))],
        "tries": shown.tries,
        "dealt": [(after, detail) for after, detail in shown.dealt[1:] if after <= columns],
        "resumed": [after for after in shown.resumed if after <= columns],
    }


def _tick_step(columns: int) -> int:
    """Choose how many columns apart numbers stand, about twelve in all."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, columns) if columns / step <= 12)  # noqa: PLR2004


def _bars(client: Client, row: int, *, titled: bool) -> Iterator[Bar]:
    y = row * 10 + 5
    by_state: dict[str, str] = {}
    for held in client.spans:
        path = f"M{held.first - 1} {y}h{held.last - held.first + 1}"
        style = held.state if held.state in STATES else "error"
        if titled and style not in {TRAINED, IDLE, ABSENT}:
            yield Bar(style, path, f"{client.name}: {held.words}")
        elif style != ABSENT:
            by_state[style] = by_state.get(style, "") + path
    for style, path in by_state.items():
        yield Bar(style, path)


def _states(timeline: Timeline) -> list[tuple[str, str]]:
    """List the states that the timeline shows, in words."""
    there = {span.state if span.state in STATES else "error" for client in timeline.clients for span in client.spans}
    return [(state, words) for state, words in STATES.items() if state in there]


def _spending(facts: Facts) -> list[tuple[str, str, float]]:
    """Tell where the time went: name, style, seconds."""
    rounds = facts.rounds
    parts = [
        ("local training, the slowest client’s", "train", sum(each.train_s for each in rounds)),  # noqa: RUF001
        ("evaluation, the slowest client’s", "eval", sum(each.eval_s for each in rounds)),  # noqa: RUF001
        ("rest of the rounds: messages, averaging, waiting", "rest", sum(each.overhead_s for each in rounds)),
    ]
    parts.append(
        ("before, between and after rounds", "around", facts.summary.wall_s - sum(each.seconds for each in rounds))
    )
    return [(name, style, max(0.0, seconds)) for name, style, seconds in parts if math.isfinite(seconds)]


def _deal(facts: Facts) -> dict[str, Any] | None:
    """Give the deal of the last round, each cell with its share of the largest."""
    seats = facts.deals.get(facts.rounds[-1].size, ()) if facts.rounds else ()
    if not seats:
        return None
    holders = {
        row.seat: row.client
        for row in facts.clients
        if row.round == facts.rounds[-1].round and row.size == len(seats) and row.seat is not None
    }
    most = max(1, *(label for seat in seats for label in seat.labels))
    return {
        "classes": facts.deal_classes,
        "seats": [(holders.get(place), seat) for place, seat in enumerate(seats)],
        "most": most,
        "total": sum(seat.train for seat in seats),
    }


def _confusion(facts: Facts) -> dict[str, Any] | None:
    """Give the matrix, and the mistakes that are made most."""
    if facts.confusion is None:
        return None
    counts, names = facts.confusion
    pairs = [
        (int(counts[row, column]), names[row], names[column])
        for row in range(len(names))
        for column in range(len(names))
        if row != column and counts[row, column]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return {
        "names": names,
        "rows": counts.tolist(),
        "most": max([1, *(pair[0] for pair in pairs)]),
        "pairs": pairs[:5],
    }


def _metrics(facts: Facts) -> list[tuple[str, float | None, float]]:
    """List each metric of all clients together: its value in the round whose model is kept, and in the last."""
    found: dict[str, dict[int, float]] = {}
    for measure in facts.measures:
        if measure.client == "all":
            found.setdefault(measure.metric, {})[measure.round] = measure.value
    kept = facts.summary.model_round
    rows = [
        (name, values.get(kept) if kept is not None else None, values[max(values)]) for name, values in found.items()
    ]
    return rows[:MOST_ROWS]


def _commands(facts: Facts) -> dict[str, str]:
    """Write the commands that run the experiment again."""
    summary = facts.summary
    path = shlex.quote(f"results/{told(summary.run_id)}/experiment.yml")
    clients = summary.clients_wanted or summary.clients
    before = {
        "own": "DATA=<folder of the data> ",
        "fashion-mnist": "DATA=<folder of Fashion-MNIST> ",
    }.get(summary.dataset, "")
    return {
        "compose": f"{before}CLIENTS={clients} EXPERIMENT={path} docker compose up",
        "demo": f"{before}fed demo --clients {clients} --experiment {path}",
        "report": f"fed report {shlex.quote(told(summary.run_id))}",
    }
