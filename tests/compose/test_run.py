"""The main job, as its user would run it: containers, results on the host, exit codes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from services import shards
from services.init import dataset
from services.paths import Paths
from tests.compose.conftest import Maker, stacks
from tests.compose.stack import QUICK, Stack
from tests.support import RAW, REPOSITORY, deadline

pytestmark = pytest.mark.compose

DEFAULT = yaml.safe_load((REPOSITORY / "experiment.yml").read_text(encoding="utf-8"))


def test_the_default_run_reaches_its_accuracy_and_leaves_its_results(make_stack: Maker, mnist: dataset.Dataset) -> None:
    """Three clients train the default experiment to at least 98.5 % on the test images; the files say and prove so."""
    stack = make_stack(DEFAULT)
    stack.up()
    assert stack.wait_server(400) == 0
    for container in stack.clients() or [stack.container("client", number) for number in (1, 2, 3)]:
        assert stack.exit_code(container) == 0

    summary = stack.summary
    assert summary["test_accuracy"] >= 0.985
    expected = {
        "status": "completed",
        "reason": "",
        "rounds": 5,
        "rounds_planned": 5,
        "clients": 3,
        "scheme": "iid",
        "seed": 0,
    }
    assert {key: summary[key] for key in expected} == expected
    assert (stack.results / "latest").readlink() == Path(summary["run_id"])
    for name in (
        "history.csv",
        "clients.csv",
        "events.csv",
        "model.keras",
        "curves.png",
        "confusion.png",
        "distribution.png",
        "clients.png",
        "mistakes.png",
        "report.html",
        "server.log",
        "experiment.yml",
    ):
        mode = (stack.latest / name).stat().st_mode
        assert mode & stat.S_IROTH, f"{name} is not readable by everybody"
    stack.check_history(5)
    assert {(row["client"], row["size"], row["seat"]) for row in stack.table("clients.csv")} == {
        ("client_0", "3", "0"), ("client_1", "3", "1"), ("client_2", "3", "2"),
    }  # fmt: skip

    model = keras.saving.load_model(stack.latest / "model.keras")
    predicted = model.predict(mnist.test_images / 255, batch_size=500, verbose=0).argmax(axis=1)
    assert float((predicted == mnist.test_labels).mean()) == pytest.approx(summary["test_accuracy"], abs=2e-4)

    # `up` again: what init has made is kept, and the finished run is not taken up again
    stack.up()
    log = stack.log("init")
    assert "images kept" in log
    assert "for 1-8 clients kept" in log
    stack.until(lambda: stack.summary["run_id"] != summary["run_id"], "a run of its own")

    stack.down()
    left = stack.docker("volume", "ls", "--quiet", "--filter", f"name={stack.name}")
    left += stack.docker("ps", "--all", "--quiet", "--filter", f"name={stack.name}")
    left += stack.docker("network", "ls", "--quiet", "--filter", f"name={stack.name}")
    assert left == ""


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Let init deal data and identities, and nothing else."""
    with stacks("dealt", tmp_path_factory.mktemp("dealt")) as make:
        stack = make()
        stack.compose("run", "--rm", "--no-deps", "init", "init", "--drop-to", "10001")
        yield stack


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start a server that waits for two clients, and one of them."""
    with stacks("waiting", tmp_path_factory.mktemp("waiting")) as make:
        stack = make(QUICK | {"federation": {"join_timeout": 250}}, CLIENTS=2)
        stack.up("--scale", "client=1")
        stack.until(lambda: "listening" in stack.log("server"), "the server")
        yield stack


def test_the_shards_in_the_volume_are_disjoint_and_whole(dealt: Stack, tmp_path: Path) -> None:
    """What init has dealt in its volume gives each of the 60,000 images to exactly one client, at every size."""
    copy = tmp_path / "shards"
    holder = dealt.docker("create", "--volume", f"{dealt.name}_shards:/shards:ro", dealt.image)
    dealt.docker("cp", f"{holder}:/shards", str(copy))
    dealt.docker("rm", holder)
    manifest = shards.read_manifest(copy)
    assert manifest.sizes == tuple(range(1, 9))
    for size in manifest.sizes:
        held = [np.concatenate(shards.load_indices(copy, size, seat)) for seat in range(size)]
        np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(60_000))


def client_with(stack: Stack, certs: Path) -> tuple[int, str]:
    """Run one client with the identities in `certs` against the stack's server; gives its code and what it said."""
    result = stack._run(
        [
            "docker", "run", "--rm", "--network", f"{stack.name}_federation", "--env", "SERVER_URI=wss://server:8765",
            "--env", "CONNECT_TIMEOUT=20", "--volume", f"{certs}:/fed/certs/clients:ro", "--user", f"{os.getuid()}",
            stack.image, "client",
        ],
        check=False,
        seconds=60,
    )  # fmt: skip
    return result.returncode, result.stderr


