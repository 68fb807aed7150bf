"""Several hosts on one machine: a Docker engine each, in a network namespace and a process namespace of its own.

The hosts share a bridge, as machines on one wire do, and nothing else: each has its own interfaces, firewall, images,
volumes and containers. What is killed here is killed as by a power cut: every process of that host at once. Images
are not copied but linked (`seeding`), so that a host of 1.3 GB is there in seconds.

Needs root, and the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRIES = 3

PATIENCE = 90.0
"""Seconds that an engine may take to answer."""


class LabError(Exception):
    """The lab can't be made; one line."""


def run(*words: str, check: bool = True, seconds: float = 60, **more: str) -> str:
    """Run a command and give what it prints.

    Raises:
        LabError: it failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=seconds, env=os.environ | more
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise LabError(f"{' '.join(words)}: {exc}") from exc
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `condition` holds; look at it five times a second.

    Raises:
        LabError: it did not come to that.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.2)


@dataclass
class Host:
    """One host.

    Attributes:
        lab: name of its lab.
        number: from 1.
        folder: what its engine keeps.
        engine: it has a Docker engine.
    """

    lab: str
    number: int
    folder: Path
    engine: bool = True

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

    def cut(self, *, off: bool) -> None:
        """Pull its cable, or plug it in again."""
        run("ip", "link", "set", f"{self.name}v", "down" if off else "up")

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
    root: Path = field(default_factory=lambda: home())  # noqa: PLW0108 - it stands below

    @property
    def bridge(self) -> str:
        return f"{self.name}br"

    @property
    def hosts(self) -> list[Host]:
        return [Host(self.name, number, self.root / f"{self.name}{number}") for number in range(1, self.count + 1)]

    def wire(self) -> None:
        """Make the bridge, with an address for this machine on it, and plug all hosts in."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: network namespaces are made; run it with sudo")
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
        self.down()
        try:
            self.wire()
            for host in self.hosts:
                seed(host.folder, images)
                host.start()
                for image in images:
                    if not host.docker("images", "--quiet", image):
                        load(host, image)
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


def home() -> Path:
    """Tell where engines keep what they hold: where this machine's engine does, or links would not be possible."""
    return Path(run("docker", "info", "--format", "{{.DockerRootDir}}")) / "fed-lab"


def seed(folder: Path, images: Sequence[str]) -> None:
    """Give an engine that does not run yet the images of this machine's engine: layers by hard links, no byte copied.

    Layers are only ever read. Where the other engine keeps them otherwise, nothing is done: see `load`.
    """
    with contextlib.suppress(OSError):  # what can't be linked is loaded
        _seed(folder / "data", images)
        return
    shutil.rmtree(folder / "data", ignore_errors=True)


def _seed(target: Path, images: Sequence[str]) -> None:
    told = json.loads(run("docker", "info", "--format", "{{json .}}"))
    source = Path(told["DockerRootDir"])
    kept = source / "image" / "overlay2"
    if told["Driver"] != "overlay2" or not kept.is_dir():
        return
    ids: dict[str, str] = {}
    for image in images:
        found = json.loads(run("docker", "image", "inspect", image))[0]
        ids[image if ":" in image else f"{image}:latest"] = found["Id"]
        layers = found["GraphDriver"]["Data"]
        diffs = [layers["UpperDir"], *layers.get("LowerDir", "").split(":")]
        for diff in filter(None, diffs):
            layer = Path(diff).parent
            place = target / "overlay2" / layer.name
            if place.exists():
                continue
            shutil.copytree(layer, place, symlinks=True, copy_function=_link, ignore=shutil.ignore_patterns("work"))
            _like(layer, place)
            (place / "work").mkdir(exist_ok=True)
            short = target / "overlay2" / "l" / (layer / "link").read_text()
            short.parent.mkdir(exist_ok=True)
            short.symlink_to(f"../{layer.name}/diff")
    place = target / "image" / "overlay2"
    (place / "imagedb" / "content" / "sha256").mkdir(parents=True)
    for digest in {found.removeprefix("sha256:") for found in ids.values()}:
        content = Path("imagedb") / "content" / "sha256" / digest
        shutil.copy2(kept / content, place / content)
    shutil.copytree(kept / "layerdb" / "sha256", place / "layerdb" / "sha256")
    names = {name.split(":")[0]: {name: digest} for name, digest in ids.items()}
    (place / "repositories.json").write_text(json.dumps({"Repositories": names}))


def load(host: Host, image: str) -> None:
    """Load an image of this machine's engine into a host's, byte by byte."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        command = host.inside("docker", "load", "--quiet")
        environment = os.environ | {"DOCKER_HOST": f"unix://{host.socket}"}
        done = subprocess.run(
            command, stdin=saved.stdout, env=environment, capture_output=True, text=True, check=False, timeout=1200
        )
    if done.returncode != 0 or saved.returncode != 0:
        raise LabError(f"{image} can't be loaded into the engine of {host.name}: {done.stderr.strip()}")


def _link(source: str, target: str) -> str:
    os.link(source, target, follow_symlinks=False)
    return target


def _like(source: Path, target: Path) -> None:
    """Give folders of a copy the owner and the extended attributes of the original; files are the same files."""
    for folder, names, _ in os.walk(source):
        copy = target / Path(folder).relative_to(source)
        if not copy.is_dir():
            names.clear()
            continue
        found = os.lstat(folder)
        os.chown(copy, found.st_uid, found.st_gid)
        copy.chmod(found.st_mode & 0o7777)
        for attribute in os.listxattr(folder):
            os.setxattr(copy, attribute, os.getxattr(folder, attribute))
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


def _third(name: str) -> int:
    """Choose a network for a lab by its name, so that two labs are apart."""
    return sum(name.encode()) % 250 + 1


def main(words: Sequence[str]) -> int:
    """Do what `script/lab` is asked."""
    usage = "usage: script/lab up [HOSTS [IMAGE…]] | down | HOST docker-words…"
    lab = Lab()
    try:
        if words[:1] == ["up"]:
            lab.count = int(words[1]) if len(words) > 1 else lab.count
            lab.up(words[2:] or ["fed"])
            for host in lab.hosts:
                print(f"{host.name}  {host.address}  script/lab {host.number} ps")  # noqa: T201
            return 0
        if words == ["down"]:
            lab.count = 9
            lab.down()
            return 0
        if words and words[0].isdecimal():
            host = Host(lab.name, int(words[0]), lab.root / f"{lab.name}{words[0]}")
            environment = os.environ | {"DOCKER_HOST": f"unix://{host.socket}"}
            os.execvpe(  # noqa: S606 - no shell is wanted
                "nsenter", host.inside("docker", *words[1:]), environment
            )
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)  # noqa: T201
        return 13
    except ValueError:
        pass
    print(usage, file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
