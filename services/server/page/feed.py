"""Server-sent events (HTML Living Standard, section 9.2): regions of the page, rendered once a second for all readers.

Each reader is told what has changed since it was last told: a slow one skips states and keeps nobody waiting, and while
nobody looks nothing is rendered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

PERIOD = 1.0
"""Seconds between two states."""

ALIVE = 15.0
"""Seconds after which a reader who has missed nothing gets a comment, which keeps proxies from closing."""

MOST_READERS = 64
"""Open pages, at a time."""


class Feed:
    """Tells readers of the page what has changed.

    Args:
        render: gives each region's HTML by its name; or any values, as long as JSON has words for them.
        kind: name of the events that tell them.

    Attributes:
        readers: number of those that listen.
    """

    def __init__(self, render: Callable[[], dict[str, Any]], kind: str = "regions") -> None:
        self.readers = 0
        self._render = render
        self._kind = kind
        self._regions: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._unwatched = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def stream(self) -> AsyncGenerator[str]:
        """Yield events until the feed is closed or the reader is gone."""
        self.readers += 1
        told: dict[str, Any] = {}
        try:
            self._begin()
            yield "retry: 2000\n\n"
            while True:
                # taken before the look, so that a change while an event is on its way is not missed
                changed = self._changed
                news = {name: html for name, html in self._regions.items() if name not in told or told[name] != html}
                if news:
                    told |= news
                    yield f"event: {self._kind}\ndata: {json.dumps(news)}\n\n"
                elif self._closed:
                    yield "event: over\ndata: {}\n\n"
                    return
                if changed is self._changed and not self._closed:
                    try:
                        await asyncio.wait_for(changed.wait(), ALIVE)
                    except TimeoutError:
                        yield ": nothing new\n\n"
        finally:
            self.readers -= 1
            if not self.readers:
                self._unwatched.set()

    async def unwatched(self) -> None:
        """Wait until nobody listens."""
        while self.readers:
            self._unwatched.clear()
            await self._unwatched.wait()

    async def close(self) -> None:
        """Tell every reader the last state, and that it is the last."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._look()
        self._closed = True
        self._wake()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._look()
            self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while self.readers:
            await asyncio.sleep(PERIOD)
            self._look()

    def _look(self) -> None:
        regions = self._render()
        if regions != self._regions:
            self._regions = regions
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
