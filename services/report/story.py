"""How a run went, in sentences: what a person wants to know first."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator

from services.report.facts import Facts, Summary
from services.report.timeline import ABSENT, IDLE, STATES, TRAINED, Client, Span, Timeline

MOST_NAMED = 4
"""Clients, rounds or reasons of one kind of trouble that are told one by one; of more, how many they are."""

EVENTS = {
    "joined": "joined",
    "returned": "came back",
    "left": "said good-bye",
    "lost": "was lost",
    "forgotten": "was given up",
    "refused": "can't take part",
    "standby": "stands by",
    "dealt": "data set dealt",
    "dropped": "dropped out of the round",
    "void": "round did not count",
    "unagreed": "no agreement",
    "spent": "privacy budget spent",
    "resumed": "server went on",
}
"""Events in words."""


def ending(summary: Summary, done: int) -> str:
    """Tell how a run ended, and why.

    Args:
        summary: of the run.
        done: rounds that count.
    """
    of = f"{done} of {_count(summary.rounds_planned, 'round')}"
    why = f": {summary.reason}" if summary.reason else ""
    if summary.status == "completed":
        if done == summary.rounds_planned and not why:
            return "Its one round is done." if done == 1 else f"All {done:,} rounds are done."
        return _sentence(f"It ended as planned after {of}{why}")
    if summary.status == "stopped":
        return _sentence(f"It was stopped after {of}{why}") + " Started again with the same plan, the run goes on."
    if summary.status == "failed":
        return _sentence(f"It failed after {of}{why}")
    return f"{of} are done. The server was at work on it when this was written, or has died since."


def happenings(facts: Facts, timeline: Timeline) -> list[str]:
    """Tell what went otherwise than planned, a sentence each; one sentence of rest where nothing did."""
    told = [*_refused(facts), *_dropped(timeline), *_void(facts, timeline), *_server(timeline), *_dealt(timeline)]
    if told or not facts.done:
        return [_sentence(each) for each in told]
    return ["No client dropped out of a round, and each round counted at the first try."]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "…", "!")) else f"{text}."


def _dropped(timeline: Timeline) -> Iterator[str]:
    troubled = [client for client in timeline.clients if client.dropped]
    if len(troubled) <= MOST_NAMED:
        for client in troubled:
            spans = _troubles(client)
            whys = [f"{span.rounds} ({_why(span)})" for span in spans[:MOST_NAMED]]
            more = ["…"] if len(spans) > MOST_NAMED else []
            yield f"{client.name} dropped out of {_count(client.dropped, 'round')}: {', '.join(whys + more)}"
    else:
        worst = sorted(troubled, key=lambda client: -client.dropped)[:MOST_NAMED]
        kinds = collections.Counter[str]()
        for span in (span for client in troubled for span in _troubles(client)):
            kinds[STATES.get(span.state, span.state)] += span.last - span.first + 1
        yield (
            f"{len(troubled)} clients dropped out of rounds, {sum(client.dropped for client in troubled):,} times in"
            f" all ({', '.join(f'{kind} {times:,}' for kind, times in kinds.most_common())}); most often"
            f" {', '.join(f'{client.name} ({client.dropped})' for client in worst)}"
        )
    for number, name, reason in timeline.unevaluated[:MOST_NAMED]:
        yield f"{name} trained in round {number}, and was lost before it had evaluated ({reason})"
    if (others := len(timeline.unevaluated) - MOST_NAMED) > 0:
        yield f"So were clients in {_count(others, 'more case')}"


def _troubles(client: Client) -> list[Span]:
    return [span for span in client.spans if span.state not in {TRAINED, IDLE, ABSENT}]


def _why(span: Span) -> str:
    return ", ".join(filter(None, [STATES.get(span.state, span.state), span.reason]))


def _void(facts: Facts, timeline: Timeline) -> Iterator[str]:
    by_round = [(number, list(group)) for number, group in itertools.groupby(timeline.void, lambda each: each.round)]
    for number, attempts in by_round[:MOST_NAMED]:
        times = f", {len(attempts)} times" if len(attempts) > 1 else ""
        what = f"had to be run again{times}" if number <= facts.done else f"did not count{times}"
        yield f"Round {number} {what} ({attempts[-1].detail})"
    if more := by_round[MOST_NAMED:]:
        yield f"So had {_count(len(more), 'more round')}"


def _server(timeline: Timeline) -> Iterator[str]:
    if timeline.resumed:
        rounds = list(collections.Counter(timeline.resumed).items())
        after = ", ".join(f"{number}{f' ({often} times)' * (often > 1)}" for number, often in rounds[:MOST_NAMED])
        more = " …" if len(rounds) > MOST_NAMED else ""
        times = _count(len(timeline.resumed), "time")
        yield f"The server ended and was started again {times}: after round {after}{more}"


def _dealt(timeline: Timeline) -> Iterator[str]:
    if anew := timeline.dealt[1:]:
        told = ", ".join(f"to {detail} after round {number}" for number, detail in anew[:MOST_NAMED])
        yield f"The data set was dealt anew: {told}{' …' if len(anew) > MOST_NAMED else ''}"


def _refused(facts: Facts) -> Iterator[str]:
    words = {"refused": "could not take part", "standby": "stood by", "spent": "left the rounds"}
    found = [event for event in facts.events if event.event in words]
    for event in found[:MOST_NAMED]:
        first = event.round + (event.event != "spent")
        yield f"{event.client} {words[event.event]} from round {first} on: {event.detail}"
    if more := found[MOST_NAMED:]:
        yield f"{len(more)} more times a client could take no part: see the events"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
