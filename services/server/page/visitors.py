"""Connections to the page: few at a time, each for a purpose.

uvicorn takes any number, and waits for ever for one that asks nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_VISITORS = 128
"""Connections at a time; each open page has one that lasts."""

PATIENCE = 10.0
"""Seconds from a connection to its first request."""


class Visitor(H11Protocol):
    """`H11Protocol` whose connections are counted: when there are too many, the oldest that asks nothing makes way.

    Args:
        visitors: all that are open, the oldest first.
    """

    def __init__(self, *args: Any, visitors: dict[Visitor, None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._visitors = visitors
        self._hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self._visitors) >= MOST_VISITORS:
            oldest = next((other for other in self._visitors if other.is_idle), next(iter(self._visitors)))
            self._visitors.pop(oldest)
            oldest.abort()
        self._visitors[self] = None
        self._hurry = self.loop.call_later(PATIENCE, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitors.pop(self, None)
        if self._hurry is not None:
            self._hurry.cancel()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether it has no request that is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _give_up(self) -> None:
        if self.cycle is None:
            self.abort()


def is_news(record: logging.LogRecord) -> bool:
    """Tell whether a record of uvicorn's is worth its line; a request that breaks off as rubbish has a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, h11.LocalProtocolError)
