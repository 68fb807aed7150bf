"""The command `fed`: what it takes, what it hands on, how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import services.client.main
import services.compare
import services.demo
import services.init.folders
import services.init.identities
import services.init.main
import services.predict
import services.report.main
import services.server.main
import services.sweep
import services.terminal.status
from services import cli, experiment, settings
from services.client.main import ClientOptions
from services.errors import DataError, QuorumError, RefusedError, StoppedError
from services.experiment import Plan
from services.paths import Paths
from services.server.main import ServerOptions
from services.settings import Settings
from services.transport.client import Route
from tests.kit.conftest import Operator
from tests.support import REPOSITORY, logging_kept

COMMANDS = (
    "init", "data", "certs", "server", "client", "demo", "check", "sweep", "status", "compare", "report", "predict",
    "kit",
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, in an environment that sets nothing of ours."""
    source = Path(settings.__file__).read_text(encoding="utf-8")
    for key in re.findall(r'\(env, "([A-Z_]+)"', source):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(tmp_path)
    with logging_kept():
        yield tmp_path


class Recorder:
    """Stands for a function of a role's, and keeps what it was called with."""

    def __init__(self, outcome: BaseException | None = None) -> None:
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.outcome = outcome
        self.answer: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        if self.outcome is not None:
            raise self.outcome
        return self.answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, here: Path) -> Recorder:
    """Record what the server is started with; there is an experiment file."""
    (here / "experiment.yml").write_text("rounds: 2\nseed: 1\n")
    recorder = Recorder()
    monkeypatch.setattr(services.server.main, "run", recorder)
    return recorder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Record what the client is started with."""
    recorder = Recorder()
    monkeypatch.setattr(services.client.main, "run", recorder)
    return recorder


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    """`fed --help` names each command, exactly once, and ends with code 0."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    assert tuple(re.findall(r"^    (\w+) +[A-Z]", capfd.readouterr().out, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Help says what the command does and describes each argument, and shows no default of nothing."""
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    text = capfd.readouterr().out
    assert text.startswith(f"usage: fed {command} [-h]")
    assert not re.search(r"default: *(None|False|True|\[\])", text)
    assert text.count("(default: ") == len(re.findall(r"\(default: [^)]+\)(?! *\(default)", text))
    described = re.split(r"^options:$", text, flags=re.MULTILINE)[1]
    bare = re.findall(r"^  (--?[\w-]+(?: [A-Z_]+)?)$(?!\n {10,})", described, re.MULTILINE)
    assert bare == []


