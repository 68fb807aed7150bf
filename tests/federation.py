"""A whole federation in one event loop: the real server and real clients, over TLS on loopback, on made-up images."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from declearn import messaging
from declearn.messaging import Message

from services import shards
from services.client.secagg import load_keys
from services.client.session import Session
from services.experiment import Plan
from services.init import identities, secagg_keys
from services.init import main as init
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, Paths, client_certificate, client_key
from services.readers.folder import load_site
from services.server.main import Run, ServerOptions, open_folder
from services.source import read
from services.transport import tls
from services.transport.client import ClientEndpoint
from services.transport.messages import HALVES
from services.transport.server import ServerEndpoint
from tests.report.parsing import Page

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a federation of the tests may take in all."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, in bounded time."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


def plan(**changes: Any) -> Plan:
    """Make a plan that trains in a blink: two rounds of a few small steps."""
    content: dict[str, Any] = {
        "rounds": 2,
        "model": "cnn",
        "train": {"batch_size": 20, "steps": 2},
        "evaluate": {"batch_size": 100},
        "federation": {"join_timeout": 20, "join_grace": 0.2},
    }
    return Plan.model_validate(content | changes)


Hook = Callable[[int], Awaitable[str | None]]


Forger = Callable[[Message], Message]


class _Forging(ClientEndpoint, register=False):
    """A client's endpoint that may send something else than the client says."""

    forge: Forger | None = None

    async def send_message(self, message: Message) -> None:
        await super().send_message(message if self.forge is None else self.forge(message))


class _Hooked(Session):
    """A client that waits for a test before it trains."""

    def __init__(self, *args: Any, before_round: Hook | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._before_round = before_round

    async def training_round(self, message: messaging.TrainRequest) -> None:
        error = None if self._before_round is None else await self._before_round(message.round_i)
        if error is not None:
            await self.netwk.send_message(messaging.Error(error))
        else:
            await super().training_round(message)


class Federation:
    """The folders of one federation, and ways to start its roles.

    Args:
        paths: its folders; the data set is there.
        plan: what it trains.
        clients: number of clients to begin with.
    """

    def __init__(self, paths: Paths, plan: Plan, clients: int = 2, max_clients: int = 4) -> None:
        self.paths = paths
        self.plan = plan
        init.prepare(clients, max_clients, plan, paths)
        identities.ensure(paths.certs, paths.client_certs, identities.client_names(max_clients))
        secagg_keys.ensure(paths.client_certs, identities.client_names(max_clients))
        paths.results.mkdir(exist_ok=True)
        self.options = ServerOptions(
            clients=clients,
            host="localhost",
            port=0,
            status_port=0,
            certificate=paths.certs / SERVER_CERTIFICATE,
            key=paths.certs / SERVER_KEY,
            ca=paths.certs / CA_CERTIFICATE,
            test=paths.test,
            denylist=paths.certs / "denylist",
            results=paths.results,
            models=paths.root / "models",
        )
        self.endpoint: ServerEndpoint | None = None

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[Run, asyncio.Task[None]]]:
        """Start the server; it is ended with the block."""
        context = tls.server_context(self.options.certificate, self.options.key, self.options.ca)
        self.endpoint = ServerEndpoint("localhost", 0, context)
        module = self.plan.model.module
        source = None if module is None else read(module, self.options.models)
        folder, resumed = open_folder(self.plan, self.options.results, source, fresh=False)
        manifest = shards.read_manifest(self.options.test)
        run = Run(self.plan, self.options, manifest, self.endpoint, folder, source, resumed=resumed)
        task = asyncio.create_task(run.serve())
        while self.endpoint.port == 0 and not task.done():
            await asyncio.sleep(0.01)
        try:
            yield run, task
        finally:
            task.cancel()
            await asyncio.wait({task})
            folder.close()

    def client(
        self,
        number: int,
        *,
        own_data: Path | None = None,
        before_round: Hook | None = None,
        forge: Forger | None = None,
        halves: bool = True,
        **more: Any,
    ) -> asyncio.Task[None]:
        """Start the client `client_<number>`, which is dealt its data unless it has its own.

        `before_round` is awaited with the number of each round before the client trains; a text that it gives is
        reported to the server as this client's error, in place of training. `forge` changes each message that it sends;
        without `halves` it says nothing of float16, as a stock client; `more` is what else its session is made with.
        """
        assert self.endpoint is not None
        name, folder = f"client_{number}", self.paths.client_certs
        context = tls.client_context(
            folder / CA_CERTIFICATE, folder / client_certificate(name), folder / client_key(name)
        )
        own = None if own_data is None else load_site(own_data)
        uri = f"wss://localhost:{self.endpoint.port}"
        endpoint = _Forging(uri, name, lambda: context, dealable=own is None, timeout=20.0)
        endpoint.forge = forge
        if not halves:
            endpoint.headers = {name: value for name, value in (endpoint.headers or {}).items() if name != HALVES}
        keys = load_keys(folder, name)
        deal = functools.partial(shards.load_shard, self.paths.shards) if own is None else None
        return asyncio.create_task(
            _Hooked(
                endpoint,
                shard=own,
                deal=deal,
                keys=keys,
                folder=own_data,
                before_round=before_round,
                **more,
            ).async_run()
        )

    async def play(self, clients: int = 2, *, stop_before: int | None = None) -> None:
        """Run to the end; with `stop_before`, end everybody as that round begins, and start all of them anew."""
        async with self.server() as (_, server):

            async def stop(number: int) -> None:
                if number == stop_before:
                    server.cancel()

            tasks = [self.client(number, before_round=None if number else stop) for number in range(clients)]
            await asyncio.wait({server})
            await asyncio.gather(*tasks, return_exceptions=True)
            if stop_before is None:
                await server
        if stop_before is not None:
            assert self.summary["status"] == "stopped"
            await self.play(clients)

    async def play_with(self, *forgers: Forger | None) -> list[Any]:
        """Run to the end with a client for each of `forgers`, dishonest where there is one; gives how they ended.

        Raises:
            FedError: the server ended otherwise.
        """
        async with self.server() as (_, server):
            clients = [self.client(number, forge=forge) for number, forge in enumerate(forgers)]
            await asyncio.wait({server})
            ends = await asyncio.gather(*clients, return_exceptions=True)
            await server
        return ends

    def learned(self) -> list[tuple[str, ...]]:
        """What the newest run came to in each round: its figures that do not depend on the clock."""
        columns = ("round", "clients", "loss", "accuracy", "test_loss", "test_accuracy")
        return [tuple(row[column] for column in columns) for row in self.table("history.csv")]

    @property
    def summary(self) -> dict[str, Any]:
        """The newest run's summary."""
        content: dict[str, Any] = json.loads((self.paths.results / "latest" / "summary.json").read_text())
        return content

    @property
    def page(self) -> str:
        """What the newest run's report says."""
        return Page((self.paths.results / "latest" / "report.html").read_text(encoding="utf-8")).root.text

    def table(self, name: str) -> list[dict[str, str]]:
        """One of the newest run's tables, a dictionary a row."""
        with (self.paths.results / "latest" / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
