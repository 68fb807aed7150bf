"""`script/bench`: what it says before it measures anything."""

from __future__ import annotations

from tests.script.conftest import Machine


def test_help_is_the_head_of_the_script(machine: Machine) -> None:
    """`script/bench --help` prints its usage and starts nothing."""
    done = machine.run("bench", "--help")
    assert done.returncode == 0
    assert "usage: script/bench [NAME…] [--pairs N]" in done.stdout
    assert done.stderr == ""
