"""Signals: the first asks to end cleanly, the second ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from services.errors import DataError, StoppedError
from services.signals import SIGNALS, until_stopped
from tests.support import deadline


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it is done or stopped."""

    async def main() -> None:
        async def coroutine() -> None:
            await work()

        await until_stopped(coroutine())

    asyncio.run(main())


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_cancels_and_waits_for_the_clean_up(number: signal.Signals) -> None:
    """Work that is told to stop has its clean-up awaited, and the error names the signal."""
    cleaned = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(StoppedError) as caught:
        run(work)
    assert str(caught.value) == f"stopped by {number.name}"
    assert cleaned == [True]


PROGRAM = """
import asyncio, sys
from services.signals import until_stopped

async def work():
    try:
        print("working", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaning", flush=True)
        await asyncio.Event().wait()

asyncio.run(until_stopped(work()))
"""


@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_the_second_signal_ends_the_process(second: signal.Signals) -> None:
    """A clean-up that hangs is ended by another signal, with the code that shells give it, and without a word."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(second)
        assert process.wait(deadline(10)) == 128 + second
        assert process.stderr.read() == ""


def test_work_that_ends_by_itself_is_left_alone() -> None:
    """Without a signal the work runs to its end, its errors go through, and signals do what they did before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(True)

    async def failing() -> None:
        raise DataError("damaged")

    run(work)
    assert done == [True]
    with pytest.raises(DataError, match="damaged"):
        run(failing)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_handlers_go_with_the_work() -> None:
    """Once the work is done, the event loop handles no signal for it any longer."""

    async def main() -> list[bool]:
        await until_stopped(asyncio.sleep(0))
        return [asyncio.get_running_loop().remove_signal_handler(number) for number in SIGNALS]

    assert asyncio.run(main()) == [False, False]


def test_a_cancellation_from_elsewhere_is_no_signal() -> None:
    """Who cancels the work by other means gets the cancellation back."""

    async def main() -> None:
        task = asyncio.create_task(until_stopped(asyncio.Event().wait()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
