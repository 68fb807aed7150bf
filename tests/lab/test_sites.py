"""Sites that share nothing but their kits, each on a host of its own: one loses its power, one is revoked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.compose.stack import plan
from tests.lab.conftest import IMAGE
from tests.lab.lab import Host, Lab
from tests.support import REPOSITORY, deadline
from tests.written import Written

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SITES = ("hospital-a", "hospital-b", "hospital-c")
USER = 4242
"""Whom the kits belong to on the hosts: nobody that the image knows."""


def fed(*words: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `fed WORDS` as the operator, or as a site without Docker."""
    done = subprocess.run(
        [sys.executable, "-m", "services", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline(120),
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@dataclass
class Place:
    """A host with a kit unpacked on it.

    Attributes:
        host: the host.
        kit: the kit's folder.
    """

    host: Host
    kit: Path

    def compose(self, *words: str, check: bool = True) -> str:
        """Run `docker compose WORDS` in the kit's folder, on that host."""
        more = {"IMAGE": IMAGE, "COMPOSE_PROJECT_NAME": "site"}
        return self.host.docker(
            "compose", "--project-directory", str(self.kit), *words, check=check, seconds=deadline(120), **more
        )

    def log(self) -> str:
        """What its containers have said."""
        return self.compose("logs", "--no-log-prefix", "--no-color", check=False)


@dataclass
class Run(Written):
    """A run of three sites that is over.

    Attributes:
        operator: folder of the federation.
        server: the server's host and kit.
        sites: theirs, by name.
        power: rounds that were complete when the power of hospital-c was cut, and when it took part again.
        revoked: rounds that were complete when hospital-b was put out.
        code: how the server ended.
        users: whom hospital-a's client ran as.
    """

    operator: Path
    server: Place
    sites: dict[str, Place] = field(default_factory=dict)
    power: tuple[int, int] = (0, 0)
    revoked: int = 0
    code: int = -1
    users: list[str] = field(default_factory=list)

    @property
    def latest(self) -> Path:
        return self.server.kit / "results" / "latest"

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + deadline(seconds)
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.server.log()[-3000:]}"
            time.sleep(0.2)

    def until_event(self, event: str, client: str) -> None:
        """Wait until `events.csv` tells of an event."""
        self.until(lambda: self.happened(event, client), f"event {event} of {client}")


def write_data(folder: Path) -> None:
    """Write each site's own data: 600 images to train on and 100 to validate on, of MNIST."""
    (folder / "data").mkdir()
    (folder / "data" / "mnist_raw").symlink_to(REPOSITORY / "data" / "mnist_raw")
    fed("data", "3", "--seed", "1", folder=folder)
    for number, site in enumerate(SITES):
        (folder / site).mkdir()
        for part, count in (("train", 600), ("valid", 100)):
            for kind in ("data", "target"):
                array = np.load(folder / "data" / "mnist_iid" / f"client_{number}" / f"{part}_{kind}.npy")
                np.save(folder / site / f"{part}_{kind}.npy", array[:count])


def give(path: Path, user: int) -> None:
    """Let a folder and all in it belong to a user."""
    for entry in [path, *path.rglob("*")]:
        os.chown(entry, user, user, follow_symlinks=False)


def set_env(path: Path, **values: Any) -> None:
    """Change values in a kit's .env, as an operator does with an editor."""
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1, key
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def run(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """From `fed kit init` to results: three sites train; one is switched off and on, one is revoked."""
    folder = tmp_path_factory.mktemp("sites")
    folder.chmod(0o755)
    operator = folder / "operator"
    operator.mkdir()
    (operator / "phrase").write_text("a horse, a battery and a staple\n")
    (operator / "experiment.yml").write_text(yaml.safe_dump(plan(60, steps=30, min_clients=1, rejoin_grace=300)))
    secret = ("--passphrase-file", "phrase")
    fed("kit", "init", "--server", lab.hosts[0].address, *secret, folder=operator)
    for site in SITES:
        fed("kit", "site", site, *secret, folder=operator)
    write_data(folder)

    kits = operator / "federation"
    server = Place(lab.hosts[0], folder / "server")
    shutil.copytree(kits / "server", server.kit)
    set_env(server.kit / ".env", CLIENTS=3)
    give(server.kit, USER)
    made = Run(operator, server)
    for host, site in zip(lab.hosts[1:], SITES, strict=True):
        with tarfile.open(kits / "sites" / f"{site}.tar.gz") as archive:
            archive.extractall(folder / "at" / site, filter="data")
        place = made.sites[site] = Place(host, folder / "at" / site / site)
        shutil.copytree(folder / site, place.kit / "data", dirs_exist_ok=True)
        give(place.kit, USER)
        (place.kit / "data").chmod(0o700)
    server.compose("up", "--detach", "--no-build")
    for place in made.sites.values():
        place.compose("up", "--detach", "--no-build")
    made.until(lambda: made.rounds >= 1, "round 1", 180)
    processes = made.sites["hospital-a"].host.docker("top", "site-client-1", "-eo", "pid,uid,args")
    made.users = [line.split()[1] for line in processes.splitlines() if "python" in line]

    dark = made.sites["hospital-c"].host
    dark.kill()
    dark.unplug()
    made.until_event("lost", "hospital-c")
    before = made.rounds
    dark.plug_in(lab.bridge)
    dark.start()
    made.until_event("returned", "hospital-c")
    made.until(lambda: bool(made.trained("hospital-c") - set(range(before + 2))), "hospital-c in a round again")
    made.power = (before, made.rounds)

    fed("kit", "revoke", "hospital-b", folder=operator)
    shutil.copy(kits / "server" / "denylist" / "denied.txt", server.kit / "denylist" / "denied.txt")
    made.until_event("left", "hospital-b")
    made.revoked = made.rounds
    made.code = int(server.host.docker("wait", "site-server-1", seconds=deadline(300)))
    yield made
    for place in (server, *made.sites.values()):
        place.compose("down", "--volumes", "--timeout", "0", check=False)


def test_three_sites_train_one_model(run: Run) -> None:
    """With nothing in common but their kits, sites train to the end, on data of their own that nobody dealt."""
    assert (run.code, run.summary["status"], run.summary["rounds"]) == (0, "completed", 60)
    assert run.summary["test_accuracy"] > 0.5
    first = [row for row in run.table("clients.csv") if row["round"] == "1"]
    assert sorted((row["client"], row["seat"]) for row in first) == [(site, "") for site in SITES]
    assert "600 examples to train on, 100 to validate on" in run.sites["hospital-a"].log()


def test_nothing_is_shared(run: Run) -> None:
    """No file of one site is on another's host, and a client runs as the user whom its kit belongs to."""
    networks = set()
    for site, place in run.sites.items():
        others = [other for other in SITES if other != site]
        assert not [path for path in place.kit.rglob("*") for other in others if other in path.name]
        networks.add(place.host.docker("network", "inspect", "--format", "{{.Id}}", "site_default"))
    assert len(networks) == len(SITES)
    assert run.users == [str(USER)]


def test_a_site_without_power_costs_its_own_part_alone(run: Run) -> None:
    """A host that is switched off is missed, the others go on, and switched on it takes part again by itself."""
    before, after = run.power
    missed = set(range(before + 1, after + 1)) - run.trained("hospital-c")
    assert missed
    assert missed <= run.trained("hospital-a") & run.trained("hospital-b")
    assert max(run.trained("hospital-c")) == 60


def test_a_revoked_site_is_refused(run: Run) -> None:
    """A site whose certificate was revoked is put out of the run that goes on, and let in no more."""
    assert max(run.trained("hospital-b")) <= run.revoked + 1
    assert max(run.trained("hospital-a")) == 60
    assert "does not let this identity take part" in run.sites["hospital-b"].log()


def test_no_traceback(run: Run) -> None:
    """Whatever was done to it, nobody's log has a traceback."""
    for place in (run.server, *run.sites.values()):
        assert "Traceback" not in place.log()


@pytest.mark.parametrize("name", ["certs/hospital-a-cert.pem", ".env", "docker-compose.yml", "manifest.json"])
def test_an_altered_kit_is_refused(run: Run, name: str, tmp_path: Path) -> None:
    """A kit in which one byte is another one fails `fed kit verify` with code 4 and one line, in the image as well."""
    kit = tmp_path / "hospital-a"
    archive = run.operator / "federation" / "sites" / "hospital-a.tar.gz"
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    told = fed("kit", "list", folder=run.operator).stdout.split("\n")[0].split("CA ")[1]
    assert fed("kit", "verify", str(kit), "--fingerprint", told, folder=tmp_path).returncode == 0
    content = bytearray((kit / name).read_bytes())
    content[len(content) // 2] ^= 1
    (kit / name).write_bytes(content)
    refused = fed("kit", "verify", str(kit), folder=tmp_path, check=False)
    assert refused.returncode == 4
    assert len(refused.stderr.strip().splitlines()) == 1
    give(kit, USER)
    host = run.server.host
    inside = ("run", "--rm", "--network", "none", "--user", f"{USER}:{USER}", "--volume", f"{kit}:/kit:ro", IMAGE)
    code = host.docker("run", "--detach", *inside[2:], "kit", "verify", "/kit")
    assert host.docker("wait", code) == "4"
    host.docker("rm", code)
