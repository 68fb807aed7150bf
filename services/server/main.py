"""The server from its settings to its exit: listen, gather clients, train, write results."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from declearn.messaging import CancelTraining

from services import distribution, experiment, logs, shards
from services.errors import (
    ConflictError,
    FedError,
    QuorumError,
    StorageError,
    TrainingError,
    UsageError,
)
from services.experiment import Plan
from services.report import findings
from services.runs import LATEST, SUMMARY
from services.server import checkpoint, engines
from services.server.results import MODEL_SOURCE, RunFolder, outlived, plain, versions
from services.server.status import StatusServer
from services.server.trust import Trust
from services.server.view import View
from services.signals import until_stopped
from services.source import Source, read
from services.terminal import live
from services.terminal.picture import Picture
from services.transport.server import FAREWELL_TIMEOUT, ServerEndpoint

if TYPE_CHECKING:
    from services.server.federation import Federation

UNFINISHED = ("running", "stopped")
"""Status in `summary.json` of a run that can be resumed; one that is `running` although nobody holds it has died."""

LOOK = 1.0
"""Seconds between two looks at a run that is shown on the server's own terminal."""

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
        denylist: folder of the list of clients that may not take part.
        results: folder that receives the run's folder.
        models: folder of the file that `model.module` names.
        liveness_timeout: seconds after which a silent client is taken for gone.
        fresh: begin a new run although an unfinished one is there.
        linger: seconds that the status page stays after the run at most, while somebody has it open.
    """

    clients: int
    host: str
    port: int
    status_port: int
    certificate: Path
    key: Path
    ca: Path | None
    test: Path
    denylist: Path
    results: Path
    models: Path = Path("experiments")
    liveness_timeout: float = 20.0
    fresh: bool = False
    linger: float = 0.0


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
    source = None if plan.model.module is None else read(plan.model.module, options.models)
    trust = Trust(options.certificate, options.key, options.ca, options.denylist)
    complete = outlived(options.results)
    if complete is not None and not options.fresh:
        logger.warning("run %s is complete; its server was killed while somebody looked at its page", complete)
        return
    folder, resumed = open_folder(plan, options.results, source, fresh=options.fresh)
    logs.to_file(folder.path / "server.log")

    async def serve(board: live.Board | None) -> None:
        endpoint = ServerEndpoint(
            options.host,
            options.port,
            trust.context,
            liveness_timeout=options.liveness_timeout,
            denied=lambda: trust.denied,
        )
        run = Run(plan, options, manifest, endpoint, folder, source, resumed=resumed)
        beside = [asyncio.create_task(trust.watch(endpoint.enforce_denials))]
        if board is not None:
            beside.append(asyncio.create_task(_show(run.view, board)))
        try:
            await until_stopped(run.serve())
        finally:
            for task in beside:
                task.cancel()

    try:
        with live.board() as board:
            asyncio.run(serve(board))
    finally:
        folder.close()


@contextlib.contextmanager
def lean_collection() -> Iterator[None]:
    """Let the collector of garbage pass over all objects that there are now: a framework has hundreds of thousands.

    So it is quick to find the remains of connections, which are cycles; it would not look for them for minutes.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _show(view: View, board: live.Board) -> None:
    """Show on this terminal how the run stands. Never returns."""
    while True:
        board.show(Picture(plain(view.snapshot())))
        await asyncio.sleep(LOOK)


def open_folder(plan: Plan, results: Path, source: Source | None = None, *, fresh: bool) -> tuple[RunFolder, bool]:
    """Open the folder of the newest run when it is unfinished, else make a new one.

    Args:
        plan: what is asked now.
        results: the folder of all runs.
        source: the file that `model.module` names, as it is now.
        fresh: make a new one in any case.

    Returns:
        The folder, and whether its run is to be resumed.

    Raises:
        ConflictError: the unfinished run is one of another plan, or of another file that builds its model.
        StorageError: the folder can't be written.
    """
    latest = results / LATEST
    try:
        summary = json.loads((latest / SUMMARY).read_text(encoding="utf-8"))
        status, kept_sha256 = summary["status"], summary.get("model_sha256")
    except (OSError, ValueError, KeyError, TypeError):
        return RunFolder.create(results), False
    begun = any((latest / file).exists() for file in (checkpoint.FILE, checkpoint.LEDGER))
    if fresh or status not in UNFINISHED or not begun:
        return RunFolder.create(results), False
    path = latest.resolve()
    kept = experiment.load(path / "experiment.yml")
    differences = experiment.differences(kept, plan)
    if differences:
        raise ConflictError(
            f"run {path.name} is unfinished and was begun with {differences[0][0]}",
            f"{differences[0][1]} as asked now"
            + (f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""),
            f"finish it with its own plan ({path.parent.name}/{path.name}/experiment.yml),"
            " or begin anew with FRESH=1 (`fed server --fresh`)",
        )
    if source is not None and source.sha256 != kept_sha256:
        raise ConflictError(
            f"run {path.name} is unfinished and was begun with another {source.path.name}",
            "the same file: one that has changed is another experiment",
            f"put back that file ({path.parent.name}/{path.name}/{MODEL_SOURCE}),"
            " or begin anew with FRESH=1 (`fed server --fresh`)",
        )
    try:
        return RunFolder(path), True
    except StorageError:
        # another server is at work on it: this is a second run beside it
        return RunFolder.create(results), False


