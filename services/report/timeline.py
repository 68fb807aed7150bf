"""Who did what in which round, who came and went between them, and what that was in words."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.report.facts import Facts
from services.tables import ClientRound, Event

TRAINED, IDLE, ABSENT = "trained", "idle", "absent"

STATES: Mapping[str, str] = {
    TRAINED: "trained",
    IDLE: "idle, not drawn",
    "late": "late",
    "gone": "gone",
    "error": "reported an error",
    "refused": "its update was refused",
    ABSENT: "not there",
}
"""States of a client in a round, in words; the last is that of a client without a row."""

MOST_SPANS = 25
"""Changes of a client's state that are told in words."""

COMINGS = ("joined", "returned")
GOINGS = ("left", "lost", "forgotten", "refused", "standby", "spent")
"""Events of one client that are marked in the timeline."""


@dataclass(frozen=True)
class Span:
    """Rounds in a row in which a client was in one state, for one reason."""

    first: int
    last: int
    state: str
    reason: str

    @property
    def rounds(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def words(self) -> str:
        """The span in words."""
        told = f"{STATES.get(self.state, self.state)} {self.rounds}"
        return f"{told} ({self.reason})" if self.reason and self.state not in {TRAINED, IDLE} else told


@dataclass(frozen=True)
class Mark:
    """A client that came or went between two rounds.

    Attributes:
        after: number of the round before.
        comes: whether it came.
        events: what happened, in order.
    """

    after: int
    comes: bool
    events: tuple[str, ...]


@dataclass(frozen=True)
class Client:
    """What one client did in a run.

    Attributes:
        name: of the client.
        spans: its states, from the first round to the last.
        marks: when it came and went.
        trained, dropped, idle: rounds in which it did.
        again: rounds that did not count, out of which it dropped.
        images: training images that it held last; None where it was dealt none, or that is not known.
        share: of all that were dealt then.
        train_s: mean seconds of its local training.
        sent, received: bytes to it, and from it.
        epsilon: privacy spent on its data.
        accuracy: on its validation images, last.
    """

    name: str
    spans: tuple[Span, ...]
    marks: tuple[Mark, ...]
    trained: int
    dropped: int
    idle: int
    again: int
    images: int | None
    share: float | None
    train_s: float | None
    sent: int
    received: int
    epsilon: float | None
    accuracy: float | None

    @property
    def words(self) -> list[str]:
        """Its states in words, at most `MOST_SPANS` of them."""
        told = [span.words for span in self.spans[:MOST_SPANS]]
        more = len(self.spans) - len(told)
        return [*told, f"and {more} more changes: see clients.csv"] if more else told


@dataclass(frozen=True)
class Attempt:
    """A round that did not count.

    Attributes:
        round: its number.
        detail: why it did not.
        dropped: who dropped out of it, and why.
    """

    round: int
    detail: str
    dropped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Timeline:
    """A run, by rounds.

    Attributes:
        columns: number of the last round that was tried.
        clients: in the order of their names.
        void: rounds that did not count, in order.
        unevaluated: (round, client, reason) of clients that trained, and dropped out before they had evaluated.
        resumed: numbers of the rounds after which the server went on.
        dealt: (round, detail) after which the data set was dealt, the first time too.
    """

    columns: int
    clients: tuple[Client, ...]
    void: tuple[Attempt, ...]
    unevaluated: tuple[tuple[int, str, str], ...]
    resumed: tuple[int, ...]
    dealt: tuple[tuple[int, str], ...]

    @property
    def tries(self) -> dict[int, int]:
        """How often a round did not count, by its number."""
        return dict(collections.Counter(attempt.round for attempt in self.void))


def coarser(timeline: Timeline, step: int) -> Timeline:
    """Put several rounds into a column, each client in the worst state that it was in; reasons are left out.

    Args:
        timeline: of single rounds.
        step: rounds in a column.
    """

    def client(each: Client) -> Client:
        states = [ABSENT] * -(-timeline.columns // step)
        for span in each.spans:
            for column in range((span.first - 1) // step, (span.last - 1) // step + 1):
                states[column] = max(states[column], span.state, key=_badness)
        runs = [(state, len(list(group))) for state, group in itertools.groupby(states)]
        ends = list(itertools.accumulate(length for _, length in runs))
        spans = [Span(end - length + 1, end, state, "") for end, (state, length) in zip(ends, runs, strict=True)]
        marks = {(mark.after // step, mark.comes): Mark(mark.after // step, mark.comes, ()) for mark in each.marks}
        return dataclasses.replace(each, spans=tuple(spans), marks=tuple(marks.values()))

    return dataclasses.replace(
        timeline,
        columns=-(-timeline.columns // step),
        clients=tuple(client(each) for each in timeline.clients),
        void=tuple(dataclasses.replace(each, round=(each.round - 1) // step + 1) for each in timeline.void),
        resumed=tuple(dict.fromkeys(after // step for after in timeline.resumed)),
        dealt=tuple({after // step: (after // step, detail) for after, detail in timeline.dealt}.values()),
    )


def _badness(state: str) -> int:
    return [ABSENT, IDLE, TRAINED].index(state) if state in {ABSENT, IDLE, TRAINED} else len(STATES)


def tell(facts: Facts) -> Timeline:
    """Put together what tables and events say."""
    rows: dict[str, dict[int, ClientRound]] = {}
    for row in facts.clients:
        rows.setdefault(row.client, {})[row.round] = row
    void, unevaluated = _attempts(facts.events, rows)
    last = facts.done
    void = [attempt for attempt in void if attempt.round <= last + 1]
    events: dict[str, list[Event]] = {}
    for event in facts.events:
        if event.client:
            events.setdefault(event.client, []).append(event)
    names = sorted({*rows, *events}, key=_natural)
    again = collections.Counter(name for attempt in void for name in {name for name, _ in attempt.dropped})
    return Timeline(
        columns=max([last, *(attempt.round for attempt in void)]),
        clients=tuple(
            _client(name, rows.get(name, {}), events.get(name, []), last, again[name], facts) for name in names
        ),
        void=tuple(void),
        unevaluated=tuple(unevaluated),
        resumed=tuple(event.round for event in facts.events if event.event == "resumed"),
        dealt=tuple((event.round, event.detail) for event in facts.events if event.event == "dealt"),
    )


def _natural(name: str) -> tuple[str, int, str]:
    """Order names by what they begin with, then by the number at their end."""
    stem = name.rstrip("0123456789")
    tail = name[len(stem) :]
    return stem, int(tail) if 0 < len(tail) <= 18 else -1, name  # noqa: PLR2004 - as many digits as an int64 has


def _attempts(
    events: Iterable[Event], rows: Mapping[str, Mapping[int, ClientRound]]
) -> tuple[list[Attempt], list[tuple[int, str, str]]]:
    """Tell the drop-outs of rounds that did not count from those of rounds that do.

    A round that a server died in is run again without a `void`; what was told of it before then is of no round.
    """
    void: list[Attempt] = []
    counted: list[tuple[int, str, str]] = []
    open_: list[tuple[int, str, str]] = []
    for event in events:
        if event.event == "dropped":
            if open_ and open_[-1][0] != event.round:
                counted += open_
                open_ = []
            open_.append((event.round, event.client, event.detail))
        elif event.event == "void":
            counted += [each for each in open_ if each[0] != event.round]
            dropped = tuple((name, reason) for number, name, reason in open_ if number == event.round)
            void.append(Attempt(event.round, event.detail, dropped))
            open_ = []
        elif event.event == "resumed":
            counted += [each for each in open_ if each[0] <= event.round]
            open_ = []
    counted += open_
    late = [
        (number, name, reason)
        for number, name, reason in counted
        if number in rows.get(name, {}) and rows[name][number].state == TRAINED
    ]
    return void, late


def _client(
    name: str, rows: Mapping[int, ClientRound], events: Sequence[Event], last: int, again: int, facts: Facts
) -> Client:
    states = collections.Counter(row.state for row in rows.values())
    ordered = [rows[number] for number in sorted(rows)]
    times = [row.train_s for row in ordered if row.train_s is not None]
    images, share = _held(ordered, facts)
    return Client(
        name=name,
        spans=tuple(_spans(rows, last)),
        marks=tuple(_marks(events)),
        trained=states[TRAINED],
        dropped=len(rows) - states[TRAINED] - states[IDLE],
        idle=states[IDLE],
        again=again,
        images=images,
        share=share,
        train_s=sum(times) / len(times) if times else None,
        sent=sum(row.bytes_sent for row in ordered),
        received=sum(row.bytes_received for row in ordered),
        epsilon=_last(row.epsilon for row in ordered),
        accuracy=_last(row.accuracy for row in ordered),
    )


def _held(rows: Sequence[ClientRound], facts: Facts) -> tuple[int | None, float | None]:
    """Tell how many training images a client held last, and their share of all."""
    if not rows or rows[-1].size is None or rows[-1].seat is None:
        return None, None
    seats = facts.deals.get(rows[-1].size, ())
    if not 0 <= rows[-1].seat < len(seats):
        return None, None
    images = seats[rows[-1].seat].train
    return images, images / max(1, sum(seat.train for seat in seats))


def _last(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None and math.isfinite(value)]
    return found[-1] if found else None


def _spans(rows: Mapping[int, ClientRound], last: int) -> Iterator[Span]:
    """Yield a client's states, neighbours of one state and reason as one."""
    begun: Span | None = None
    for number in range(1, last + 1):
        row = rows.get(number)
        state, reason = (ABSENT, "") if row is None else (row.state, row.reason)
        if begun is not None and (begun.state, begun.reason) == (state, reason):
            begun = Span(begun.first, number, state, reason)
            continue
        if begun is not None:
            yield begun
        begun = Span(number, number, state, reason)
    if begun is not None:
        yield begun


def _marks(events: Iterable[Event]) -> Iterator[Mark]:
    """Yield when a client came and went; being there from the start is no news."""
    found: dict[tuple[int, bool], list[str]] = {}
    for number, event in enumerate(events):
        if event.event in {*COMINGS, *GOINGS} and (number or event.round or event.event != "joined"):
            told = f"{event.event}: {event.detail}" if event.detail else event.event
            found.setdefault((event.round, event.event in COMINGS), []).append(told)
    for (after, comes), told_ in sorted(found.items()):
        yield Mark(after, comes, tuple(told_))
