"""The feed: each reader is told what has changed, and no reader keeps another, or the server, waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import cast

import pytest

from services.server.page import feed as module
from services.server.page.feed import Feed
from tests.support import deadline


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a state follow another in no time."""
    monkeypatch.setattr(module, "PERIOD", 0.01)


async def told(stream: AsyncGenerator[str]) -> dict[str, str]:
    """Read on to the next event about regions."""
    async for event in stream:
        if event.startswith("event: regions\n"):
            return cast("dict[str, str]", json.loads(event.split("data: ", 1)[1]))
        if event.startswith("event: over\n"):
            return {}
    raise AssertionError("the stream ended")


def test_a_reader_is_told_everything_at_first_and_then_what_changed() -> None:
    """The first event has all regions, the next ones those that are new."""
    regions = {"a": "1", "b": "1"}

    async def scene() -> None:
        feed = Feed(lambda: dict(regions))
        stream = feed.stream()
        assert await told(stream) == {"a": "1", "b": "1"}
        regions["b"] = "2"
        assert await told(stream) == {"b": "2"}
        await stream.aclose()

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))


def test_values_are_told_like_regions() -> None:
    """What is told may be any values, under a name of their own, and a value that becomes nothing is a change."""
    values: dict[str, object] = {"round": 1, "clients": {"a": None}, "reason": None}

    async def scene() -> None:
        stream = Feed(lambda: dict(values), "state").stream()
        assert await anext(stream) == "retry: 2000\n\n"
        assert await anext(stream) == f"event: state\ndata: {json.dumps(values)}\n\n"
        values["round"] = None
        assert await anext(stream) == 'event: state\ndata: {"round": null}\n\n'
        await stream.aclose()

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))


def test_all_readers_share_what_is_rendered_and_nobody_costs_nothing() -> None:
    """Twenty readers make the server render no more often than one; without any it does not render at all."""
    rendered = 0

    def render() -> dict[str, str]:
        nonlocal rendered
        rendered += 1
        return {"a": str(rendered)}

    async def scene() -> None:
        feed = Feed(render)
        streams = [feed.stream() for _ in range(20)]
        for stream in streams:
            await told(stream)
        assert feed.readers == 20
        before = rendered
        news = await asyncio.gather(*(told(stream) for stream in streams))
        assert len({each["a"] for each in news}) <= rendered - before + 1
        assert rendered - before < 20
        for stream in streams:
            await stream.aclose()
        await feed.unwatched()
        assert feed._task is not None
        await feed._task
        at_rest = rendered
        await asyncio.sleep(5 * module.PERIOD)
        assert rendered == at_rest

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))


def test_a_slow_reader_skips_what_it_missed() -> None:
    """A reader that takes its time is told the last state next, and others are told meanwhile."""
    state = [0]

    async def scene() -> None:
        feed = Feed(lambda: {"a": str(state[0])})
        slow, quick = feed.stream(), feed.stream()
        await told(slow)
        await told(quick)
        for number in range(1, 6):
            state[0] = number
            assert (await told(quick))["a"] == str(number)
        assert (await told(slow))["a"] == "5"
        await slow.aclose()
        await quick.aclose()

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))


def test_readers_see_the_last_state_before_the_end() -> None:
    """When the server ends, each reader is told what is new, then that it was the last."""
    state = ["training"]

    async def scene() -> None:
        feed = Feed(lambda: {"a": state[0]})
        stream = feed.stream()
        assert await told(stream) == {"a": "training"}
        state[0] = "completed"
        await feed.close()
        assert await told(stream) == {"a": "completed"}
        assert await told(stream) == {}
        assert [event async for event in stream] == []
        assert feed.readers == 0

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))


def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader to whom there is nothing to tell gets a comment now and then."""
    monkeypatch.setattr(module, "ALIVE", 0.01)

    async def scene() -> None:
        stream = Feed(lambda: {"a": "1"}).stream()
        await told(stream)
        assert await anext(stream) == ": nothing new\n\n"
        await stream.aclose()

    asyncio.run(asyncio.wait_for(scene(), deadline(10)))
