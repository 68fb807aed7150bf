"""The stack on a swarm of three engines: a run is deployed, scaled, loses a node amid a round, and then its server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.stack import plan
from tests.lab.conftest import IMAGE
from tests.lab.lab import Host, Lab
from tests.support import RAW, REPOSITORY, deadline
from tests.written import Written

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

STACK = "fedtest"
CLIENTS = 6
ROUNDS = 80

DIAL = """
import socket, ssl, sys
context = ssl._create_unverified_context()
with socket.create_connection((sys.argv[1], 8765), 10) as raw:
    with context.wrap_socket(raw) as secure:
        print(secure.version())
"""
"""Program that dials a server and says what TLS it speaks."""


@dataclass
class Swarm(Written):
    """A run on a swarm.

    Attributes:
        hosts: its nodes, the manager first.
        folder: the manager's: experiment and results.
        output: what `script/swarm-up` has said.
        code: how it ended; None while it goes on.
        at_first: host by task, of the clients before anything happened to them.
        moved: the same, of those that had been on the node that was lost.
        lost: rounds that were complete when that node lost its power.
        scaled: rounds that were complete when a seventh client had been asked for.
        outside: what a host that is no node met at the manager's port.
    """

    hosts: list[Host]
    folder: Path
    output: str = ""
    code: int | None = None
    at_first: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    scaled: int = 0
    outside: str = ""

    @property
    def manager(self) -> Host:
        return self.hosts[0]

    def swarm_up(self, **settings: Any) -> subprocess.Popen[str]:
        """Start `script/swarm-up` on the manager."""
        environment = os.environ | {
            "DOCKER_HOST": f"unix://{self.manager.socket}",
            "STACK": STACK,
            "IMAGE": IMAGE,
            "EXPERIMENT": str(self.folder / "experiment.yml"),
            "RESULTS": str(self.folder / "results"),
            "DATA": str(self.folder / "raw"),
            "MAX_CLIENTS": "8",
            "CLIENTS": str(CLIENTS),
            "OVERLAY_ENCRYPTION": "1" if has_ipsec() else "0",
            **{key: str(value) for key, value in settings.items()},
        }
        return subprocess.Popen(
            self.manager.inside("script/swarm-up"),
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tasks(self, service: str) -> list[tuple[str, str, str]]:
        """List name, node and state of a service's tasks, the newest of each slot first."""
        form = "{{.Name}}\t{{.ID}}\t{{.CurrentState}}"
        listed = self.manager.docker("service", "ps", "--no-trunc", "--format", form, f"{STACK}_{service}", check=False)
        rows = [line.split("\t") for line in listed.splitlines()]
        nodes = {task: self.manager.docker("inspect", "--format", "{{.NodeID}}", task) for _, task, _ in rows}
        return [(name, nodes[task], state) for name, task, state in rows]

    def running(self, service: str) -> dict[str, str]:
        """Tell node by task, of the newest tasks of a service, where they run."""
        newest: dict[str, tuple[str, str]] = {}
        for name, node, state in self.tasks(service):
            newest.setdefault(name, (node, state))
        return {name: node for name, (node, state) in newest.items() if state.startswith("Running")}

    def node(self, host: Host) -> str:
        """Tell the swarm's name for a host."""
        return host.docker("info", "--format", "{{.Swarm.NodeID}}")

    @property
    def latest(self) -> Path:
        return self.folder / "results" / "latest"

    def elsewhere(self, node: str) -> set[str]:
        """Tell which clients' tasks run on other nodes than this one."""
        return {task for task, where in self.running("client").items() if where != node}

    def is_back(self, client: str) -> bool:
        """Tell whether a client has trained since its node was lost; in the round after it may have finished before."""
        return bool(self.trained(client) - set(range(self.lost + 2)))

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + deadline(seconds)
        while not condition():
            if time.monotonic() > end:
                log = self.manager.docker("service", "logs", "--raw", f"{STACK}_server", check=False)
                pytest.fail(f"waited in vain for {what}: {self.tasks('client')}\n{log[-3000:]}")
            time.sleep(0.2)


