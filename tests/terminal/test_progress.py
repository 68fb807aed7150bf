"""How far set-up is: a bar on a terminal, nothing elsewhere, and the same work either way."""

from __future__ import annotations

import sys

import pytest

from services.terminal.progress import counted, working
from tests.terminal.stage import Screen

PROGRAM = """
import logging
from services import logs
from services.terminal.progress import counted, working

logs.configure("init")
for number in counted(range(4), "dealing [red]the data set"):
    if number == 3:
        logging.getLogger("fed.init").info("a line between")
        input()
with working("checking the data set"):
    input()
logging.getLogger("fed.init").info("ready")
"""


def test_a_terminal_shows_how_far_it_is() -> None:
    """A bar counts what is done, with lines above it; one without a number shows that work goes on; both go."""
    with Screen([sys.executable, "-c", PROGRAM]) as screen:
        lines = screen.until("3/4").splitlines()
        assert lines[0][9:] == "init: a line between"
        assert lines[-1].startswith("dealing [red]the data set ━")
        screen.type("\n")
        text = screen.until("checking the data set")
        assert "dealing" not in text
        screen.type("\n")
        assert screen.end() == 0
        assert [line[9:] for line in screen.text.splitlines() if line] == ["init: a line between", "init: ready"]


def test_without_a_terminal_only_the_work_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    """All items come in their order, and nothing is written."""
    assert list(counted([3, 1, 2], "dealing")) == [3, 1, 2]
    with working("checking"):
        pass
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_work_is_the_works() -> None:
    """What the work raises comes through."""
    with pytest.raises(ZeroDivisionError):
        divide([1, 0])


@working("dividing")
def divide(numbers: list[int]) -> list[int]:
    """Do some work that fails at a zero."""
    return [1 // number for number in counted(numbers, "dividing")]