def test_version_is_the_packages(capfd: pytest.CaptureFixture[str]) -> None:
    """`fed --version` tells the version of the package."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capfd.readouterr().out == f"fed {services.__version__}\n"


def test_the_module_is_the_command() -> None:
    """`python -m services` is `fed`, with its exit codes."""
    right = subprocess.run([sys.executable, "-m", "services", "--version"], capture_output=True, text=True, check=False)
    assert (right.returncode, right.stdout, right.stderr) == (0, f"fed {services.__version__}\n", "")
    wrong = subprocess.run([sys.executable, "-m", "services", "check"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (
        2,
        "",
        (
            "fed check: error: experiment.yml: can't be read (No such file or directory);"
            " wanted an experiment file in YAML; set EXPERIMENT to the path of one\n"
        ),
    )


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "fed: error: the following arguments are required: COMMAND; see `fed --help`"),
        (
            ["serve"],
            (
                "fed: error: argument COMMAND: invalid choice: 'serve' (choose from 'init', 'data', 'certs', 'server',"
                " 'client', 'demo', 'check', 'sweep', 'status', 'compare', 'report', 'predict', 'kit');"
                " see `fed --help`"
            ),
        ),
        (["check", "--fast"], "fed: error: unrecognized arguments: --fast; see `fed --help`"),
        (["server", "3", "--cert", "x"], "fed: error: unrecognized arguments: --cert x; see `fed --help`"),
        (["data"], "fed: error: the following arguments are required: N; see `fed data --help`"),
        (
            ["data", "0"],
            "fed: error: argument N: '0' is no whole number from 1 to 128; see `fed data --help`",
        ),
        (
            ["data", "three"],
            "fed: error: argument N: 'three' is no whole number from 1 to 128; see `fed data --help`",
        ),
        (
            ["data", "3", "--seed", "-1"],
            "fed: error: argument --seed: '-1' is no whole number from 0 to 4294967295; see `fed data --help`",
        ),
        (
            ["data", "3", "--scheme", "idd"],
            (
                "fed: error: argument --scheme: invalid choice: 'idd' (choose from 'iid', 'labels', 'biased',"
                " 'dirichlet', 'shards'); see `fed data --help`"
            ),
        ),
        (
            ["certs", "--clients", "129"],
            "fed: error: argument --clients: '129' is no whole number from 1 to 128; see `fed certs --help`",
        ),
        (
            ["server", "3", "--port", "99999"],
            "fed: error: argument --port: '99999' is no whole number from 0 to 65535; see `fed server --help`",
        ),
        (
            ["server", "3", "--status-port", "-2"],
            "fed: error: argument --status-port: '-2' is no whole number from 0 to 65535; see `fed server --help`",
        ),
        (
            ["server", "0"],
            "fed: error: argument N: '0' is no whole number from 1 to 128; see `fed server --help`",
        ),
        (
            ["demo", "--clients", "33"],
            (
                "fed demo: error: CLIENTS is 33; wanted a whole number from 1 to MAX_CLIENTS (32);"
                " change CLIENTS, or raise MAX_CLIENTS, in .env"
            ),
        ),
        (
            ["client", "client_0"],
            "fed client: error: NAME is 'client_0' without FOLDER; wanted NAME and FOLDER, or neither; add FOLDER",
        ),
        (
            ["check", "nowhere.yml"],
            (
                "fed check: error: nowhere.yml: can't be read (No such file or directory);"
                " wanted an experiment file in YAML; set EXPERIMENT to the path of one"
            ),
        ),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    here: Path, capfd: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    """A mistake on the command line is one line that says where to look, nothing else, and leaves nothing behind."""
    assert cli.main(words) == 2
    assert capfd.readouterr() == ("", line + "\n")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["init", "server", "client", "demo", "check"])
def test_a_wrong_setting_is_one_line_and_code_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever command reads the settings, a wrong one is named with its range."""
    monkeypatch.setenv("CLIENTS", "0")
    assert cli.main([command]) == 2
    assert capfd.readouterr() == (
        "",
        (
            f"fed {command}: error: CLIENTS is '0'; wanted a whole number of at least 1;"
            " change CLIENTS in .env or in the environment\n"
        ),
    )


@pytest.mark.parametrize("outcome", [DataError("x is damaged", "x", "mend it"), QuorumError("2 of 3 clients joined")])
def test_a_failure_is_one_line_and_its_code(
    server: Recorder, capfd: pytest.CaptureFixture[str], outcome: DataError | QuorumError
) -> None:
    """What a role raises is one line on standard error, and its code is the command's."""
    server.outcome = outcome
    assert cli.main(["server", "3"]) == outcome.exit_code
    assert capfd.readouterr() == ("", f"fed server: error: {outcome}\n")