def issue(folder: Path, *words: str) -> Path:
    """Issue identities on the host, as `fed certs` does."""
    code = (
        "import sys, datetime; from pathlib import Path; from services.init import identities as i;"
        "now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=float(sys.argv[2]));"
        "i.ensure(Path(sys.argv[1]), Path(sys.argv[1]) / 'clients', i.client_names(1), now=now)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), *words], check=True, cwd=REPOSITORY, timeout=deadline(30))
    folder.chmod(0o755)
    return folder / "clients"


def test_who_has_no_valid_certificate_is_refused_in_one_line(waiting: Stack, tmp_path: Path) -> None:
    """A foreign, an expired and a missing certificate end the client with code 4 and one line, and change nothing."""
    stack = waiting
    foreign = issue(tmp_path / "foreign", "0")
    code, said = client_with(stack, foreign)
    assert code == 4
    assert said.splitlines()[-1].startswith("fed client: error: the certificate of wss://server:8765 is not accepted (")

    # the right CA to check the server by, and a certificate of another one to show
    stack.docker("cp", f"{stack.container('server')}:/fed/certs/ca-cert.pem", str(foreign / "ca-cert.pem"))
    (foreign / "ca-cert.pem").chmod(0o644)
    code, said = client_with(stack, foreign)
    assert code == 4
    assert said.splitlines()[-1].startswith("fed client: error: wss://server:8765 refused this client's certificate (")

    code, said = client_with(stack, issue(tmp_path / "expired", "40"))
    assert code == 4
    assert "expired on" in said.splitlines()[-1]

    empty = tmp_path / "empty"
    empty.mkdir()
    code, said = client_with(stack, empty)
    assert code == 4
    assert said.splitlines()[-1] == (
        "fed client: error: certs/clients holds 0 client identities, none of them free; wanted a free one; "
        "run `fed init` or `fed certs` first"
    )

    log = stack.log("server")
    assert re.search(r"refused [0-9.]+: its certificate is not accepted \(", log)
    assert "Traceback" not in log + said
    stack.up()
    assert stack.wait_server() == 0


@pytest.mark.parametrize(
    ("plan", "settings", "code", "line"),
    [
        (QUICK | {"round": 3}, {}, 2, "experiment.yml: unknown key 'round'; wanted one of rounds, "),
        (QUICK, {"CLIENTS": 0}, 2, "CLIENTS is '0'; wanted a whole number of at least 1; "),
        (QUICK, {"CLIENTS": 9}, 2, "CLIENTS is 9; wanted a whole number from 1 to MAX_CLIENTS (8); "),
        (QUICK, {"SCHEME": "labels", "CLIENTS": 11, "MAX_CLIENTS": 12}, 2, "CLIENTS is 11"),
    ],
)
def test_a_bad_setting_ends_init_before_anything_starts(
    make_stack: Maker, plan: dict[str, object], settings: dict[str, object], code: int, line: str
) -> None:
    """What can't be run is refused by init, in one line and with its code; server and clients never start."""
    stack = make_stack(plan, **settings)
    result = stack.up(check=False)
    assert result.returncode != 0
    assert stack.exit_code(stack.container("init")) == code
    said = stack.log("init").splitlines()[-1]
    assert said.startswith(f"fed init: error: {line}"), said
    assert stack.inspect(stack.container("server"), ".State.Status") == "created"


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (
            QUICK | {"optimizer": {"client": {"modules": [{"momentum": {"beta": 2}}]}}},
            (
                "experiment.yml: optimizer.client.modules.0.momentum.beta is 2; wanted a number below 1; correct"
                " optimizer.client.modules.0.momentum.beta"
            ),
        ),
        (
            QUICK | {"train": {"batch_size": 20_000}},
            (
                "train.batch_size is 20000, and client 0 of 3 has 16000 training images; wanted at most 16000; lower"
                " train.batch_size or CLIENTS, or deal otherwise (data.scheme, data.alpha, seed)"
            ),
        ),
    ],
    ids=["schema", "deal"],
)
def test_a_broken_experiment_leaves_no_container_running(make_stack: Maker, plan: dict[str, object], line: str) -> None:
    """`docker compose up` ends by itself with the one line of init, whose code is 2, and nothing runs any more."""
    stack = make_stack(plan)
    result = stack.compose("up", "--no-build", "--no-log-prefix", "--no-color", check=False)
    assert result.returncode != 0
    assert stack.exit_code(stack.container("init")) == 2
    assert stack.log("init").splitlines()[-1] == f"fed init: error: {line}"
    assert "Traceback" not in result.stdout + result.stderr
    assert stack.docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={stack.name}") == ""


def test_one_variable_sets_any_value(make_stack: Maker) -> None:
    """SET reaches init, which deals by it, and the server, whose plan has it."""
    stack = make_stack(CLIENTS=2, SET="rounds=1 data={scheme: shards, classes_per_client: 1}\ntrain.steps=2")
    stack.up()
    assert stack.wait_server() == 0
    assert (stack.summary["scheme"], stack.summary["rounds"]) == ("shards", 1)
    assert stack.summary["experiment"]["train"]["steps"] == 2


def test_settings_that_contradict_kept_data_name_both(dealt: Stack) -> None:
    """Another scheme than the kept data was dealt with is code 7, one line, and the data stay as they are."""
    dealt.environment["SCHEME"] = "labels"
    result = dealt.compose("run", "--rm", "--no-deps", "init", "init", "--drop-to", "10001", check=False)
    assert result.returncode == 7
    said = (result.stdout + result.stderr).splitlines()[-1]
    assert (
        "was dealt with scheme iid; wanted scheme labels as asked now; set SCHEME, SEED, EXPERIMENT or DATA back"
        in said
    )
    assert "docker compose down -v" in said


def test_the_demo_does_the_same_job_without_docker(tmp_path: Path) -> None:
    """`fed demo` trains the default experiment as processes, to the same accuracy, and exits 0."""
    paths = Paths(tmp_path)
    paths.raw.parent.mkdir()
    paths.raw.symlink_to(RAW)
    environment = os.environ | {"FED_ROOT": str(tmp_path), "EXPERIMENT": str(REPOSITORY / "experiment.yml")}
    result = subprocess.run(
        [sys.executable, "-m", "services", "demo"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=deadline(300),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    summary = json.loads((paths.results / "latest" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "completed"
    assert summary["test_accuracy"] >= 0.985
    assert "Traceback" not in result.stderr
