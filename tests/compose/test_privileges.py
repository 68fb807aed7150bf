"""Least privilege: what the Compose file grants, and what is found from inside, equal the table in docs/security.md."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import stacks
from tests.compose.stack import QUICK, Stack, free_port
from tests.support import REPOSITORY, deadline
from tests.test_docs import rows, section, words

pytestmark = pytest.mark.compose

SECURITY = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
PROBE = Path(__file__).with_name("privileges.py").read_text(encoding="utf-8")
ROLES = ("init", "server", "client", "tensorboard")


@dataclasses.dataclass(frozen=True)
class Granted:
    """One row of the table: what a role's container may read, write and reach."""

    reads: frozenset[str]
    writes: frozenset[str]
    reaches: frozenset[str]


def granted() -> dict[str, Granted]:
    """Read the table."""
    table = rows(section(SECURITY, "What each container can read, write and reach"))
    return {words(row[0])[0]: Granted(*(frozenset(words(cell)) for cell in row[1:4])) for row in table}


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Compose file as Compose understands it."""
    with stacks("resolved", tmp_path_factory.mktemp("resolved")) as make:
        stack = make(COMPOSE_PROFILES="monitor")
        content: dict[str, Any] = json.loads(stack.compose("config", "--format", "json").stdout)
    return content


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server that waits for one client more than there are."""
    with stacks("privileges", tmp_path_factory.mktemp("privileges")) as make:
        plan = QUICK | {"federation": {"join_timeout": 250}}
        stack = make(plan, CLIENTS=3, COMPOSE_PROFILES="monitor", TENSORBOARD_PORT=free_port())
        stack.up("--scale", "client=2")
        stack.until(lambda: len(stack.status.get("clients", ())) == 2, "two clients")
        yield stack


@pytest.fixture(scope="module")
def seen(waiting: Stack) -> dict[str, dict[str, Any]]:
    """What the probe finds in each role's container; the host has a port open on each of its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 - so that whoever gets there is seen
        listener.settimeout(None)
        port = listener.getsockname()[1]
        outside = [f"{address}:{port}" for address in host_addresses()]
        inside = {
            "server:8765": "server",
            "server:8000": "server",
            f"{waiting.container('client', 2)}:1": "client",
            "tensorboard:6006": "tensorboard",
        }
        addresses = [*inside, *outside]
        found = {}
        for role in ROLES:
            command = ["docker", "exec", "--interactive", waiting.container(role), "python"]
            if role == "init":
                command = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "--user", "10001"]
                command += ["--entrypoint", "python", "init"]
            result = subprocess.run(
                [*command, "-", *addresses], input=PROBE, capture_output=True, text=True, check=False,
                cwd=REPOSITORY, env=waiting.environment, timeout=deadline(120),
            )  # fmt: skip
            assert result.returncode == 0, result.stderr[-2000:]
            found[role] = json.loads(result.stdout)
            found[role]["reached"] = {inside.get(address, "host") for address in found[role]["reached"]}
    return found


def host_addresses() -> list[str]:
    """List this host's IPv4 addresses, of its own interfaces and of Docker's bridges."""
    listed = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, text=True, check=True, timeout=10)
    return [info["local"] for link in json.loads(listed.stdout) for info in link["addr_info"] if link["ifname"] != "lo"]


@pytest.mark.parametrize("role", ROLES)
def test_a_container_can_do_what_the_table_says(seen: dict[str, dict[str, Any]], role: str) -> None:
    """From inside: what is mounted, what can be written and who answers is the role's row, no more and no less."""
    row = granted()[role]
    mounted = seen[role]["mounts"]
    assert {path for path, mode in mounted.items() if mode == "ro"} == row.reads
    assert set(mounted) == row.reads | {path for path in row.writes if not path.startswith("/")}
    writable = {path.removeprefix("/fed/") for path in seen[role]["writable"]}
    assert writable == row.writes - nested(row.writes)
    assert seen[role]["reached"] == row.reaches


