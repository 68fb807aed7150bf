"""`script/bootstrap`: uses what fits, and says in one line what doesn't."""

from __future__ import annotations

import getpass

import pytest

from services.errors import SetupError
from tests.script.conftest import Machine

BY_HAND = (
    "install Docker Engine 20.10 or later with Compose 2.24 or later (docs.docker.com/engine/install), start it,"
    " then run this again"
)
CANNOT_BE_PULLED = "is not here and can't be pulled; wanted BASE_IMAGE to name one that is; load it, or change .env"
NO_BASE = "no image registry answers, and base image python:3.11-slim-bookworm is not here"
ME = getpass.getuser()


def test_what_is_there_is_used(machine: Machine) -> None:
    """A machine with an engine, Compose and a base image needs nothing."""
    done = machine.run("bootstrap")
    assert done.returncode == 0, done.stderr
    steps = [line.rsplit(" in ", 1)[0] for line in done.stdout.splitlines()]
    assert steps == [
        "[1/3] Docker engine … 28.0.1 found",
        "[2/3] Compose … 2.40.0 found",
        "[3/3] base image … python:3.11-slim-bookworm found",
    ]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"FAKE_ENGINE": "19.03.8"},
            "Docker engine is 19.03.8; wanted 20.10 or later; upgrade it",
        ),
        (
            {"FAKE_COMPOSE": "2.17.3"},
            "Compose is 2.17.3; wanted 2.24 or later; upgrade it",
        ),
        (
            {"FAKE_COMPOSE": ""},
            f"Compose v2 is missing, and this system has no apt; {BY_HAND}",
        ),
        (
            {"FAKE_REFUSAL": "Cannot connect to the Docker daemon", "DOCKER_HOST": "tcp://elsewhere"},
            "the Docker engine at tcp://elsewhere doesn't answer; start it, or unset DOCKER_HOST and DOCKER_CONTEXT",
        ),
        (
            {"FAKE_REFUSAL": "Cannot connect to the Docker daemon"},
            f"Docker is missing, and this system has no apt; {BY_HAND}",
        ),
        (
            {"FAKE_REFUSAL": "permission denied while trying to connect"},
            f"the Docker engine doesn't let {ME} in; run 'sudo usermod -aG docker {ME}' and log in again, or use sudo",
        ),
        (
            {"FAKE_IMAGE": "", "BASE_IMAGE": "mine:1"},
            f"base image mine:1 {CANNOT_BE_PULLED}",
        ),
        (
            {"FAKE_IMAGE": ""},
            f"{NO_BASE}, and this system has no apt; {BY_HAND}",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(machine: Machine, environment: dict[str, str], message: str) -> None:
    """What is missing or too old ends the script with the code of SetupError and one line that says what to do."""
    done = machine.run("bootstrap", **environment)
    assert done.stderr == f"bootstrap: {message}\n"
    assert done.returncode == SetupError.exit_code