def test_being_stopped_is_a_clients_right(
    server: Recorder, client: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client that is told to stop ends with 0, a server with the code of a run that is not complete."""
    server.outcome = client.outcome = StoppedError("stopped by SIGTERM")
    assert (cli.main(["client"]), cli.main(["server"])) == (0, 11)
    assert capfd.readouterr().err == "fed client: stopped by SIGTERM\nfed server: stopped by SIGTERM\n"


@pytest.mark.parametrize(
    ("words", "environment", "taken"),
    [
        ([], {}, (50_000_000, True)),
        (["--max-parameters", "1000"], {"MAX_PARAMETERS": "7"}, (1000, True)),
        (["--no-share-metrics"], {"SHARE_METRICS": "1", "MAX_PARAMETERS": "7"}, (7, False)),
        ([], {"SHARE_METRICS": "0"}, (50_000_000, False)),
    ],
)
def test_what_a_client_accepts_and_tells_is_its_own_setting(
    client: Recorder, monkeypatch: pytest.MonkeyPatch, words: list[str], environment: dict[str, str], taken: Any
) -> None:
    """A client's limits come from its own flags, or its own environment."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert cli.main(["client", *words]) == 0
    (options,) = client.args
    assert (options.max_parameters, options.share_metrics) == taken


def test_a_refused_client_ends_with_the_code_of_refusal(client: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    """A refusal is no success, though the client is not to blame."""
    client.outcome = RefusedError("the server refused client_0: no")
    assert cli.main(["client"]) == 9
    assert capfd.readouterr().err == "fed client: error: the server refused client_0: no\n"


def test_a_bug_is_one_line_and_code_1(server: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw is one line that asks for a report, never a traceback."""
    server.outcome = ZeroDivisionError("by zero")
    assert cli.main(["server", "3"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"fed server: unforeseen ZeroDivisionError at test_cli\.py:\d+: by zero; this is a bug, please report it\n", err
    )


def test_ctrl_c_is_no_bug(server: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C outside an event loop ends with the code of a stopped run, without a traceback."""
    server.outcome = KeyboardInterrupt()
    assert cli.main(["server", "3"]) == 11
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_no_bug(here: Path) -> None:
    """Output into a closed pipe ends without a traceback, with buffered output too."""
    (here / "experiment.yml").touch()
    reader, writer = os.pipe()
    os.close(reader)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        [sys.executable, "-m", "services", "check"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_errors_have_the_form_of_the_lines(
    server: Recorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With LOG_FORMAT=json every way to end is an object: mistake, failure, stop and bug."""
    monkeypatch.setenv("LOG_FORMAT", "json")
    ends = [DataError("x is damaged"), StoppedError("stopped by SIGTERM"), ZeroDivisionError("by zero")]
    for server.outcome in ends:
        cli.main(["server", "3"])
    assert cli.main(["serve"]) == 2
    monkeypatch.setenv("CLIENTS", "0")
    assert cli.main(["server"]) == 2
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["role"], line["level"], line["message"].split(" at ")[0].split(";")[0]) for line in lines] == [
        ("server", "error", "x is damaged"),
        ("server", "warning", "stopped by SIGTERM"),
        ("server", "critical", "unforeseen ZeroDivisionError"),
        ("fed", "error", lines[3]["message"].split(";")[0]),
        ("server", "error", "CLIENTS is '0'"),
    ]
    assert lines[3]["message"].startswith("argument COMMAND: invalid choice: 'serve'")


def test_a_format_of_lines_that_is_none_is_a_mistake(
    server: Recorder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wrong LOG_FORMAT is named in plain text, and nothing is started."""
    monkeypatch.setenv("LOG_FORMAT", "xml")
    assert cli.main(["server"]) == 2
    assert capfd.readouterr().err == (
        "fed: error: LOG_FORMAT is 'xml'; wanted text or json; change LOG_FORMAT in .env or in the environment\n"
    )
    assert server.args == ()


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_prints_a_plan_that_reads_back(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`fed check FILE` prints the resolved plan as a file that is the same plan."""
    path = REPOSITORY / "experiments" / "declearn-example.yml"
    assert cli.main(["check", str(path)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    (here / "printed.yml").write_text(out)
    assert experiment.load(here / "printed.yml") == experiment.load(path)


def test_check_looks_at_the_file_of_a_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file that `model.module` names is read where its folder is there; where it isn't, that is said."""
    (here / "own.yml").write_text("model: {module: own.py:build}", encoding="utf-8")
    assert cli.main(["check", "own.yml"]) == 0
    out, err = capfd.readouterr()
    assert "module: own.py:build" in out
    assert (
        err == "fed check: note: model.module own.py:build is not looked at: there is no folder experiments (MODELS)\n"
    )
    (here / "models").mkdir()
    monkeypatch.setenv("MODELS", "models")
    assert cli.main(["check", "own.yml"]) == 2
    assert capfd.readouterr().err.startswith(
        "fed check: error: model.module is 'own.py:build', and models/own.py can't"
    )
    (here / "models" / "own.py").write_text("def build(image_shape, classes): ...", encoding="utf-8")
    assert cli.main(["check", "own.yml"]) == 0
    assert capfd.readouterr().err == ""


def test_check_takes_file_and_overrides_from_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without FILE, EXPERIMENT names it; SCHEME, SEED and ROUNDS win over what it says."""
    (here / "mine.yml").write_text("rounds: 2\n")
    for key, value in {"EXPERIMENT": "mine.yml", "SCHEME": "labels", "SEED": "4", "ROUNDS": "7"}.items():
        monkeypatch.setenv(key, value)
    assert cli.main(["check"]) == 0
    (here / "printed.yml").write_text(capfd.readouterr().out)
    plan = experiment.load(here / "printed.yml")
    assert (plan.rounds, plan.seed, plan.data.scheme) == (7, 4, "labels")


# -- what is handed on ------------------------------------------------------------------------------------------------


def test_data_takes_what_prepare_data_takes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fed data N` cuts ./data/mnist_raw by scheme iid with a drawn seed, as declearn's prepare_data.py does."""
    recorder = Recorder(DataError("enough"))
    monkeypatch.setattr(services.init.folders, "write_folders", recorder)
    assert cli.main(["data", "3"]) == DataError.exit_code
    assert (recorder.args, recorder.kwargs) == ((Path("data/mnist_raw"), Path("data"), 3, "iid", None), {})
    assert cli.main(["data", "5", "--scheme", "biased", "--seed", "9", "--folder", str(here)]) == DataError.exit_code
    assert recorder.args == (here / "mnist_raw", here, 5, "biased", 9)


def test_data_writes_the_folders(small: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    """`fed data` leaves the arrays of each client where declearn's example looks for them, and tells the seed."""
    folder = small.raw.parent
    assert cli.main(["data", "2", "--seed", "3", "--folder", str(folder)]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == f"{folder}/mnist_iid: 2 clients, seed 3"
    arrays = ["train_data.npy", "train_target.npy", "valid_data.npy", "valid_target.npy"]
    for number in range(2):
        assert sorted(path.name for path in (folder / "mnist_iid" / f"client_{number}").iterdir()) == arrays


def test_certs_writes_what_generate_ssl_writes(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`fed certs` writes declearn's three files, adds client identities, and says what it did and kept."""
    assert cli.main(["certs", "--clients", "2", "--name", "hospital"]) == 0
    assert {path.name for path in (here / "certs").glob("*.pem")} == {
        "ca-cert.pem",
        "server-cert.pem",
        "server-pkey.pem",
    }
    assert {path.name for path in (here / "certs" / "clients").glob("*-cert.pem")} == {
        "ca-cert.pem",
        "client_0-cert.pem",
        "client_1-cert.pem",
        "hospital-cert.pem",
    }
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC\n"
    assert re.fullmatch(rf"certs: 4 identities issued, 0 kept; the first expires on {date}", capfd.readouterr().out)
    assert cli.main(["certs", "--clients", "2", "--name", "hospital"]) == 0
    assert re.fullmatch(rf"certs: 0 identities issued, 4 kept; the first expires on {date}", capfd.readouterr().out)


def test_server_takes_what_run_server_takes(server: Recorder) -> None:
    """`fed server N` listens on localhost:8765 with the certificate and key in certs/, as declearn's run_server.py."""
    assert cli.main(["server", "4"]) == 0
    plan, options = server.args
    assert plan == Plan(rounds=2, seed=1)
    assert options == ServerOptions(
        clients=4,
        host="localhost",
        port=8765,
        status_port=8000,
        certificate=Path("certs/server-cert.pem"),
        key=Path("certs/server-pkey.pem"),
        ca=Path("certs/ca-cert.pem"),
        test=Path("data/test"),
        denylist=Path("certs/denylist"),
        results=Path("results"),
        linger=600.0,
    )


def test_server_takes_its_flags(server: Recorder) -> None:
    """Each flag of `fed server` reaches the server; the CA stands beside the certificate unless told otherwise."""
    words = ["--certificate", "x/c.pem", "--private-key", "y/k.pem", "--host", "::1", "--port", "0"]
    assert cli.main(["server", *words, "--status-port", "0", "--rounds", "1"]) == 0
    plan, options = server.args
    assert plan.rounds == 1
    assert (options.clients, options.certificate, options.key) == (3, Path("x/c.pem"), Path("y/k.pem"))
    assert (options.ca, options.host, options.port, options.status_port) == (Path("x/ca-cert.pem"), "::1", 0, 0)
    assert cli.main(["server", "--ca-cert", "z.pem"]) == 0
    assert server.args[1].ca == Path("z.pem")
    assert cli.main(["server", "--no-client-auth"]) == 0
    assert server.args[1].ca is None


def test_client_takes_what_run_client_takes(client: Recorder) -> None:
    """`fed client NAME FOLDER` trains on FOLDER/NAME and dials wss://localhost:8765, as declearn's run_client.py."""
    assert cli.main(["client", "client_0", "data/mnist_iid"]) == 0
    assert client.args == (
        ClientOptions(
            server_uri="wss://localhost:8765",
            identities=Path("certs/clients"),
            shards=Path("data/shards"),
            ca=None,
            name="client_0",
            own_data=Path("data/mnist_iid/client_0"),
            timeout=120.0,
            anonymous=False,
        ),
    )


def test_client_takes_its_flags(here: Path, client: Recorder) -> None:
    """Each flag of `fed client` reaches the client; without NAME it is dealt its data."""
    (here / "ca.pem").touch()
    assert cli.main(["client", "--serv-uri", "wss://h:1", "--ca-cert", "ca.pem", "--no-client-auth", "--quiet"]) == 0
    options = client.args[0]
    assert (options.server_uri, options.ca, options.anonymous) == ("wss://h:1", Path("ca.pem"), True)
    assert (options.name, options.own_data, options.identities) == (None, None, Path("clients"))
    assert cli.main(["client", "--identities", "elsewhere"]) == 0
    assert client.args[0].identities == Path("elsewhere")


def test_a_container_is_told_by_its_environment(
    server: Recorder, client: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no arguments, as in a container, server and client take everything from the environment."""
    pairs = {
        "CLIENTS": "5",
        "HOST": "192.0.2.1",
        "PORT": "9000",
        "STATUS_PORT": "9001",
        "SERVER_URI": "wss://server:9000",
        "CONNECT_TIMEOUT": "7",
        "CLIENT_NAME": "client_3",
        "FED_ROOT": "/fed",
    }
    for key, value in pairs.items():
        monkeypatch.setenv(key, value)
    assert cli.main(["server"]) == 0
    options = server.args[1]
    assert (options.clients, options.host, options.port, options.status_port) == (5, "192.0.2.1", 9000, 9001)
    assert (options.test, options.results) == (Path("/fed/data/test"), Path("/fed/results"))
    assert cli.main(["client"]) == 0
    asked = client.args[0]
    assert (asked.server_uri, asked.timeout, asked.name) == ("wss://server:9000", 7, "client_3")
    assert asked.shards == Path("/fed/data/shards")


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds: `--set`, else the flag, else SET, else ROUNDS, else what the experiment file says."""
    assert cli.main(["server"]) == 0
    assert server.args[0].rounds == 2
    monkeypatch.setenv("ROUNDS", "3")
    monkeypatch.setenv("PORT", "9000")
    assert cli.main(["server"]) == 0
    assert (server.args[0].rounds, server.args[1].port) == (3, 9000)
    assert cli.main(["server", "--rounds", "4", "--port", "9001"]) == 0
    assert (server.args[0].rounds, server.args[1].port) == (4, 9001)
    monkeypatch.setenv("SET", "rounds=5 train.epochs=2")
    assert cli.main(["server"]) == 0
    assert (server.args[0].rounds, server.args[0].train.epochs) == (5, 2)
    assert cli.main(["server", "--rounds", "4"]) == 0
    assert (server.args[0].rounds, server.args[0].train.epochs) == (4, 2)
    assert cli.main(["server", "--rounds", "4", "--set", "rounds=6", "--set", "train.epochs=3"]) == 0
    assert (server.args[0].rounds, server.args[0].train.epochs) == (6, 3)


def test_demo_takes_what_run_demo_takes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fed demo` runs three clients unless told otherwise, by our spelling of the flag or declearn's."""
    (here / "experiment.yml").touch()
    recorder = Recorder()
    monkeypatch.setattr(services.demo, "run", recorder)
    assert cli.main(["demo"]) == 0
    assert (recorder.args[0], recorder.args[2]) == (Plan(), Paths(Path()))
    assert recorder.args[1] == 3
    assert cli.main(["demo", "--nb-clients", "5", "--scheme", "labels", "--seed", "2"]) == 0
    plan, clients = recorder.args[:2]
    assert (clients, plan.data.scheme, plan.seed) == (5, "labels", 2)
    assert cli.main(["demo", "--clients", "1"]) == 0
    assert recorder.args[1:2] == (1,)


def test_init_takes_settings_and_plan(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fed init` hands on the settings, the resolved plan, the user to become and what to leave out."""
    (here / "experiment.yml").write_text("seed: 5")
    monkeypatch.setenv("MAX_CLIENTS", "8")
    recorder = Recorder()
    monkeypatch.setattr(services.init.main, "run", recorder)
    assert cli.main(["init", "--drop-to", "10001", "--data-only"]) == 0
    env, plan, paths = recorder.args
    assert (env.max_clients, plan.seed, paths) == (8, 5, Paths(Path()))
    assert recorder.kwargs == {"drop_to": 10001, "data_only": True}


def test_sweep_takes_a_file_and_values(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`fed sweep` hands on each combination, over what the environment sets, and prints the table, also of a sweep of
    which some runs failed.
    """
    (here / "e.yml").write_text("rounds: 2")
    monkeypatch.setenv("SET", "train.epochs=3")
    recorder = Recorder()
    recorder.answer = "the table\n"
    monkeypatch.setattr(services.sweep, "run", recorder)
    words = ["sweep", "e.yml", "--set", "seed=1,2", "--set", "data.scheme=labels", "--clients", "2"]
    assert cli.main(words) == 0
    combinations, clients, paths, models = recorder.args
    assert [each.settings for each in combinations] == [
        ("seed=1", "data.scheme=labels"),
        ("seed=2", "data.scheme=labels"),
    ]
    assert {(each.plan.rounds, each.plan.train.epochs) for each in combinations} == {(2, 3)}
    assert (clients, paths, models) == (2, Paths(Path()), Settings().models)
    assert recorder.kwargs == {"label": "e", "fresh": False}
    assert capfd.readouterr().out == "the table\n"
    recorder.outcome = services.sweep.SweepError("half a table\n", 1, 2, 8)
    assert cli.main([*words, "--fresh"]) == 8
    assert recorder.kwargs == {"label": "e", "fresh": True}
    out, err = capfd.readouterr()
    assert out == "half a table\n"
    assert err == ("fed sweep: error: 1 of 2 runs failed; see their lines above; the same command runs them again\n")


def test_status_takes_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fed status` asks this machine's page, on STATUS_PORT, unless told otherwise; and how it is to tell."""
    recorder = Recorder()
    monkeypatch.setattr(services.terminal.status, "run", recorder)
    told = {"once": False, "as_json": False, "form": "text"}
    assert cli.main(["status"]) == 0
    assert (recorder.args, recorder.kwargs) == (("http://127.0.0.1:8000",), told)
    monkeypatch.setenv("STATUS_PORT", "9001")
    monkeypatch.setenv("LOG_FORMAT", "json")
    assert cli.main(["status", "--once"]) == 0
    assert recorder.args == ("http://127.0.0.1:9001",)
    assert recorder.kwargs == told | {"once": True, "form": "json"}
    assert cli.main(["status", "--url", "http://far:1", "--json"]) == 0
    assert recorder.args == ("http://far:1",)
    assert recorder.kwargs == told | {"as_json": True, "form": "json"}


def test_compare_takes_runs(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`fed compare` hands on the runs, the folder they are in and the picture to write, and prints the table."""
    recorder = Recorder()
    recorder.answer = "the table\n"
    monkeypatch.setattr(services.compare, "run", recorder)
    assert cli.main(["compare", "latest", "a"]) == 0
    assert recorder.args == (["latest", "a"], Path("results"), Path("results/compare.png"))
    assert cli.main(["compare", "a", "--output", str(here / "x.png")]) == 0
    assert recorder.args == (["a"], Path("results"), here / "x.png")
    assert capfd.readouterr().out == "the table\nthe table\n"


def test_report_takes_a_run(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`fed report` hands on the run, or else the newest, and where to write, and prints where the page is."""
    recorder = Recorder()
    recorder.answer = "the page"
    monkeypatch.setattr(services.report.main, "run", recorder)
    called: list[Any] = []
    for words in (["report"], ["report", "a", "--output", str(here / "x")]):
        assert cli.main(words) == 0
        called.append(recorder.args)
    assert called == [("latest", Path("results"), None), ("a", Path("results"), here / "x")]
    assert capfd.readouterr().out == "the page\nthe page\n"


def test_predict_takes_a_model_and_images(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`fed predict` hands on the model, the images and the folder of runs, and prints each line."""
    assert here.is_dir()
    recorder = Recorder()
    recorder.answer = ["one", "two"]
    monkeypatch.setattr(services.predict, "run", recorder)
    assert cli.main(["predict", "latest", "a.png", "b.png"]) == 0
    assert recorder.args == ("latest", [Path("a.png"), Path("b.png")], Path("results"))
    assert capfd.readouterr().out == "one\ntwo\n"
    assert cli.main(["predict", "latest"]) == 2


def test_predict_says_what_it_does_to_an_image(capfd: pytest.CaptureFixture[str]) -> None:
    """Its help tells of inversion, since nobody would guess it."""
    with pytest.raises(SystemExit):
        cli.main(["predict", "--help"])
    assert "an image with a light border is inverted" in " ".join(capfd.readouterr().out.split())


# -- kits -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kits(tmp_path: Path) -> Operator:
    """A federation with a site, as an operator makes it."""
    operator = Operator(tmp_path / "operator")
    operator.init("fl.example.org:443", server_name="inner.example.org", headers={"X-Route": "fed"})
    operator.site("north")
    return operator


def test_a_client_takes_all_from_its_kit(client: Recorder, kits: Operator) -> None:
    """Name, identity, address, route, terms and the folder of data are the kit's."""
    kit = kits.kit("north")
    assert cli.main(["client", "--kit", str(kit)]) == 0
    (options,) = client.args
    assert isinstance(options, ClientOptions)
    assert (options.name, options.server_uri) == ("north", "wss://fl.example.org:443")
    assert (options.identities, options.ca) == (kit / "certs", kit / "certs" / "ca-cert.pem")
    assert (options.own_data, options.secagg_keys) == (kit / "data", kit / "secagg")
    assert options.route == Route("inner.example.org", {"X-Route": "fed"})
    assert options.terms == kits.federation.ledger.terms
    assert options.terms is not None
    assert options.terms.shape == (28, 28)


def test_what_a_site_sets_wins_over_its_kit(client: Recorder, kits: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, route and folder of data may be set by the site, which knows what is between it and the server."""
    environment = {"SERVER_URI": "wss://a:1", "SERVER_NAME": "b", "SERVER_HEADERS": "X-C: d", "DATA": "/srv/data"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert cli.main(["client", "--kit", str(kits.kit("north"))]) == 0
    options = client.args[0]
    assert (options.server_uri, options.route) == ("wss://a:1", Route("b", {"X-C": "d"}))
    assert (options.own_data, options.name) == (Path("/srv/data"), "north")
    assert cli.main(["client", "--kit", str(kits.kit("north")), "--serv-uri", "wss://e:2"]) == 0
    assert client.args[0].server_uri == "wss://e:2"


def test_a_server_takes_identity_plan_and_denylist_from_its_kit(server: Recorder, kits: Operator) -> None:
    """The server's kit holds its certificate, key and CA, its experiment and its denylist."""
    (kits.server / "experiment.yml").write_text("rounds: 9\n")
    assert cli.main(["server", "2", "--kit", str(kits.server)]) == 0
    plan, options = server.args
    assert isinstance(options, ServerOptions)
    assert plan.rounds == 9
    certs = kits.server / "certs"
    assert (options.certificate, options.key) == (certs / "server-cert.pem", certs / "server-pkey.pem")
    assert (options.ca, options.denylist) == (certs / "ca-cert.pem", kits.server / "denylist")
    assert cli.main(["server", "2", "--kit", str(kits.server), "--experiment", "experiment.yml"]) == 0
    assert server.args[0].rounds == 2


def test_a_kit_that_is_none_or_anothers_ends_with_code_4(
    server: Recorder, client: Recorder, kits: Operator, capfd: pytest.CaptureFixture[str]
) -> None:
    """The wrong role, no kit, and an altered one are one line each, and nobody is called."""
    altered = kits.kit("north") / "certs" / "north-cert.pem"
    altered.write_bytes(altered.read_bytes()[:-1])
    for words in (
        ("client", "--kit", str(kits.server)),
        ("server", "1", "--kit", str(kits.kit("north"))),
        ("client", "--kit", str(kits.kit("north"))),
        ("client", "--kit", str(kits.archive("north"))),
    ):
        assert cli.main(words) == 4
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
    assert client.args == server.args == ()


def test_a_name_beside_a_kit_is_a_mistake(client: Recorder, kits: Operator, capfd: pytest.CaptureFixture[str]) -> None:
    """Who a client is stands in its kit."""
    assert cli.main(["client", "north", "data", "--kit", str(kits.kit("north"))]) == 2
    assert "NAME is 'north' beside --kit; wanted one of them;" in capfd.readouterr().err
    assert client.args == ()


def test_data_that_do_not_fit_end_before_anybody_is_dialled(
    kits: Operator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client whose data are not the federation's says so at once, with code 3, and opens no connection."""

    def dial(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(services.client.main, "ClientEndpoint", dial)
    folder = kits.kit("north") / "data"
    np.save(folder / "train_data.npy", np.zeros((20, 32, 32), np.float32))
    np.save(folder / "train_target.npy", np.arange(20) % 10)
    assert cli.main(["client", "--kit", str(kits.kit("north"))]) == 3
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.endswith(
        "error: this site's examples have shape (32, 32); wanted (28, 28), as the federation trains on;"
        " write the site's data in that shape"
    )
