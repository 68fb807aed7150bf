"""A machine of a test's making: a PATH with a few system tools and a `docker` that says what the test wants."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import REPOSITORY, deadline

# fmt: off
TOOLS = [
    "awk", "bash", "cat", "chmod", "cut", "date", "dirname", "docker", "env", "grep", "head", "id", "mkdir", "mktemp",
    "readlink", "rm", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "tail", "timeout", "tr", "true",
]
# fmt: on

# Answers the questions that the scripts ask; anything else is an error that shows in the test's message.
DOCKER = """#!/bin/sh
case "$*" in
    "version --format "*) [ -z "$FAKE_REFUSAL" ] || { echo "$FAKE_REFUSAL" >&2; exit 1; }; echo "$FAKE_ENGINE" ;;
    "compose version --short") [ -n "$FAKE_COMPOSE" ] || exit 1; echo "$FAKE_COMPOSE" ;;
    "image inspect --format "*) echo "<no value>" ;;
    "image inspect "*) [ -n "$FAKE_IMAGE" ] || exit 1; echo "[]" ;;
    "pull "*) echo "no such host" >&2; exit 1 ;;
    *) echo "unexpected: docker $*" >&2; exit 99 ;;
esac
"""


@dataclass
class Machine:
    """Where a script under test runs.

    Attributes:
        folder: holds the programs that the script finds.
        environment: what the script finds in its environment.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `script` with the environment changed by `environment`, and give what it wrote and its code."""
        return subprocess.run(
            [str(self.folder / "bash"), str(REPOSITORY / "script" / script), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=deadline(60),
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of an unknown system, with a Docker engine, Compose and base image that fit."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (folder / tool).symlink_to(found)
    docker = folder / "docker"
    docker.unlink(missing_ok=True)
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    environment = {
        "PATH": str(folder),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "FAKE_ENGINE": "28.0.1",
        "FAKE_COMPOSE": "v2.40.0",
        "FAKE_IMAGE": "yes",
    }
    return Machine(folder, environment)
