"""One Compose project of its own: names, ports, volumes and results apart from everybody else's."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support import REPOSITORY, deadline
from tests.written import Written

QUICK: dict[str, Any] = {
    "rounds": 3,
    "model": "cnn",
    "train": {"batch_size": 32, "steps": 20},
    "federation": {"join_timeout": 90, "join_grace": 2, "rejoin_grace": 8, "quorum_timeout": 60},
}
"""A plan that comes to its end in seconds once everybody is there."""


def plan(rounds: int, steps: int = 60, **federation: Any) -> dict[str, Any]:
    """Make a plan of rounds that last a few seconds each."""
    changed = QUICK["federation"] | federation
    return QUICK | {"rounds": rounds, "train": {"batch_size": 32, "steps": steps}, "federation": changed}


class Stack(Written):
    """A Compose project.

    Args:
        name: its name, unique on this host.
        folder: receives its experiment file and its results.
        plan: its experiment.
        settings: what `.env` would say.
    """

    def __init__(self, name: str, folder: Path, plan: dict[str, Any], **settings: Any) -> None:
        self.name = name
        self.results = folder / "results"
        self.results.mkdir(exist_ok=True)
        self.experiment = folder / "experiment.yml"
        self.write_plan(plan)
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": name,
            "EXPERIMENT": str(self.experiment),
            "RESULTS": str(self.results),
            "PORT": str(free_port()),
            "STATUS_PORT": str(free_port()),
            "MAX_CLIENTS": "8",
            **{key: str(value) for key, value in settings.items()},
        }

    @property
    def image(self) -> str:
        return self.environment.get("IMAGE", "fed")

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write the experiment file."""
        self.experiment.write_text(yaml.safe_dump(plan), encoding="utf-8")

    # -- Compose and Docker ---------------------------------------------------------------------------------------

    def compose(self, *words: str, check: bool = True, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """Run `docker compose WORDS` for this project."""
        return self._run(["docker", "compose", *words], check=check, seconds=seconds)

    def docker(self, *words: str, check: bool = True, seconds: float = 60) -> str:
        """Run `docker WORDS` and give what it prints."""
        return self._run(["docker", *words], check=check, seconds=seconds).stdout.strip()

    def _run(self, command: list[str], *, check: bool, seconds: float) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline(seconds),
        )
        assert not check or result.returncode == 0, f"{command} ended with {result.returncode}: {result.stderr[-2000:]}"
        return result

    def up(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Start everything in the background, as `docker compose up -d` does."""
        return self.compose("up", "--detach", "--no-build", *words, check=check)

    def down(self) -> None:
        """Remove everything of this project, volumes too."""
        self.compose("down", "--volumes", "--timeout", "0", "--remove-orphans", check=False)

    def wait_server(self, seconds: float = 240) -> int:
        """Wait for the server's end and give its exit code."""
        return self.exit_code(self.container("server"), seconds)

    def container(self, service: str, number: int = 1) -> str:
        """Name a container."""
        return f"{self.name}-{service}-{number}"

    def inspect(self, container: str, field: str) -> str:
        """Look up one field of a container."""
        return self.docker("inspect", "--format", f"{{{{{field}}}}}", container)

    def exit_code(self, container: str, seconds: float = 60) -> int:
        """Wait for a container's end, after the last of its restarts, and give its exit code."""
        end = time.monotonic() + deadline(seconds)
        while True:
            # `docker wait` also returns where Docker restarts the container, and may then tell 0 whatever the code was
            self.docker("wait", container, seconds=seconds)
            state, code = self.inspect(container, ".State.Status}} {{.State.ExitCode").split()
            if state == "exited":
                return int(code)
            assert time.monotonic() < end, f"{container} goes on: {state}"

    def exit_codes(self, container: str, since: float) -> list[int]:
        """List the codes of a container's ends from `since` (seconds since 1970) on, those before a restart too."""
        codes = self.docker(
            "events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}", "--filter", f"container={container}",
            "--filter", "event=die", "--format", '{{index .Actor.Attributes "exitCode"}}',
        )  # fmt: skip
        return [int(code) for code in codes.split()]

    def first_code(self, container: str, since: float, seconds: float = 120) -> int:
        """Wait for a container's first end from `since` on, and give its exit code, though Docker restarts it."""
        self.until(lambda: bool(self.exit_codes(container, since)), f"the end of {container}", seconds)
        return self.exit_codes(container, since)[0]

    def kill(self, container: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a container's first process, as a crash would: `docker kill` would void its restart policy."""
        self.as_root("kill", f"-{number.value}", self.inspect(container, ".State.Pid"))

    def process(self, container: str) -> int:
        """Tell the process, as the host counts, of the command that a container's process 1 has started."""
        first = self.inspect(container, ".State.Pid")
        return int(Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()[0])

    def as_root(self, *words: str, seconds: float = 30) -> str:
        """Run a command of the host as root and give what it prints."""
        command = [*([] if os.geteuid() == 0 else ["sudo"]), *words]
        return self._run(command, check=True, seconds=seconds).stdout

    def mount_disk(self, folder: Path, *, megabytes: int) -> None:
        """Mount a disk of its own, and of that size, at `folder`."""
        folder.mkdir()
        self.as_root("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "tmpfs", str(folder))

    def unmount(self, folder: Path) -> None:
        """Unmount what `mount_disk` has mounted."""
        self.as_root("umount", "--lazy", str(folder))

    def log(self, service: str) -> str:
        """Everything that a service's containers have written, without prefix."""
        result = self.compose("logs", "--no-log-prefix", "--no-color", service)
        # Compose clears the line before it prints, even where there is no terminal
        return (result.stdout + result.stderr).replace("\x1b[2K", "")

    def said(self, container: str) -> str:
        """Everything that one container has written."""
        result = self._run(["docker", "logs", container], check=True, seconds=30)
        return result.stdout + result.stderr

    def name_of(self, container: str) -> str:
        """Tell which identity a client's container has claimed, as soon as it has."""
        names: list[str] = []

        def claimed() -> bool:
            names[:] = re.findall(r"client: (client_\d+) looks for", self.said(container))
            return bool(names)

        self.until(claimed, f"{container} to claim an identity")
        return names[-1]

    def clients(self) -> list[str]:
        """Names of the client containers that run."""
        listed = self.docker("ps", "--filter", f"name={self.name}-client-", "--format", "{{.Names}}")
        return sorted(listed.split(), key=lambda name: int(name.rsplit("-", 1)[1]))

    # -- what can be seen of the run ------------------------------------------------------------------------------

    @property
    def latest(self) -> Path:
        return self.results / "latest"

    def of_round(self, number: int) -> list[dict[str, str]]:
        """Rows of `clients.csv` for one round."""
        return [row for row in self.table("clients.csv") if row["round"] == str(number)]

    @property
    def status(self) -> dict[str, Any]:
        """What the status page tells; nothing while there is none."""
        address = f"http://127.0.0.1:{self.environment['STATUS_PORT']}/status"
        try:
            with urllib.request.urlopen(address, timeout=deadline(10)) as answer:
                content: dict[str, Any] = json.load(answer)
        except (OSError, http.client.HTTPException):
            return {}
        return content

    @property
    def phase(self) -> str:
        """What the server is at."""
        return str(self.status.get("phase", ""))

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
        """Wait until `condition` holds; look at it ten times a second.

        Raises:
            AssertionError: it did not come to that, with the server's last lines.
        """
        end = time.monotonic() + deadline(seconds)
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.log('server')[-3000:]}"
            time.sleep(0.1)

    def until_begins(self, phase: str, seconds: float = 90) -> int:
        """Wait until the server goes over to `phase`; tells the round that this is in."""
        self.until(lambda: self.phase not in {phase, ""}, f"another phase than {phase}", seconds)
        self.until(lambda: self.phase == phase, f"phase {phase}", seconds)
        seen = self.status
        assert seen["phase"] == phase, f"{phase} was over at once"
        return int(seen["round"]) + (phase == "training")

    def until_round(self, number: int, seconds: float = 120) -> None:
        """Wait until round `number` is in the history."""
        self.until(lambda: self.rounds >= number, f"round {number}", seconds)

    def until_event(self, event: str, client: str | None = None, count: int = 1, seconds: float = 90) -> None:
        """Wait until `events.csv` tells of an event."""

        def happened() -> bool:
            rows = [r for r in self.table("events.csv") if r["event"] == event and client in (None, r["client"])]
            return len(rows) >= count

        self.until(happened, f"event {event} {client or ''}", seconds)

    def check_history(self, rounds: int) -> None:
        """Hold the history to what it promises: each round once, no seat twice, one size; and nowhere a traceback."""
        history = self.table("history.csv")
        assert [row["round"] for row in history] == [str(number) for number in range(1, rounds + 1)]
        by_round: dict[str, list[dict[str, str]]] = {}
        for row in self.table("clients.csv"):
            by_round.setdefault(row["round"], []).append(row)
        for row in history:
            members = by_round[row["round"]]
            assert len({member["client"] for member in members}) == len(members)
            seats = [int(member["seat"]) for member in members]
            assert len(set(seats)) == len(seats), f"round {row['round']} has a seat twice"
            assert {member["size"] for member in members} == {row["size"]}
            assert all(seat < int(row["size"]) for seat in seats)
            assert len([m for m in members if m["state"] == "trained"]) == int(row["clients"])
        for service in ("init", "server", "client"):
            assert "Traceback" not in self.log(service)


def free_port() -> int:
    """Find a TCP port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
