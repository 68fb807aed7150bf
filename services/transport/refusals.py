"""What is refused: a line for each peer and reason at first, then a count, so that nobody can fill the log."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable

from services.wording import printable

MOST_PEERS = 1024
"""Peers and reasons that are told apart; beyond that the longest silent is forgotten, and its line may come again."""

MOST_LINES = 60
"""Lines of a `PERIOD` that name a peer; an attacker that has many addresses gets no more."""

PERIOD = 60.0
"""Seconds between two lines that tell how many more there were."""

logger = logging.getLogger("fed.server.network")


class Refusals:
    """Counts refusals, and logs of them what a person can read.

    Args:
        clock: tells the time in seconds.

    Attributes:
        totals: number of refusals by reason.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.totals: collections.Counter[str] = collections.Counter()
        self._clock = clock
        self._known: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()
        self._repeated: collections.Counter[str] = collections.Counter()
        self._told: float | None = None
        self._named: collections.deque[float] = collections.deque(maxlen=MOST_LINES)

    def note(self, peer: str, reason: str, detail: str = "") -> None:
        """Take note of one refusal.

        Args:
            peer: who was refused: an address, or the name that a certificate proved.
            reason: why, in words that do not depend on the peer.
            detail: more for the log line, shortened and on one line.
        """
        self.totals[reason] += 1
        now = self._clock()
        key = (peer, reason)
        known = key in self._known
        if known:
            self._known.move_to_end(key)
        if known or (len(self._named) == MOST_LINES and now - self._named[0] < PERIOD):
            self._repeated[reason] += 1
            if self._told is None:
                self._told = now
            elif now - self._told >= PERIOD:
                self.tell()
            return
        self._known[key] = None
        if len(self._known) > MOST_PEERS:
            self._known.popitem(last=False)
        self._named.append(now)
        logger.warning("refused %s: %s%s", peer, reason, f" ({one_line(detail)})" if detail else "")

    def tell(self) -> None:
        """Log how many more refusals there were since this was last told."""
        for reason, count in self._repeated.items():
            logger.warning("refused %d more times: %s", count, reason)
        self._repeated.clear()
        self._told = None


def one_line(text: object, most: int = 120) -> str:
    """Word what a peer sent so that it fits a log line: printable, one line, at most `most` characters."""
    # cut first: of megabytes, each character would be looked at, and become an object of its own
    whole = str(text)
    head = whole[: 8 * most]
    words = " ".join(printable(head).split())
    return words if len(words) <= most and head == whole else words[: most - 1] + "…"
