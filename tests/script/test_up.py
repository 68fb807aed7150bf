"""`script/up`: refuses settings before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.errors import StorageError, UsageError
from tests.script.conftest import Machine


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("CLIENTS", "0", "a whole number from 1 to 1024"),
        ("CLIENTS", "three", "a whole number from 1 to 1024"),
        ("MAX_CLIENTS", "-1", "a whole number from 1 to 1024"),
        ("PORT", "70000", "a whole number from 1 to 65535"),
        ("STATUS_PORT", "80a", "a whole number from 1 to 65535"),
        ("TENSORBOARD_PORT", "0", "a whole number from 1 to 65535"),
    ],
)
def test_numbers_out_of_range_are_refused(machine: Machine, key: str, value: str, wanted: str) -> None:
    """A number that can't be used ends the script with code 2 and one line that names it, the range and the way out."""
    done = machine.run("up", **{key: value})
    assert done.stderr == f"up: {key} is '{value}'; wanted {wanted}; change {key} in .env or in the environment\n"
    assert done.returncode == UsageError.exit_code


def test_a_missing_experiment_is_refused(machine: Machine) -> None:
    """A missing experiment file ends the script with code 2."""
    done = machine.run("up", EXPERIMENT="experiments/nowhere.yml")
    assert done.stderr == (
        "up: the experiment file experiments/nowhere.yml is missing; change EXPERIMENT in .env or in the environment\n"
    )
    assert done.returncode == UsageError.exit_code


def test_a_missing_folder_of_models_is_refused(machine: Machine) -> None:
    """A missing folder of models ends the script with code 2."""
    done = machine.run("up", MODELS="./nowhere")
    assert done.stderr == (
        "up: the folder of models ./nowhere is missing; change MODELS in .env or in the environment\n"
    )
    assert done.returncode == UsageError.exit_code


def test_a_results_folder_that_cannot_be_made_is_refused(machine: Machine, tmp_path: Path) -> None:
    """A results folder in the place of a file ends the script with code 6."""
    taken = tmp_path / "taken"
    taken.write_text("", encoding="utf-8")
    done = machine.run("up", RESULTS=str(taken))
    assert done.stderr == (
        f"up: the results folder {taken} can't be made; change RESULTS in .env or in the environment\n"
    )
    assert done.returncode == StorageError.exit_code


def test_help_is_the_head_of_the_script(machine: Machine) -> None:
    """`script/up --help` prints its usage and starts nothing."""
    done = machine.run("up", "--help")
    assert done.returncode == 0
    assert "usage: script/up [--monitor] [flags of `docker compose up`" in done.stdout
    assert "[1/5]" not in done.stdout
