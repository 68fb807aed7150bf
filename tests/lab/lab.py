"""Several hosts on one machine: a Docker engine each, in a network namespace and a process namespace of its own.

The hosts share a bridge, as machines on one wire do, and nothing else: each has its own interfaces, firewall, images,
volumes and containers. What is killed here is killed as by a power cut: every process of that host at once. Images
are not copied but linked (`images`), so that a host of 1.3 GB is there in seconds.

Needs root, and the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import images as given
from tests.lab.shell import LabError, run, until

MOST = 9
"""Hosts of a lab."""

TRIES = 3

PATIENCE = 90.0
"""Seconds that an engine may take to answer."""


@dataclass
class Host:
    """One host.

    Attributes:
        lab: name of its lab.
        number: from 1.
        folder: what its engine keeps.
    """

    lab: str
    number: int
    folder: Path

    @property
    def name(self) -> str:
        """Its name, and that of its network namespace."""
        return f"{self.lab}{self.number}"

    @property
    def address(self) -> str:
        return f"10.213.{_third(self.lab)}.{self.number}"

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    # -- its wire -------------------------------------------------------------------------------------------------

    def plug_in(self, bridge: str) -> None:
        """Make its network namespace, and put it on the bridge."""
        inside, outside = "eth0", f"{self.name}v"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
        run("ip", "link", "set", outside, "master", bridge, "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/24", "dev", inside)
        run("ip", "-n", self.name, "link", "set", inside, "up")

    def unplug(self) -> None:
        """Remove its network namespace, and what is in it."""
        run("ip", "link", "delete", f"{self.name}v", check=False)
        run("ip", "netns", "delete", self.name, check=False)

    def inside(self, *words: str) -> list[str]:
        """Word a command so that it runs on this host's network."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    # -- its engine -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its engine, and wait until it answers; where the disk is busy, containerd is given up on too early."""
        for _ in range(TRIES):
            if self._started():
                return
        last = self.log.read_text(errors="replace")[-800:] if self.log.exists() else ""
        raise LabError(f"the engine of {self.name} ended: {last}")

    def _started(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in (self.socket, self.folder / "docker.pid"):
            left.unlink(missing_ok=True)
        # A process namespace: what dies with its first process is every process of the host, containers too.
        script = (
            'mount -t tmpfs tmpfs /run/docker && dockerd --host "unix://$0/docker.sock" --data-root "$0/data"'
            ' --exec-root "$0/exec" --pidfile "$0/docker.pid" --userland-proxy=false >>"$0/dockerd.log" 2>&1 &'
            " trap 'kill -TERM $!' TERM; wait $!; wait $!"
        )
        Path("/run/docker").mkdir(exist_ok=True)
        first = subprocess.Popen(
            self.inside("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, str(self.folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        (self.folder / "unshare.pid").write_text(str(first.pid))
        until(lambda: self.answers() or first.poll() is not None, f"the engine of {self.name}", PATIENCE)
        return first.poll() is None

    def answers(self) -> bool:
        """Tell whether its engine does."""
        if not self.socket.exists():
            return False
        with contextlib.suppress(LabError):
            return bool(self.docker("version", "--format", "{{.Server.Version}}", seconds=10))
        return False

    def docker(self, *words: str, check: bool = True, seconds: float = 60, **more: str) -> str:
        """Run `docker WORDS` against its engine, on its network, and give what it prints."""
        command = self.inside("docker", *words)
        return run(*command, check=check, seconds=seconds, DOCKER_HOST=f"unix://{self.socket}", **more)

    def _first(self) -> int | None:
        """Tell the first process of its process namespace, as this machine counts."""
        try:
            starter = int((self.folder / "unshare.pid").read_text())
            children = Path(f"/proc/{starter}/task/{starter}/children").read_text()
            return int(children.split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def kill(self) -> None:
        """Cut its power: every process of it is killed at once."""
        first = self._first()
        if first is not None:
            os.kill(first, signal.SIGKILL)
        self._gone(20)

    def stop(self) -> None:
        """End its engine, and its containers, in good order; kill what is left after half a minute."""
        first = self._first()
        if first is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGTERM)
        try:
            self._gone(30)
        except LabError:
            self.kill()

    def _gone(self, seconds: float) -> None:
        try:
            starter = int((self.folder / "unshare.pid").read_text())
        except (OSError, ValueError):
            return
        with contextlib.suppress(ChildProcessError):  # of this process, or of another that has made the lab
            until(lambda: os.waitpid(starter, os.WNOHANG)[0] == starter, f"the end of {self.name}", seconds)
        until(lambda: not Path(f"/proc/{starter}").exists(), f"the end of {self.name}", seconds)
        (self.folder / "unshare.pid").unlink(missing_ok=True)


@dataclass
class Lab:
    """Hosts on one bridge.

    Attributes:
        name: of the lab; short, since names of interfaces are.
        count: number of hosts.
        root: folder of what they keep.
    """

    name: str = "fedlab"
    count: int = 3
    root: Path = field(default_factory=given.home)

    @property
    def bridge(self) -> str:
        return f"{self.name}br"

    @property
    def hosts(self) -> list[Host]:
        return [Host(self.name, number, self.root / f"{self.name}{number}") for number in range(1, self.count + 1)]

    def wire(self) -> None:
        """Make the bridge, with an address for this machine on it, and plug all hosts in."""
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", f"10.213.{_third(self.name)}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        # Docker lets nothing through that it did not ask for, bridges included.
        run("iptables", "-I", "FORWARD", "-i", self.bridge, "-o", self.bridge, "-j", "ACCEPT", check=False)
        for host in self.hosts:
            host.plug_in(self.bridge)

    def up(self, images: Sequence[str]) -> None:
        """Make the hosts, each with an engine that holds `images` of this machine's engine.

        Raises:
            LabError: something is missing; what was made is gone again.
        """
        if os.geteuid() != 0:
            raise LabError("the lab needs root: network namespaces are made; run it with sudo")
        if not 1 <= self.count <= MOST:
            raise LabError(f"{self.count} hosts are asked for; wanted 1 to {MOST}")
        given.check(images)
        self.down()
        try:
            self.wire()
            for host in self.hosts:
                given.seed(host.folder, images)
                host.start()
                for image in images:
                    if not host.docker("images", "--quiet", image):
                        given.load(image, host.inside("docker", "load", "--quiet"), host.socket)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End all there is of a lab of this name, whoever made it."""
        for host in self.hosts:
            host.stop()
            host.unplug()
            shutil.rmtree(host.folder, ignore_errors=True)
        rule = ("FORWARD", "-i", self.bridge, "-o", self.bridge, "-j", "ACCEPT")
        while self.bridge in run("iptables", "-S", "FORWARD", check=False):
            run("iptables", "-D", *rule)
        run("ip", "link", "delete", self.bridge, check=False)


def _third(name: str) -> int:
    """Choose a network for a lab by its name, so that two labs are apart."""
    return sum(name.encode()) % 250 + 1