class Run:
    """One run: what `serve` shares with the status page."""

    def __init__(
        self,
        plan: Plan,
        options: ServerOptions,
        manifest: shards.Manifest,
        endpoint: ServerEndpoint,
        folder: RunFolder,
        source: Source | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self.plan = plan
        self.source = source
        self.options = options
        self.manifest = manifest
        self.endpoint = endpoint
        self.folder = folder
        self.resumed = resumed
        self.view = View(plan, endpoint, folder, manifest, options.clients)

    async def serve(self) -> None:
        """Listen, gather clients while the model's framework is imported, train, and write results whatever happens."""
        logs.about(run=self.folder.run_id)
        if not self.resumed:
            self.folder.write_plan(self.plan, self.source)
            self._write_summary("running", "")
            self.folder.publish()
        async with contextlib.AsyncExitStack() as stack:
            page = None
            try:
                if self.options.status_port:
                    page = StatusServer(self.options.host, self.options.status_port, self.view.snapshot, self._guess)
                    stack.push_async_callback(page.close)
                    page.start()
                await self._attend()
                await asyncio.to_thread(self._conclude, "completed", self._reason())
            except asyncio.CancelledError:
                await self._give_up("stopped", "stopped by a signal")
                raise
            except FedError as exc:
                await self._give_up("stopped" if isinstance(exc, QuorumError | StorageError) else "failed", str(exc))
                raise
            except BaseException as exc:
                await self._give_up("failed", logs.word(exc))
                raise
            if page is not None and page.readers and self.options.linger:
                logger.info("the status page stays while it is open, for at most %g s (LINGER)", self.options.linger)
                self.folder.linger()
                with contextlib.suppress(asyncio.CancelledError):  # the run is complete whatever ends the wait
                    await page.until_unwatched(self.options.linger)

    async def _attend(self) -> None:
        """Be there for clients, from the first that joins to the farewell."""
        await self.endpoint.start()
        try:
            try:
                await self._federate()
            finally:
                if self.view.federation is not None:
                    await self.view.federation.retire()
        except asyncio.CancelledError:
            await self._part("the run is stopped")
            raise
        except TrainingError as exc:
            await self.endpoint.tell(CancelTraining(str(exc)), FAREWELL_TIMEOUT)
            await self.endpoint.dismiss(str(exc), failed=True)
            raise
        else:
            await self._part("the run is completed")
        finally:
            await self.endpoint.stop()

    async def _guess(self, content: bytes) -> list[tuple[str, float]]:
        from services.server.guess import guess  # noqa: PLC0415 - imports what reads images, which few ask for

        federation = self.view.federation
        assert federation is not None  # noqa: S101 - a run that is completed has trained
        return await asyncio.to_thread(guess, content, federation.model, federation.held_out, self.manifest)

    def _reason(self) -> str:
        return "" if self.view.federation is None else self.view.federation.reason

    async def _federate(self) -> None:
        """Import the model's framework while clients arrive, gather them, and run the rounds."""
        await asyncio.to_thread(engines.of, self.plan)
        with lean_collection():
            # on the loop, not in a thread: Keras draws initial weights from global generators that others use too
            federation = self.view.federation = self._build()
            federation.attend()
            if self.resumed:
                await self._regather(federation)
            else:
                await self._gather()
            await federation.train()

    async def _part(self, reason: str) -> None:
        """Tell the clients that the run is over: those that listen by a message, those at work by closing on them."""
        if self.view.federation is not None:
            await self.view.federation.farewell()
        await self.endpoint.dismiss(reason)

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
                await hub.until_clients(there.__lt__, max(0.0, limits.join_grace - hub.since_last_join()))
            except TimeoutError:
                break
        logger.info("%d clients joined: %s", there, ", ".join(sorted(self.endpoint.client_names)))

    async def _regather(self, federation: Federation) -> None:
        """Wait for the clients of the run that is resumed; go on with fewer when some do not return in time."""
        hub, limits = self.endpoint.handler, self.plan.federation
        before = len(federation.attendance.seats) or self.options.clients
        line = (
            f"resuming run {self.folder.run_id} at round {federation.round + 1} of {self.plan.rounds};"
            f" waiting for its {before} clients"
        )
        self.folder.add_event(federation.round, "resumed", "", line=line, level=logging.INFO)
        try:
            await hub.until_clients(lambda count: count >= before, max(limits.rejoin_grace, limits.join_grace))
        except TimeoutError:
            logger.warning("%d of %d clients are back", len(self.endpoint.client_names), before)
        try:
            await hub.until_clients(lambda count: count >= limits.min_clients, limits.join_timeout)
        except TimeoutError:
            raise QuorumError(
                f"{len(self.endpoint.client_names)} clients came back within {limits.join_timeout:g} s",
                f"at least {limits.min_clients} (federation.min_clients)",
                "start clients and the server again: the run goes on where it stopped",
            ) from None

    def _build(self) -> Federation:
        """Build the model and what trains it, or take it up where an earlier process left it."""
        from services.server.evaluation import HeldOut  # noqa: PLC0415 - takes seconds, as clients arrive
        from services.server.federation import Federation  # noqa: PLC0415
        from services.server.model import build_model, build_optim  # noqa: PLC0415

        images, labels = shards.load_test(self.options.test)
        federation = Federation(
            self.plan,
            self.endpoint,
            build_model(self.plan, self.manifest.image_shape, len(self.manifest.classes), self.source),
            build_optim(self.plan),
            HeldOut(images, labels, len(self.manifest.classes), engines.of(self.plan)),
            self.manifest,
            self.folder,
        )
        if self.resumed:
            state = checkpoint.load(self.folder.path)
            if state is not None:
                federation.resume(state)
        return federation

    async def _give_up(self, status: str, reason: str) -> None:
        with contextlib.suppress(FedError):
            await asyncio.shield(asyncio.to_thread(self._conclude, status, reason))

    def _conclude(self, status: str, reason: str) -> None:
        """Write the model, the summary of what was learned, and the report."""
        federation = self.view.federation
        score = None
        if federation is not None and self.folder.rounds:
            federation.restore_best()
            score, mistakes = federation.held_out.review(federation.model)
            written = engines.of(self.plan)
            self.folder.write(written.file, written.dump(federation.model))
            self.folder.write(findings.CONFUSION, findings.dump_confusion(score.confusion, self.manifest.classes))
            self.folder.write(findings.MISTAKES, findings.dump_mistakes(mistakes))
            deals = {size: self.manifest.cuts[size].seats for size in self._sizes()}
            if deals:
                self.folder.write(distribution.TABLE, distribution.dump(deals, self.manifest.classes))
        self._write_summary(status, reason, score)
        # in this order: who looks on takes what is told of a run that is over for the last word
        self.view.score, self.view.outcome = score, (status, reason)
        if score is not None and status == "completed":
            logger.info(
                "completed %d rounds in %.0f s with %d clients: test accuracy %.4f",
                len(self.folder.rounds),
                self.folder.elapsed(),
                self.folder.rounds[-1].clients,
                score.accuracy,
            )
        self._report()
        if federation is not None and score is not None:
            drawn = (self.folder.path / "confusion.png", self.folder.path / "mistakes.png")
            pictures = {path.stem: path.read_bytes() for path in drawn if path.exists()}
            federation.board.conclude(federation.round, score, pictures, completed=status == "completed")
        logger.info("results are in %s", self.folder.label, extra={"event": status})

    def _sizes(self) -> list[int]:
        """List the numbers of clients that the data set was dealt to, in order."""
        return [size for size in dict.fromkeys(each.size for each in self.folder.rounds) if size in self.manifest.cuts]

    def _report(self) -> None:
        """Make the page and the pictures of the run; without them it is still the run that it was."""
        try:
            from services.report import main as report  # noqa: PLC0415 - imports what draws, which nobody waits for

            report.write(self.folder.path)
        except FedError as exc:
            logger.warning("there is no report: %s", exc)
        except Exception as exc:  # noqa: BLE001 - a mistake in the report must not cost a run
            logger.warning("there is no report: %s", logs.unforeseen(exc))

    def _write_summary(self, status: str, reason: str, score: Any = None) -> None:
        last = self.folder.rounds[-1] if self.folder.rounds else None
        private = None if self.view.federation is None else self.view.federation.private
        self.folder.write_summary(
            {
                "run_id": self.folder.run_id,
                "status": status,
                "reason": reason,
                "rounds": len(self.folder.rounds),
                "rounds_planned": self.plan.rounds,
                "clients": self.options.clients if last is None else last.clients,
                "clients_wanted": self.options.clients,
                "scheme": self.manifest.scheme,
                "seed": self.plan.seed,
                "dataset": self.manifest.dataset,
                "image_shape": self.manifest.image_shape,
                "classes": self.manifest.classes,
                "data_sha256": self.manifest.data_sha256,
                "model_sha256": None if self.source is None else self.source.sha256,
                "model_round": None if self.view.federation is None else self.view.federation.best_round,
                "test_accuracy": None if score is None else score.accuracy,
                "test_loss": None if score is None else score.loss,
                "privacy": None if private is None else private.summary(),
                "wall_s": round(self.folder.elapsed(), 3),
                "versions": versions(),
                "experiment": json.loads(self.plan.model_dump_json()),
            }
        )
