"""Plain HTTP beside the federation, for machines and people that look on: `/healthz` and `/status`.

Served by Starlette on uvicorn from the server's own event loop. It tells no secret and no training data.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.errors import NetworkError
from services.server.results import plain


class _Uvicorn(uvicorn.Server):
    """`uvicorn.Server` that leaves signals to us; upstream would take SIGTERM away from the federation."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class StatusServer:
    """Serves what `snapshot` tells, until it is closed.

    Args:
        host: address to listen on.
        port: TCP port.
        snapshot: tells the state of the run as plain values; `healthy` in it decides what `/healthz` answers.

    Raises:
        NetworkError: the port is taken.
    """

    def __init__(self, host: str, port: int, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self._socket = _listen(host, port)
        app = Starlette(routes=[Route("/healthz", self._healthz), Route("/status", self._status)])
        self._server = _Uvicorn(
            uvicorn.Config(app, access_log=False, log_config=None, log_level=logging.WARNING, lifespan="off")
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """End serving, and wait until the port is free."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()

    async def _healthz(self, _: Request) -> Response:
        healthy = bool(self._snapshot()["healthy"])
        return PlainTextResponse("ok\n" if healthy else "not able to progress\n", 200 if healthy else 503)

    async def _status(self, _: Request) -> Response:
        return JSONResponse(plain(self._snapshot()))


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
