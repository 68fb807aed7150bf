"""`fed demo`: the whole federation on this machine, as processes, without Docker.

The same command and the same files as in the containers: `fed init`, then `fed server` and `fed client` side by side.
Data and identities are prepared in a folder that goes away with the run; results stay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.text import Text

from services import experiment
from services.errors import FedError, StoppedError
from services.paths import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, Paths
from services.terminal import feed, live
from services.terminal.picture import Picture

CLIENT_PATIENCE = 30.0
"""Seconds that clients have to end once the server has."""

START = 600.0
"""Seconds that data, identities and the server's imports may take before anything of the run can be shown."""

logger = logging.getLogger("fed.demo")


class DemoError(FedError):
    """The server ended with an error; its own line says which, and this ends with its code."""

    def __init__(self, role: str, code: int) -> None:
        super().__init__(f"{role} ended with code {code}", "", f"see the lines of {role} above")
        self.exit_code = code if code > 0 else FedError.exit_code


def run(
    plan: experiment.Plan,
    clients: int,
    paths: Paths,
    models: Path,
    *,
    root: Path | None = None,
    fresh: bool | None = None,
    status_port: int | None = None,
) -> None:
    """Train `plan` with `clients` client processes and one server process.

    Args:
        plan: what to train.
        clients: number of client processes.
        paths: of them `raw`, `data` and `results` count here.
        models: folder of the file that `model.module` names.
        root: folder for data and identities, whose keep is the caller's; None for one that goes away with the run.
        fresh: begin a new run although an unfinished one is there; None as the environment says.
        status_port: of the status page, or any free port where another program has it; None is no page.

    Raises:
        FedError: a process ended with an error; the exit code is that process's.
        StoppedError: a signal ended the demo.
    """
    with contextlib.ExitStack() as stack:
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fed-demo-")))
        stops = stack.enter_context(stoppable())
        (root / "data").mkdir(parents=True, exist_ok=True)
        paths.results.mkdir(parents=True, exist_ok=True)
        for link, target in ((root / "data" / "mnist_raw", paths.raw), (root / "results", paths.results)):
            if not link.is_symlink():
                link.symlink_to(target.resolve())
        (root / "experiment.yml").write_text(experiment.dump(plan), encoding="utf-8")
        port = _free_port()
        page = _free_port(status_port) if status_port else 0
        env = {
            "FED_ROOT": str(root),
            "EXPERIMENT": str(root / "experiment.yml"),
            "CLIENTS": str(clients),
            "MAX_CLIENTS": str(clients),
            "PORT": str(port),
            "STATUS_PORT": str(page),
            "SERVER_URI": f"wss://localhost:{port}",
            # what these say is in the plan already, where a flag may have had the last word
            "SCHEME": "",
            "SEED": "",
            "ROUNDS": "",
            "SET": "",
            "HOST": "",
            "CLIENT_NAME": "",
            "DATA": "" if paths.data is None else str(paths.data.resolve()),
            "MODELS": str(models.resolve()),
        }
        if fresh is not None:
            env["FRESH"] = str(int(fresh))
        with live.board() as board:
            if board is not None and page:
                threading.Thread(target=_show, args=(board, f"http://127.0.0.1:{page}"), daemon=True).start()
            _federate(env, clients, Paths(root), stops)


def _show(board: live.Board, url: str) -> None:
    """Show on this terminal how the run stands, from before its server is there until it is gone."""
    board.show(Text("setting up …", "dim"))
    state: feed.State = {}
    with contextlib.suppress(FedError):
        for news in feed.lasting(url, first=START):
            state = state if isinstance(news, str) else news
            board.show(Picture(state, news if isinstance(news, str) else ""))


def _federate(env: Mapping[str, str], clients: int, paths: Paths, stops: Stops) -> None:
    certs = paths.certs
    ca = str(certs / CA_CERTIFICATE)
    identity = ("--certificate", str(certs / SERVER_CERTIFICATE), "--private-key", str(certs / SERVER_KEY))
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        with stops.held():
            processes.append(_start(env, *words))
        return processes[-1]

    try:
        code = start("init").wait()
        if code:
            raise DemoError("init", code)
        server = start("server", *identity)
        for _ in range(clients):
            start("client", "--ca-cert", ca, "--quiet")
        logger.info("a server and %d clients are at work", clients)
        if env["STATUS_PORT"] != "0":
            logger.info("status page: http://127.0.0.1:%s", env["STATUS_PORT"])
        code = server.wait()
        for process in processes:
            process.wait(CLIENT_PATIENCE if code == 0 else 5.0)
        if code:
            raise DemoError("server", code)
    except subprocess.TimeoutExpired:
        if code:
            raise DemoError("server", code) from None
        logger.warning("a client did not end with the server; it is ended now")
    finally:
        _end(processes)


def _start(env: Mapping[str, str], *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services", *words]
    # a group of its own, so that Ctrl-C reaches the demo alone, which then ends everybody in order
    return subprocess.Popen(command, env=os.environ | env, start_new_session=True)  # noqa: S603 - our own command


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what still runs: ask first, insist after ten seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Stops:
    """Signals that ask to stop: raised at once, or, amid the start of a process, when it is known whom to end."""

    def __init__(self) -> None:
        self._holding = False
        self._pending: StoppedError | None = None

    def stop(self, number: int) -> None:
        """Take note of a signal."""
        error = StoppedError(f"stopped by {signal.Signals(number).name}")
        if not self._holding:
            raise error
        self._pending = error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold a signal back until the block is done."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending is not None:
            raise self._pending


@contextlib.contextmanager
def stoppable() -> Iterator[Stops]:
    """Turn the first SIGTERM or Ctrl-C into a `StoppedError`, so that what was started is ended; ignore the next."""
    stops = Stops()

    def stop(number: int, _: object) -> None:
        for other in kept:
            signal.signal(other, signal.SIG_IGN)
        stops.stop(number)

    kept = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stops
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _free_port(wanted: int = 0) -> int:
    """Find a free port: the one wanted, or any where that is taken."""
    try:
        with socket.create_server(("localhost", wanted)) as listener:
            return int(listener.getsockname()[1])
    except OSError:
        return _free_port()
