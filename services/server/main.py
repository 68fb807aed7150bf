"""The server from its settings to its exit: listen, gather clients, train, write results."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services import engine, logs, shards
from services.errors import FedError, QuorumError, StoppedError, UsageError
from services.experiment import Plan
from services.server.results import RunFolder, versions
from services.server.status import StatusServer
from services.signals import until_stopped
from services.transport import tls
from services.transport.server import ServerEndpoint

if TYPE_CHECKING:
    from services.server.federation import Federation

logger = logging.getLogger("fed.server")


@dataclass(frozen=True)
class ServerOptions:
    """What the server needs beside the plan.

    Attributes:
        clients: number of clients to begin with.
        host: address to listen on.
        port: TCP port of the federation.
        status_port: TCP port of the status page; 0 is none.
        certificate: PEM certificate.
        key: PEM private key.
        ca: PEM bundle of the CAs whose clients may join; None lets anyone join.
        test: folder of the held-out test images.
        results: folder that receives the run's folder.
    """

    clients: int
    host: str
    port: int
    status_port: int
    certificate: Path
    key: Path
    ca: Path | None
    test: Path
    results: Path


def run(plan: Plan, options: ServerOptions) -> None:
    """Serve one run, to its end.

    Raises:
        FedError: one of its subclasses; see `services.errors`. What was learned until then is in the run's folder.
    """
    manifest = shards.read_manifest(options.test)
    if manifest.cuts and options.clients > manifest.largest:
        raise UsageError(
            f"CLIENTS is {options.clients}, the data set is dealt to at most {manifest.largest} ({manifest.scheme})",
            "no more clients than that",
            "lower CLIENTS, or raise MAX_CLIENTS and run `fed init` again",
        )
    context = tls.server_context(options.certificate, options.key, options.ca)
    folder = RunFolder(options.results)
    logs.to_file(folder.path / "server.log")

    async def serve() -> None:
        endpoint = ServerEndpoint(options.host, options.port, context)
        await until_stopped(Run(plan, options, manifest, endpoint, folder).serve())

    asyncio.run(serve())


class Run:
    """One run: what `serve` shares with the status page."""

    def __init__(
        self, plan: Plan, options: ServerOptions, manifest: shards.Manifest, endpoint: ServerEndpoint, folder: RunFolder
    ) -> None:
        self.plan = plan
        self.options = options
        self.manifest = manifest
        self.endpoint = endpoint
        self.folder = folder
        self.federation: Federation | None = None
        self.started = time.monotonic()

    async def serve(self) -> None:
        """Listen, gather clients while TensorFlow is imported, train, and write results whatever happens."""
        self.folder.write_plan(self.plan)
        self._write_summary("running", "")
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self.options.status_port:
                    status = StatusServer(self.options.host, self.options.status_port, self.snapshot)
                    stack.push_async_callback(status.close)
                    status.start()
                await self.endpoint.start()
                stack.push_async_callback(self.endpoint.stop)
                build = asyncio.create_task(asyncio.to_thread(self._build))
                await self._gather()
                self.federation = await build
                try:
                    await self.federation.train()
                finally:
                    await self.federation.farewell()
            await asyncio.to_thread(self._conclude, "completed", "")
        except asyncio.CancelledError:
            await self._give_up("stopped", "stopped by a signal")
            raise
        except StoppedError as exc:
            await self._give_up("stopped", str(exc))
            raise
        except FedError as exc:
            await self._give_up("stopped" if isinstance(exc, QuorumError) else "failed", str(exc))
            raise
        except BaseException as exc:
            await self._give_up("failed", logs.unforeseen(exc))
            raise

    def snapshot(self) -> dict[str, Any]:
        """Tell the state of the run for the status page."""
        federation = self.federation
        last = self.folder.rounds[-1] if self.folder.rounds else None
        return {
            "run_id": self.folder.run_id,
            "phase": "waiting" if federation is None else federation.phase,
            "healthy": True,
            "round": 0 if federation is None else federation.round,
            "rounds_planned": self.plan.rounds,
            "clients": sorted(self.endpoint.client_names),
            "clients_wanted": self.options.clients,
            "test_accuracy": None if last is None else last.test_accuracy,
            "loss": None if last is None else last.loss,
            "seconds": round(time.monotonic() - self.started, 1),
        }

    async def _gather(self) -> None:
        """Wait for the clients asked for, then a little longer for more that come on their heels."""
        wanted, hub = self.options.clients, self.endpoint.handler
        limits = self.plan.federation
        logger.info("waiting for %d clients, for at most %g s", wanted, limits.join_timeout)
        try:
            await hub.until_clients(lambda count: count >= wanted, limits.join_timeout)
        except TimeoutError:
            raise QuorumError(
                f"{len(self.endpoint.client_names)} of {wanted} clients joined within {limits.join_timeout:g} s",
                f"{wanted} clients",
                "start the missing clients, lower CLIENTS, or raise federation.join_timeout",
            ) from None
        while True:
            there = len(self.endpoint.client_names)
            try:
                await hub.until_clients(there.__lt__, limits.join_grace)
            except TimeoutError:
                break
        logger.info("%d clients joined: %s", there, ", ".join(sorted(self.endpoint.client_names)))

    def _build(self) -> Federation:
        """Import TensorFlow and build the model, in a thread while clients arrive."""
        engine.load()
        from services.server.evaluation import HeldOut  # noqa: PLC0415 - imports TensorFlow
        from services.server.federation import Federation  # noqa: PLC0415
        from services.server.model import CLASSES, build_model, build_optim  # noqa: PLC0415

        images, labels = shards.load_test(self.options.test)
        return Federation(
            self.plan,
            self.endpoint,
            build_model(self.plan),
            build_optim(self.plan),
            HeldOut(images, labels, CLASSES),
            self.manifest.largest,
            self.folder,
        )

    async def _give_up(self, status: str, reason: str) -> None:
        with contextlib.suppress(FedError):
            await asyncio.shield(asyncio.to_thread(self._conclude, status, reason))

    def _conclude(self, status: str, reason: str) -> None:
        """Write the model, the pictures and the summary of what was learned."""
        federation = self.federation
        score = None
        if federation is not None and self.folder.rounds:
            from services.server import plots  # noqa: PLC0415 - imports matplotlib

            federation.restore_best()
            score = federation.held_out.score(federation.model)
            self.folder.write_model(federation.model.get_wrapped_model())
            self.folder.write("curves.png", plots.curves(self.folder.rounds))
            self.folder.write("confusion.png", plots.confusion(score.confusion))
        self._write_summary(status, reason, score)
        if score is not None and status == "completed":
            logger.info(
                "completed %d rounds in %.0f s with %d clients: test accuracy %.4f",
                len(self.folder.rounds),
                time.monotonic() - self.started,
                self.folder.rounds[-1].clients,
                score.accuracy,
            )
        logger.info("results are in %s", self.folder.label)

    def _write_summary(self, status: str, reason: str, score: Any = None) -> None:
        last = self.folder.rounds[-1] if self.folder.rounds else None
        self.folder.write_summary(
            {
                "run_id": self.folder.run_id,
                "status": status,
                "reason": reason,
                "rounds": len(self.folder.rounds),
                "rounds_planned": self.plan.rounds,
                "clients": self.options.clients if last is None else last.clients,
                "scheme": self.manifest.scheme,
                "seed": self.plan.seed,
                "dataset": self.manifest.dataset,
                "data_sha256": self.manifest.data_sha256,
                "model_round": None if self.federation is None else self.federation.best_round,
                "test_accuracy": None if score is None else score.accuracy,
                "test_loss": None if score is None else score.loss,
                "wall_s": round(time.monotonic() - self.started, 3),
                "versions": versions(),
                "experiment": json.loads(self.plan.model_dump_json()),
            }
        )
