"""Messages we add to declearn's: a server deals a client its part of the data.

They are only ever sent to a client whose handshake headers announced that it knows them, so that a stock declearn
client never meets a message it does not know.
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from declearn.messaging import Message

DEALABLE = "X-Fed-Dealable"
"""Handshake header (value `1`) of a client that holds the index sets of every federation size."""

PROBES = "X-Fed-Probes"
"""Handshake header (value `1`) of a client that trains off its event loop, so that it answers pings at all times."""

HALVES = "X-Fed-Halves"
"""Handshake header (value `1`) of a client that takes weights, and sends updates, as float16."""

TRAITS = (DEALABLE, PROBES, HALVES)
"""All of these headers."""


def progress_payload(step: int, steps: int) -> bytes:
    """Word how far a client is, for the payload of a websocket ping: any peer answers it, and ours reads it."""
    return b"%d/%d" % (step, steps)


def parse_progress(payload: bytes) -> tuple[int, int] | None:
    """Read `progress_payload`; None where a ping holds something else."""
    found = re.fullmatch(rb"(\d{1,9})/(\d{1,9})", payload)
    if found is None:
        return None
    step, steps = int(found[1]), int(found[2])
    return (step, steps) if step <= steps else None


@dataclasses.dataclass
class Deal(Message):
    """Server-emitted: train on seat `seat` of a federation of `size` clients.

    Fields:
        size: number of clients the data set is dealt to.
        seat: rank of this client among them, in [0, size[.
        seed: of the client's random draws (order of images, dropout).
    """

    typekey: ClassVar[str] = "fed_deal"

    size: int
    seat: int
    seed: int


@dataclasses.dataclass
class StandBy(Message):
    """Server-emitted, no reply due: the data set has no part for this client for now.

    Fields:
        reason: why not.
    """

    typekey: ClassVar[str] = "fed_stand_by"

    reason: str


@dataclasses.dataclass
class StateQuery(Message):
    """Server-emitted: send the state of your optimizer, as a `ClientState`."""

    typekey: ClassVar[str] = "fed_state_query"


@dataclasses.dataclass
class ClientState(Message):
    """Both ways: the state of a client's optimizer, which the server keeps without looking into it.

    Sent by the server it asks the client to take that state up; the client answers with the same.

    Fields:
        state: what `Optimizer.get_state` gives, serialized.
    """

    typekey: ClassVar[str] = "fed_client_state"

    state: bytes


@dataclasses.dataclass
class Grouping(Message):
    """Both ways: what the groups are between which fairness is measured; the client answers with the same.

    Fields:
        groups: what the second part of a group is: `ink`, `class` or `own`; the first is the label.
        ink: mean intensity from which an image has much ink, in [0, 1].
        positive: labels that count as 1, all others as 0; None leaves labels as they are.
    """

    typekey: ClassVar[str] = "fed_grouping"

    groups: str
    ink: float
    positive: list[int] | None


@dataclasses.dataclass
class Compression(Message):
    """Both ways: how weights and updates travel from now on; the client answers with the same.

    Fields:
        kind: `float16`; where nothing is said they travel as they are.
    """

    typekey: ClassVar[str] = "fed_compression"

    kind: str


@dataclasses.dataclass
class DealReply(Message):
    """Client-emitted: the index set named by a `Deal` is loaded.

    Fields:
        train: number of training images.
        valid: number of validation images.
    """

    typekey: ClassVar[str] = "fed_deal_reply"

    train: int
    valid: int


@dataclasses.dataclass
class SpendingQuery(Message):
    """Server-emitted: tell what the coming round will cost in privacy. Steps are written as [rate, noise, count].

    Fields:
        round_i: number of that round.
        before: steps taken on this client's data in earlier deals.
        since: steps taken on it in this deal, in order.
    """

    typekey: ClassVar[str] = "fed_spending_query"

    round_i: int
    before: list[list[float]]
    since: list[list[float]]


@dataclasses.dataclass
class SpendingReply(Message):
    """Client-emitted: the steps of the coming round, which this client takes part in with no others.

    Fields:
        rate: chance of each image to be in a batch.
        noise: standard deviation of the noise, in clipping norms.
        steps: number of steps; 0 where the budget allows for none.
    """

    typekey: ClassVar[str] = "fed_spending_reply"

    rate: float
    noise: float
    steps: int
