"""Plain HTTP beside the federation, for people and machines that look on: a live page, its state as JSON.

Served by Starlette on uvicorn from the server's own event loop. It tells no secret and no training data, and nothing
that is asked of it changes the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import DataError, NetworkError
from services.server import metrics
from services.server.page.feed import MOST_READERS, Feed
from services.server.page.render import Renderer
from services.server.page.visitors import Visitor, is_news
from services.server.results import plain


class _Uvicorn(uvicorn.Server):
    """`uvicorn.Server` that leaves signals to us; upstream would take SIGTERM away from the federation."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Predict = Callable[[bytes], Awaitable[Sequence[tuple[str, float]]]]
"""Tells of a picture, in the bytes of a file, how likely each class is, the likeliest first; raises `DataError`."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer: the page loads nothing from elsewhere and is shown in no other."""

LARGEST_PICTURE = 2**20
"""Bytes of a picture that is asked about."""

PREDICTIONS = 5.0
"""Pictures a second that are looked at, all askers together."""


class StatusServer:
    """Serves what `snapshot` tells, until it is closed.

    Args:
        host: address to listen on.
        port: TCP port.
        snapshot: tells the state of the run as plain values (`services.server.view`); `healthy` in it decides what
            `/healthz` answers.
        predict: what the trained model says of a picture; `drawable` in the snapshot tells when it may be asked.

    Raises:
        NetworkError: the port is taken.
    """

    def __init__(
        self, host: str, port: int, snapshot: Callable[[], dict[str, Any]], predict: Predict | None = None
    ) -> None:
        self._snapshot = snapshot
        self._predict = predict
        self._asked = -math.inf
        self._renderer = Renderer()
        self._feed = Feed(lambda: self._renderer.regions(plain(self._snapshot())))
        self._states = Feed(lambda: plain(self._snapshot()), "state")
        self._socket = _listen(host, port)
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/events", self._events),
                Route("/healthz", self._healthz),
                Route("/metrics", self._metrics),
                Route("/predict", self._answer, methods=["POST"]),
                Route("/status", self._status),
                Route("/status/stream", self._stream),
                Mount("/static", StaticFiles(packages=[("services.server.page", "static")])),
            ]
        )
        self._server = _Uvicorn(
            uvicorn.Config(
                _with_headers(app),
                http=cast("Any", functools.partial(Visitor, visitors={})),
                ws="none",
                access_log=False,
                log_config=None,
                log_level=logging.ERROR,  # it warns of each request that is none
                lifespan="off",
                timeout_graceful_shutdown=2,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def readers(self) -> int:
        """Number of people who have the page open."""
        return self._feed.readers

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        logging.getLogger("uvicorn.error").addFilter(is_news)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def until_unwatched(self, seconds: float) -> None:
        """Wait until nobody has the page open, for at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._feed.unwatched(), seconds)

    async def close(self) -> None:
        """Show readers the last state, end serving, and wait until the port is free."""
        await asyncio.gather(self._feed.close(), self._states.close())
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(self._renderer.page(plain(self._snapshot())))

    async def _events(self, _: Request) -> Response:
        return self._listen_to(self._feed)

    async def _stream(self, _: Request) -> Response:
        return self._listen_to(self._states)

    def _listen_to(self, feed: Feed) -> Response:
        if self._feed.readers + self._states.readers >= MOST_READERS:
            return PlainTextResponse("too many pages are open\n", 503)
        return StreamingResponse(feed.stream(), media_type="text/event-stream")

    async def _healthz(self, _: Request) -> Response:
        healthy = bool(self._snapshot()["healthy"])
        return PlainTextResponse("ok\n" if healthy else "not able to progress\n", 200 if healthy else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(metrics.exposition(self._snapshot), media_type=metrics.CONTENT_TYPE)

    async def _status(self, _: Request) -> Response:
        return JSONResponse(plain(self._snapshot()))

    async def _answer(self, request: Request) -> Response:
        """Tell what the model says of a picture."""
        if self._predict is None or not self._snapshot()["drawable"]:
            return JSONResponse({"error": "There is no model to ask yet."}, 409)
        now = time.monotonic()
        if now - self._asked < 1 / PREDICTIONS:
            return JSONResponse({"error": "Too many pictures at once; try again."}, 429)
        self._asked = now
        picture = bytearray()
        async for chunk in request.stream():
            picture += chunk
            if len(picture) > LARGEST_PICTURE:
                return JSONResponse({"error": f"A picture has at most {LARGEST_PICTURE:,} bytes."}, 413)
        try:
            found = await self._predict(bytes(picture))
        except DataError as exc:
            return JSONResponse({"error": str(exc)}, 400)
        return JSONResponse({"class": found[0][0], "scores": [list(each) for each in found[:3]]})


def _with_headers(app: ASGIApp) -> ASGIApp:
    """Add `HEADERS` to every answer."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as exc:
        taken = exc.errno == errno.EADDRINUSE
        reason = (exc.strerror or str(exc)).partition(" (while ")[0]  # `create_server` appends the address
        raise NetworkError(
            f"status port {port} on {host} is taken" if taken else f"can't listen on {host}:{port} ({reason})",
            "a free port" if taken else "an address of this machine, and a port this user may use",
            "choose another STATUS_PORT (0 for none)" + (", or end what holds it" if taken else " or HOST"),
        ) from exc