def nested(paths: frozenset[str]) -> set[str]:
    """Tell which paths lie within others."""
    return {path for path in paths for other in paths if path.startswith(f"{other}/")}


@pytest.mark.parametrize("role", ROLES)
def test_a_container_cannot_become_more(seen: dict[str, dict[str, Any]], role: str) -> None:
    """From inside: not root, in no other group, no capability and none to be had, system calls filtered."""
    status = seen[role]["status"]
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert status["Groups"].split() in ([], ["10001"])
    assert int(status["CapEff"], 16) == 0
    # init begins as root, to hand the results folder over; CAP_FOWNER, CAP_SETGID and CAP_SETUID (capabilities(7))
    assert int(status["CapBnd"], 16) == (1 << 3 | 1 << 6 | 1 << 7 if role == "init" else 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_compose_file_grants_what_the_table_says(resolved: dict[str, Any]) -> None:
    """As Compose resolves it: mounts and modes, root, capabilities, processes, networks and ports of each role."""
    services = resolved["services"]
    assert set(services) == set(ROLES)
    for role, service in services.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] > 0
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's
        assert not service.get("privileged")
        assert "container_name" not in service
        row = granted()[role]
        mounts = {mount["target"].removeprefix("/fed/"): bool(mount.get("read_only")) for mount in service["volumes"]}
        assert {target for target, read_only in mounts.items() if read_only} == row.reads
        assert {target for target, read_only in mounts.items() if not read_only} == {
            path for path in row.writes if not path.startswith("/")
        }
    assert services["init"]["network_mode"] == "none"
    assert set(services["client"]["networks"]) == {"federation"}
    assert resolved["networks"]["federation"]["internal"] is True
    assert "ports" not in services["client"]
    assert set(services["tensorboard"]["networks"]) == {"monitor"}
    for role, target in (("server", 8000), ("tensorboard", 6006)):
        (inward,) = (port for port in services[role]["ports"] if port["target"] == target)
        assert inward["host_ip"] == "127.0.0.1"
    assert {role: service.get("cap_add") for role, service in services.items() if "cap_add" in service} == {
        "init": ["FOWNER", "SETGID", "SETUID"]
    }


def test_nobody_holds_what_is_another_s(waiting: Stack) -> None:
    """Beside the image's MNIST, which is public, the server finds no training image; a client no server key and no
    results; nobody the CA's key, or what DATA names.
    """
    listed = "import os; print([f'{r}/{f}' for d in ('data','certs','results') for r, _, fs in os.walk(d) for f in fs])"
    server = waiting.docker("exec", waiting.container("server"), "python", "-c", listed)
    client = waiting.docker("exec", waiting.container("client"), "python", "-c", listed)
    assert "train_images" not in server
    assert "server-pkey" in server
    assert "server-pkey" not in client
    assert "summary.json" not in client
    assert "test_images" not in client
    for found in (server, client):
        assert "ca-pkey" not in found
        assert "data/raw/" not in found


def test_no_secret_is_where_people_look(waiting: Stack) -> None:
    """No line of any private key is in a log, in a container's environment or command, in the results or on a page."""
    find = "cat $(find /fed/certs -name '*-pkey.pem' -o -name '*-secagg.pem')"
    keys = "".join(
        waiting.docker("exec", waiting.container(role), "sh", "-c", find) + "\n" for role in ("server", "client")
    )
    lines = {line for line in keys.splitlines() if len(line) >= 32 and "-----" not in line}
    assert len(lines) >= 3
    shown = [waiting.log(service) for service in ROLES]
    shown += [waiting.docker("inspect", waiting.container(role)) for role in ROLES]
    shown += [json.dumps(waiting.status)]
    shown += [
        (Path(folder) / name).read_text(encoding="utf-8", errors="replace")
        for folder, _, names in os.walk(waiting.results)
        for name in names
    ]
    assert [line for line in lines for text in shown if line in text] == []
