"""The status page: what it answers, and that it keeps out of the federation's way."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.errors import NetworkError
from services.server.status import StatusServer
from tests.server.page.test_render import state
from tests.support import deadline

Answer = tuple[int, dict[str, str], str]


async def get(port: int, path: str, method: str = "GET") -> Answer:
    """Ask the page at `port` over plain HTTP, and give status, headers and body."""
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = text.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def serve(snapshot: Callable[[], dict[str, Any]], scene: Callable[[int], Awaitable[None]]) -> int:
    """Play `scene` against a page that tells `snapshot`, on a free port, which is given back."""

    async def main() -> int:
        status = StatusServer("localhost", 0, snapshot)
        port: int = status._socket.getsockname()[1]
        status.start()
        try:
            await scene(port)
        finally:
            await status.close()
        return port

    return asyncio.run(asyncio.wait_for(main(), deadline(30)))


@pytest.mark.parametrize(("healthy", "code", "text"), [(True, 200, "ok\n"), (False, 503, "not able to progress\n")])
def test_healthz_tells_whether_the_run_can_progress(*, healthy: bool, code: int, text: str) -> None:
    """/healthz answers 200 while the federation can progress, else 503, each with a word."""

    async def scene(port: int) -> None:
        status, headers, body = await get(port, "/healthz")
        assert (status, headers["content-type"], body) == (code, "text/plain; charset=utf-8", text)

    serve(lambda: {"healthy": healthy}, scene)


def test_status_is_the_snapshot_of_the_moment() -> None:
    """/status gives the state as it is when asked, as JSON; what is not a number is null."""
    state: dict[str, Any] = {"round": 1, "clients": ["client_0"], "loss": float("nan"), "test_accuracy": None}

    async def scene(port: int) -> None:
        status, headers, body = await get(port, "/status")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body) == {"round": 1, "clients": ["client_0"], "loss": None, "test_accuracy": None}
        state["round"] = 2
        assert json.loads((await get(port, "/status"))[2])["round"] == 2

    serve(lambda: state, scene)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/nowhere", 404), ("POST", "/status", 405)])
def test_nothing_else_is_served(method: str, path: str, code: int) -> None:
    """Other paths are not found, and nothing can be changed from outside."""

    async def scene(port: int) -> None:
        assert (await get(port, path, method))[0] == code

    serve(lambda: {"healthy": True}, scene)


def test_a_failing_snapshot_fails_its_answer_alone() -> None:
    """An error while a state is told is answered with 500, and the next question is answered again."""
    broken = [True]

    def snapshot() -> dict[str, Any]:
        if broken:
            raise KeyError("round")
        return {"healthy": True}

    async def scene(port: int) -> None:
        assert (await get(port, "/status"))[0] == 500
        broken.clear()
        assert (await get(port, "/status"))[0] == 200

    serve(snapshot, scene)


def test_a_stuck_reader_delays_nobody() -> None:
    """A page that is never read from costs another one no state, and the server no answer."""
    count = 0

    def snapshot() -> dict[str, Any]:
        nonlocal count
        count += 1
        # more than any buffer on the way holds
        return state(reason="x" * 2**20 + str(count))

    async def scene(port: int) -> None:
        request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        _, stuck = await asyncio.open_connection("localhost", port, limit=2**10)
        stuck.transport.pause_reading()  # type: ignore[attr-defined]
        stuck.write(request)
        reader, writer = await asyncio.open_connection("localhost", port, limit=2**24)
        writer.write(request)
        seen = 0
        while seen < 5:
            seen += (await reader.readline()).startswith(b"data: ")
            assert (await get(port, "/healthz"))[0] == 200
        stuck.transport.abort()
        writer.close()

    serve(snapshot, scene)


@pytest.mark.parametrize(("path", "kind"), [("/events", "regions"), ("/status/stream", "state")])
def test_pages_are_limited_in_number(monkeypatch: pytest.MonkeyPatch, path: str, kind: str) -> None:
    """More open pages and terminals than allowed are told so."""
    monkeypatch.setattr("services.server.status.MOST_READERS", 1)

    async def scene(port: int) -> None:
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(f"event: {kind}".encode())
        assert (await get(port, "/events"))[0] == (await get(port, "/status/stream"))[0] == 503
        writer.close()

    serve(state, scene)


def test_terminals_see_the_last_state_and_keep_no_server() -> None:
    """Who listens to the state is told the last one, and that it is; only open pages count for the server's end."""
    told = state()

    async def main() -> str:
        status = StatusServer("localhost", 0, lambda: dict(told))
        status.start()
        reader, writer = await asyncio.open_connection("localhost", status._socket.getsockname()[1])
        writer.write(b"GET /status/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"event: state")
        assert status.readers == 0
        told["phase"] = "completed"
        await status.close()
        text = (await reader.read()).decode()
        writer.close()
        return text

    text = asyncio.run(asyncio.wait_for(main(), deadline(30)))
    events = [line for line in text.splitlines() if line.startswith(("event: ", "data: "))]
    assert events[-4:] == ["event: state", 'data: {"phase": "completed"}', "event: over", "data: {}"]


def test_the_page_and_what_it_needs_are_served() -> None:
    """The page, its style sheet, its script and its icon come with headers that let nothing else in."""

    async def scene(port: int) -> None:
        for path, kind in (
            ("/", "text/html; charset=utf-8"),
            ("/static/page.css", "text/css; charset=utf-8"),
            ("/static/page.js", "text/javascript; charset=utf-8"),
            ("/static/icon.svg", "image/svg+xml"),
        ):
            status, headers, body = await get(port, path)
            assert (status, headers["content-type"]) == (200, kind)
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert body
        assert (await get(port, "/static/../status.py"))[0] == 404

    serve(state, scene)


def test_the_port_is_free_afterwards() -> None:
    """Once closed, the page leaves its port to whoever comes next, at once."""

    async def scene(port: int) -> None:
        assert (await get(port, "/healthz"))[0] == 200

    port = serve(lambda: {"healthy": True}, scene)
    socket.create_server(("localhost", port)).close()


def test_a_page_that_was_never_started_can_be_closed() -> None:
    """Closing before starting frees the port too."""

    async def main() -> int:
        status = StatusServer("localhost", 0, lambda: {"healthy": True})
        port: int = status._socket.getsockname()[1]
        await status.close()
        return port

    socket.create_server(("localhost", asyncio.run(main()))).close()


def test_signals_are_left_to_the_federation() -> None:
    """The page takes no signal for itself, as uvicorn otherwise would."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def scene(port: int) -> None:
        await get(port, "/healthz")
        # asyncio.run has a handler of its own for SIGINT while it runs
        assert signal.getsignal(signal.SIGTERM) == before[0]

    serve(lambda: {"healthy": True}, scene)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_taken_port_is_one_line() -> None:
    """The line names the port and both ways out."""
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError) as caught:
            StatusServer("localhost", port, dict)
    assert str(caught.value) == (
        f"status port {port} on localhost is taken; wanted a free port;"
        " choose another STATUS_PORT (0 for none), or end what holds it"
    )


def test_an_address_of_another_machine_is_one_line() -> None:
    """An address that is none of this machine's is named with the system's reason."""
    with pytest.raises(NetworkError) as caught:
        StatusServer("192.0.2.1", 8000, dict)
    assert str(caught.value) == (
        "can't listen on 192.0.2.1:8000 (Cannot assign requested address); wanted an address of this machine, and a"
        " port this user may use; choose another STATUS_PORT (0 for none) or HOST"
    )
