"""`fed demo` as far as no training is needed: what it starts, and what becomes of a failure."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from services import demo, experiment
from services.demo import DemoError
from services.errors import StoppedError
from services.experiment import Plan
from services.paths import Paths
from tests.support import RAW, deadline
from tests.terminal.stage import Screen, surroundings

SLEEP = "import time; time.sleep(600)"

Process = subprocess.Popen[bytes]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A root with the real data set, and a temporary folder that the test can look into."""
    (tmp_path / "root" / "data").mkdir(parents=True)
    (tmp_path / "root" / "data" / "mnist_raw").symlink_to(RAW)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Paths(tmp_path / "root")


class Stage:
    """Starts small programs in place of the roles, and keeps what they were given.

    Args:
        programs: Python code by role, or by the number of the start; what is missing ends at once with code 0.
    """

    def __init__(self, programs: Mapping[str | int, str]) -> None:
        self.programs = programs
        self.words: list[tuple[str, ...]] = []
        self.env: dict[str, str] = {}
        self.plan: Plan | None = None
        self.processes: list[tuple[str, Process]] = []

    def __call__(self, env: Mapping[str, str], *words: str) -> Process:
        self.words.append(words)
        self.env = dict(env)
        self.plan = experiment.load(Path(env["EXPERIMENT"]))
        code = self.programs.get(len(self.processes), self.programs.get(words[0], ""))
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        self.processes.append((words[0], process))
        return process

    @property
    def codes(self) -> list[tuple[str, int | None]]:
        """Role and exit code of each process, None where it still runs."""
        return [(role, process.poll()) for role, process in self.processes]


