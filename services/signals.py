"""SIGTERM and Ctrl-C inside an event loop: the first asks to end cleanly, the second ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

from services.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; the first signal cancels it and waits for its clean-up, the second ends the process.

    Raises:
        StoppedError: a signal came before the work was done.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise StoppedError(f"stopped by {received[0].name}") from None
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