def has_ipsec() -> bool:
    """Tell whether this machine's kernel encrypts an overlay."""
    state = ["src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x201"]
    keys = ["aead", "rfc4106(gcm(aes))", "0x" + "0" * 40, "128"]
    made = subprocess.run(
        ["ip", "xfrm", "state", "add", *state, "mode", "transport", *keys], capture_output=True, check=False
    )
    if made.returncode == 0:
        subprocess.run(["ip", "xfrm", "state", "delete", *state], capture_output=True, check=False)
    return made.returncode == 0


def client_of(task: str) -> str:
    """Tell which client a task is, by its slot."""
    return f"client_{task.rsplit('.', 1)[1]}"


@pytest.fixture(scope="module")
def swarm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """Three engines become a swarm; a run is deployed, gets a seventh client, and loses a node and its server."""
    folder = tmp_path_factory.mktemp("swarm")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    shutil.copytree(RAW, folder / "raw")
    (folder / "experiment.yml").write_text(yaml.safe_dump(plan(ROUNDS, steps=30, rejoin_grace=300)), encoding="utf-8")
    run = Swarm(lab.hosts[:3], folder)
    run.manager.docker("swarm", "init", "--advertise-addr", run.manager.address)
    token = run.manager.docker("swarm", "join-token", "--quiet", "worker")
    for host in run.hosts[1:]:
        host.docker("swarm", "join", "--token", token, f"{run.manager.address}:2377")
    up = run.swarm_up()
    try:
        run.until(lambda: run.rounds >= 1 or up.poll() is not None, "round 1")
        run.at_first = run.running("client")
        run.outside = subprocess.run(
            lab.hosts[3].inside(sys.executable, "-c", DIAL, run.manager.address),
            capture_output=True, text=True, check=False, timeout=deadline(60),
        ).stdout.strip()  # fmt: skip

        run.manager.docker("service", "scale", "--detach", f"{STACK}_client={CLIENTS + 1}")
        run.until(lambda: bool(run.trained(f"client_{CLIENTS + 1}")), "the seventh client in a round")
        run.scaled = run.rounds

        dark = run.hosts[2]
        node = run.node(dark)
        on_it = {task for task, where in run.running("client").items() if where == node}
        run.lost = run.rounds
        dark.kill()
        run.until(lambda: on_it <= run.elsewhere(node), "tasks to move")
        run.moved = {task: run.running("client")[task] for task in on_it}
        for task in on_it:
            name = client_of(task)
            run.until(lambda name=name: run.is_back(name), f"{name} to train again")  # type: ignore[misc]
        (server,) = run.manager.docker("ps", "--quiet", "--filter", f"name={STACK}_server").split()
        run.manager.docker("kill", server)
        run.until(lambda: run.happened("resumed", ""), "the server to go on")
        run.output, _ = up.communicate(timeout=deadline(300))
        run.code = up.returncode
        dark.start()
        yield run
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGTERM)
            up.communicate(timeout=deadline(30))
        run.manager.docker("stack", "rm", STACK, check=False)
        for host in run.hosts:
            if not host.answers():
                host.start()
            host.docker("swarm", "leave", "--force", check=False)
        shutil.rmtree(REPOSITORY / "certs" / f"swarm-{STACK}", ignore_errors=True)


def test_six_clients_on_three_nodes_complete_a_run(swarm: Swarm) -> None:
    """`script/swarm-up` deploys, follows and ends with 0; tasks are spread evenly, and their slots are who they are."""
    assert swarm.code == 0, swarm.output[-3000:]
    assert (swarm.summary["status"], swarm.summary["rounds"]) == ("completed", ROUNDS)
    spread = list(swarm.at_first.values())
    assert sorted(spread.count(node) for node in set(spread)) == [2, 2, 2]
    first = [row["client"] for row in swarm.table("clients.csv") if row["round"] == "1"]
    assert sorted(first) == [f"client_{slot}" for slot in range(1, CLIENTS + 1)]