def test_processes_are_given_the_plan_and_one_another(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Init, a server and the clients asked for are told of one folder and one port, and of nothing that would overrule
    the plan.
    """
    stage = Stage({})
    monkeypatch.setattr(demo, "_start", stage)
    plan = Plan(seed=3, rounds=7)
    demo.run(plan, 2, paths, Path("models"))
    root = Path(stage.env["FED_ROOT"])
    certs = root / "certs"
    assert stage.words == [
        ("init",),
        ("server", "--certificate", f"{certs}/server-cert.pem", "--private-key", f"{certs}/server-pkey.pem"),
        ("client", "--ca-cert", f"{certs}/ca-cert.pem", "--quiet"),
        ("client", "--ca-cert", f"{certs}/ca-cert.pem", "--quiet"),
    ]
    assert stage.plan == plan
    assert stage.env == {
        "FED_ROOT": str(root),
        "EXPERIMENT": f"{root}/experiment.yml",
        "CLIENTS": "2",
        "MAX_CLIENTS": "2",
        "PORT": stage.env["PORT"],
        "STATUS_PORT": "0",
        "DATA": "",
        "MODELS": str(Path("models").resolve()),
        "SERVER_URI": f"wss://localhost:{stage.env['PORT']}",
        "SCHEME": "",
        "SEED": "",
        "ROUNDS": "",
        "SET": "",
        "HOST": "",
        "CLIENT_NAME": "",
    }
    assert not root.exists()
    assert paths.results.is_dir()


def test_a_folder_of_the_callers_is_kept(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was prepared in a folder that was given is there for the next run; a new run may be asked for."""
    stage = Stage({})
    monkeypatch.setattr(demo, "_start", stage)
    root = tmp_path / "kept"
    demo.run(Plan(), 1, paths, Path("models"), root=root, fresh=True)
    assert (stage.env["FED_ROOT"], stage.env["FRESH"]) == (str(root), "1")
    (root / "data" / "shards").mkdir()
    demo.run(Plan(seed=1), 1, paths, Path("models"), root=root, fresh=False)
    assert (stage.env["FED_ROOT"], stage.env["FRESH"]) == (str(root), "0")
    assert stage.plan == Plan(seed=1)
    assert (root / "data" / "shards").is_dir()
    assert (root / "results").resolve() == paths.results.resolve()


def test_a_plan_that_cannot_be_dealt_ends_with_inits_code(
    paths: Paths, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Scheme labels has no class for an eleventh client: the real init refuses, and only empty results are left."""
    with pytest.raises(DemoError) as caught:
        demo.run(Plan.model_validate({"data": {"scheme": "labels"}}), 11, paths, Path("models"))
    assert str(caught.value) == "init ended with code 2; see the lines of init above"
    assert caught.value.exit_code == 2
    assert capfd.readouterr().err == (
        "fed init: error: CLIENTS is 11 and the scheme is labels; wanted at most 10 clients, one for each class of"
        " images; lower CLIENTS, or choose another scheme\n"
    )
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list(paths.results.iterdir()) == []


@pytest.mark.parametrize("role", ["init", "server"])
@pytest.mark.parametrize(("end", "code"), [("raise SystemExit(8)", 8), ("import os; os.kill(os.getpid(), 9)", 1)])
def test_the_code_of_who_failed_is_the_demos(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, role: str, end: str, code: int
) -> None:
    """The demo ends with the code of init or of the server, and with 1 where a signal killed it; nobody runs on."""
    stage = Stage({role: end})
    monkeypatch.setattr(demo, "_start", stage)
    with pytest.raises(DemoError) as caught:
        demo.run(Plan(), 2, paths, Path("models"))
    found = code if code != 1 else -signal.SIGKILL
    assert str(caught.value) == f"{role} ended with code {found}; see the lines of {role} above"
    assert caught.value.exit_code == code
    assert None not in dict(stage.codes).values()


def test_a_client_that_outlives_the_server_is_ended(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that still runs long after the run is complete is ended with a warning; the demo succeeds."""
    stage = Stage({"client": SLEEP})
    monkeypatch.setattr(demo, "_start", stage)
    monkeypatch.setattr(demo, "CLIENT_PATIENCE", 0.01)
    with caplog.at_level(logging.WARNING):
        demo.run(Plan(), 1, paths, Path("models"))
    assert caplog.messages == ["a client did not end with the server; it is ended now"]
    assert stage.codes == [("init", 0), ("server", 0), ("client", -signal.SIGTERM)]


STOP = """
import os, signal, time

def again(*_):
    os.kill(os.getppid(), signal.SIGINT)
    raise SystemExit(3)

signal.signal(signal.SIGTERM, again)
os.kill(os.getppid(), {number})
time.sleep(600)
"""
"""Tells the demo to stop, and once more when it is ended for that."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("position", [0, 3], ids=["while init runs", "while all run"])
def test_a_signal_ends_everybody(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, position: int, number: signal.Signals
) -> None:
    """Told to stop, even twice, the demo ends all it has started, and signals then do what they did before."""
    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    stage = Stage({"server": SLEEP, "client": SLEEP, position: STOP.format(number=int(number))})
    monkeypatch.setattr(demo, "_start", stage)
    with pytest.raises(StoppedError) as caught:
        demo.run(Plan(), 2, paths, Path("models"))
    assert str(caught.value) == f"stopped by {number.name}"
    ended = [("init", 0), ("server", -signal.SIGTERM), ("client", -signal.SIGTERM)]
    assert stage.codes == [*ended[:position], ("init" if position == 0 else "client", 3)]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


def test_a_signal_amid_a_start_waits_for_it() -> None:
    """A signal that comes while a process is being started is raised once that is known, so that it is ended too."""
    stops = demo.Stops()
    started = []

    def start() -> None:
        with stops.held():
            stops.stop(signal.SIGTERM)
            started.append("server")

    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        start()
    assert started == ["server"]
    with pytest.raises(StoppedError, match="stopped by SIGINT"):
        stops.stop(signal.SIGINT)


SERVER = """
import asyncio, os, sys
from services.server.status import StatusServer
from tests.server.page.test_render import state

async def serve():
    told = state(phase="gathering")
    server = StatusServer("127.0.0.1", int(os.environ["STATUS_PORT"]), lambda: told)
    server.start()
    await asyncio.to_thread(print, "06:40:16 server: listening", file=sys.stderr)
    for phase in ("training", "evaluating", "completed"):
        await asyncio.to_thread(sys.stdin.readline)
        told |= {"phase": phase}
        print(f"06:40:17 server: {phase}", file=sys.stderr)
    await server.close()

asyncio.run(serve())
"""
"""Stands for the server: its page tells of a run that goes on with each line that is typed."""

DEMO = """
import os, subprocess, sys
from pathlib import Path
from services import demo, logs
from services.experiment import Plan
from services.paths import Paths

MADE = "import os, sys; os.write(2, f'06:40:15 {sys.argv[1]}: made\\\\n'.encode())"

def start(env, *words):
    command = [sys.executable, "-c", sys.argv[2] if words[0] == "server" else MADE, words[0]]
    return subprocess.Popen(command, env=os.environ | dict(env), start_new_session=True)

logs.configure("demo")
demo._start = start
demo.run(Plan(), 2, Paths(Path(sys.argv[1])), Path("models"), status_port=demo._free_port())
"""


def test_a_terminal_shows_the_run_below_the_lines(paths: Paths) -> None:
    """On a terminal the state of the run stands below everybody's lines, and goes with its end; lines stay."""
    with Screen([sys.executable, "-c", DEMO, str(paths.root), SERVER]) as screen:
        lines = ("server: listening", "client: made", "2 clients are at work")
        text = screen.until("Waiting for clients", "client_0", *lines)
        assert text.index("server: listening") < text.index("Waiting for clients") < text.index("client_0")
        for phase, words in (("training", "Training · round 2 of 5"), ("evaluating", "Evaluating · round 2 of 5")):
            screen.type("\n")
            text = screen.until(f"server: {phase}", words, "rounds ")  # not amid a redrawing
            assert text.count("rounds ") == 1
        screen.type("\n")
        assert screen.end() == 0
        left = screen.text.splitlines()
        assert left[-1] == "06:40:17 server: completed"
        assert [line for line in left if not re.match(r"\d\d:\d\d:\d\d \w+: ", line)] == []


def test_a_pipe_gets_the_lines_as_they_are(paths: Paths) -> None:
    """In a pipe there is nothing but everybody's lines."""
    server = "import os; os.write(2, b'06:40:16 server: done\\n')"
    done = subprocess.run(
        [sys.executable, "-c", DEMO, str(paths.root), server],
        capture_output=True,
        text=True,
        check=True,
        env=surroundings(FORCE_COLOR="1"),
        timeout=deadline(60),
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if not re.fullmatch(r"\d\d:\d\d:\d\d \w+: [^\x1b]*", line)] == []
