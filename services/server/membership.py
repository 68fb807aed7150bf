"""Who belongs to the federation, and which part of the data each one holds.

Pure bookkeeping, no input or output: `Federation` reports what happens and asks, at each boundary between two rounds,
for the roll call. A member is *seated* when it has a part of the data set: index set `seat` of `size` (see
`services.shards`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Seat:
    """A place in the deal: index set `seat` of a federation of `size`."""

    size: int
    seat: int


@dataclass
class Member:
    """One client, by the name it joined under.

    Attributes:
        name: its name.
        dealable: it takes the part of the data that it is dealt; else it has its own.
        ready: it has the model and can train.
        dealt: the seat it holds, as far as it has confirmed.
        lost_at: when its connection was lost, or None while it is connected.
        refused: why it can't take part, or None.
        images: how many training images of its own it says it has; None where it is dealt them, or was not asked.
    """

    name: str
    dealable: bool
    ready: bool = False
    dealt: Seat | None = None
    lost_at: float | None = None
    refused: str | None = None
    images: int | None = None

    @property
    def connected(self) -> bool:
        return self.lost_at is None


@dataclass(frozen=True)
class RollCall:
    """What holds from one boundary to the next.

    Attributes:
        seats: by name, the seat of each member that is dealt data, whether or not it is connected.
        participants: members that can train now, in the order of their names.
        standby: members for whom the data set has no part, in the order of their names.
        forgotten: members that were lost and did not return in time.
    """

    seats: dict[str, Seat]
    participants: tuple[str, ...]
    standby: tuple[str, ...]
    forgotten: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of members that the data set is dealt to."""
        return len(self.seats)


@dataclass
class Membership:
    """The members of one federation.

    Args:
        sizes: the sizes of federation that the data set can be dealt to; empty where there is nothing to deal.
        rejoin_grace: seconds that the seat of a member whose connection was lost is kept for it.
        clock: tells the time in seconds.
    """

    sizes: Sequence[int]
    rejoin_grace: float
    clock: Callable[[], float] = time.monotonic
    members: dict[str, Member] = field(default_factory=dict)

    def join(self, name: str, *, dealable: bool) -> bool:
        """Take note that `name` has connected; tells whether it returns to the place it had."""
        known = self.members.get(name)
        returns = known is not None and known.dealable == dealable
        # the seat is kept for it, yet it may be a new process that holds nothing: it is dealt and set up anew
        self.members[name] = Member(name, dealable, dealt=None)
        return returns

    def leave(self, name: str, *, clean: bool) -> None:
        """Take note that `name` is gone: for good if it said so, else for as long as it takes to return."""
        member = self.members.get(name)
        if member is None:
            return
        if clean or member.refused is not None:
            del self.members[name]
        else:
            member.lost_at = self.clock()
            member.ready = False

    def is_ready(self, name: str) -> bool:
        """Tell whether `name` is connected and has the model."""
        member = self.members.get(name)
        return member is not None and member.connected and member.ready

    def roll_call(self, seated: Iterable[str]) -> RollCall:
        """Decide who takes part until the next boundary.

        Args:
            seated: names that held a seat until now; they keep one before any newcomer is given one, also while they
                are away, and while they are set up after their return.
        """
        deadline = self.clock() - self.rejoin_grace
        forgotten = [m.name for m in self.members.values() if m.lost_at is not None and m.lost_at <= deadline]
        for name in forgotten:
            del self.members[name]
        before = set(seated)
        candidates = [
            member.name
            for member in self.members.values()
            if member.dealable and member.refused is None and (member.ready or member.name in before)
        ]
        # whoever has a seat keeps one; of the others, the lowest names come first
        candidates.sort(key=lambda name: (name not in before, natural(name)))
        size = max((size for size in self.sizes if size <= len(candidates)), default=0)
        chosen = sorted(candidates[:size], key=natural)
        seats = {name: Seat(size, rank) for rank, name in enumerate(chosen)}
        participants = [
            m.name for m in self.members.values() if m.connected and m.ready and (m.name in seats or not m.dealable)
        ]
        return RollCall(
            seats,
            tuple(sorted(participants, key=natural)),
            tuple(sorted(candidates[size:], key=natural)),
            tuple(sorted(forgotten, key=natural)),
        )

    def next_expiry(self) -> float | None:
        """Tell in how many seconds the next lost member is forgotten, or None when nobody is lost."""
        times = [member.lost_at for member in self.members.values() if member.lost_at is not None]
        return max(0.0, min(times) + self.rejoin_grace - self.clock()) if times else None


def natural(name: str) -> tuple[str, int]:
    """Order names as people count: `client_2` before `client_10`."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -1)