def test_the_server_is_reached_from_outside(swarm: Swarm) -> None:
    """A host that is no node of the swarm, as a site's, finds the server at the port of the manager."""
    assert swarm.outside == "TLSv1.3"


def test_results_are_on_the_manager(swarm: Swarm) -> None:
    """What a run leaves is in RESULTS on the node that it was deployed from, as on one host."""
    assert {"summary.json", "report.html", "model.keras", "history.csv"} <= {
        path.name for path in swarm.latest.iterdir()
    }
    assert f"results: {swarm.folder / 'results'}" in swarm.output


def test_a_client_that_is_scaled_in_takes_part(swarm: Swarm) -> None:
    """`docker service scale` adds a client to a run that goes on, and the whole data set is dealt to seven."""
    sizes = {int(row["round"]): row["size"] for row in swarm.table("history.csv")}
    assert sizes[1] == str(CLIENTS)
    assert sizes[swarm.scaled] == str(CLIENTS + 1)


def test_a_lost_node_costs_its_own_part_alone(swarm: Swarm) -> None:
    """A node that dies in a round costs the rounds until its tasks run elsewhere, under their own names."""
    assert len(swarm.moved) >= 2
    for task in swarm.moved:
        trained = swarm.trained(client_of(task))
        assert set(range(swarm.lost + 1, max(trained))) - trained
        assert max(trained) == ROUNDS
    others = {f"client_{slot}" for slot in range(1, CLIENTS + 1)} - {client_of(task) for task in swarm.moved}
    for client in others:
        assert swarm.trained(client) == set(range(1, ROUNDS + 1))


def test_a_server_that_dies_goes_on_where_it_was(swarm: Swarm) -> None:
    """A server that is killed is started again by Swarm and goes on with its run: each round counts once."""
    assert [row["event"] for row in swarm.table("events.csv")].count("resumed") == 1
    assert [row["round"] for row in swarm.table("history.csv")] == [str(number) for number in range(1, ROUNDS + 1)]


def test_a_second_run_begins_when_it_is_asked_for(swarm: Swarm) -> None:
    """Deployed again with another plan, the same stack begins another run, and results stand side by side."""
    before = swarm.summary["run_id"]
    up = swarm.swarm_up(ROUNDS=2, CLIENTS=3)
    said, _ = up.communicate(timeout=deadline(300))
    assert up.returncode == 0, said[-3000:]
    assert swarm.summary["run_id"] > before
    assert (swarm.summary["status"], swarm.summary["rounds"], swarm.summary["clients"]) == ("completed", 2, 3)


def test_nobody_reads_a_key_that_is_not_its_own(swarm: Swarm) -> None:
    """Keys are secrets of the swarm: the server's is the server's alone, and no configuration has one."""
    for service, secrets in (("server", {f"{STACK}-server-key"}), ("client", {f"{STACK}-identities"}), ("init", set())):
        form = "{{range .Spec.TaskTemplate.ContainerSpec.Secrets}}{{.SecretName}} {{end}}"
        names = swarm.manager.docker("service", "inspect", "--format", form, f"{STACK}_{service}").split()
        assert {name.rsplit("-", 1)[0] for name in names} == secrets
    for name in swarm.manager.docker("config", "ls", "--format", "{{.Name}}").split():
        assert "PRIVATE" not in swarm.manager.docker("config", "inspect", "--pretty", name)


def test_what_is_no_swarm_is_refused(lab: Lab, tmp_path: Path) -> None:
    """On an engine that manages no swarm, the script ends with code 13 and says what to do."""
    (tmp_path / "experiment.yml").write_text("rounds: 1\n", encoding="utf-8")
    (tmp_path / "raw").mkdir()
    up = Swarm([lab.hosts[3]], tmp_path).swarm_up()
    said, _ = up.communicate(timeout=deadline(60))
    assert up.returncode == 13
    assert "this engine is no manager of a swarm; run 'docker swarm init' here" in said
