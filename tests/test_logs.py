"""What a person sees on the terminal, and what the file keeps."""

from __future__ import annotations

import datetime
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import logs
from services.errors import StorageError
from tests.support import logging_kept


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    with logging_kept():
        yield


def shown(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Give the lines on standard error, each without its time, which must be there."""
    lines = capfd.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_a_line_is_short_and_names_its_role(capfd: pytest.CaptureFixture[str]) -> None:
    """A line has time, role and message; the level only where it is a warning or worse."""
    logs.configure("server")
    logger = logging.getLogger("fed.server.network")
    logger.debug("too fine")
    logger.info("round %d", 1)
    logger.warning("slow")
    logger.error("lost")
    assert shown(capfd) == ["server: round 1", "server: warning: slow", "server: error: lost"]


def test_quiet_shows_warnings_only(capfd: pytest.CaptureFixture[str]) -> None:
    """Where nobody wants to see what goes on, warnings still show."""
    logs.configure("client", verbose=False)
    logging.getLogger("fed.client").info("round 1")
    logging.getLogger("fed.client").warning("slow")
    assert shown(capfd) == ["client: warning: slow"]


def test_libraries_are_kept_off_the_terminal(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Libraries show errors alone, the websocket library and Python's warnings nothing; the file has all of it."""
    logs.configure("server")
    logs.to_file(tmp_path / "server.log")
    for name in ("declearn.server", "tensorflow.native", "federation", "fed.server.websockets"):
        logging.getLogger(name).warning("chatter of %s", name)
        logging.getLogger(name).error("error of %s", name)
    warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    assert shown(capfd) == [
        "server: error: error of declearn.server",
        "server: error: error of tensorflow.native",
        "server: error: error of federation",
    ]
    text = (tmp_path / "server.log").read_text()
    assert text.count("chatter of") == text.count("error of") == 4


def test_the_file_has_the_whole_line(tmp_path: Path) -> None:
    """A line of the file has date, level, logger and message, in UTF-8."""
    logs.configure("server")
    logs.to_file(tmp_path / "server.log")
    logging.getLogger("fed.server").info("waiting for %d clients …", 3)
    text = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    fed\.server: waiting for 3 clients …\n",
        text,
    )


def test_a_traceback_is_for_the_file_alone(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An exception logged with its traceback is one line on the terminal, whichever handler formats it first."""
    logs.configure("server")
    logs.to_file(tmp_path / "server.log")
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("fed.server").exception("it failed")
        logging.getLogger("fed.server").exception("again")
    assert shown(capfd) == ["server: error: it failed", "server: error: again"]
    assert (tmp_path / "server.log").read_text().count("ValueError: odd") == 2


def test_a_bug_is_one_line_and_a_traceback_in_the_file(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What nobody foresaw is worded with its kind and place; its traceback is in the file, and nowhere else."""

    def buggy() -> None:
        raise ZeroDivisionError("by zero")

    logs.configure("server")
    logs.to_file(tmp_path / "server.log")
    with pytest.raises(ZeroDivisionError) as caught:
        buggy()
    line = buggy.__code__.co_firstlineno + 1
    assert logs.unforeseen(caught.value) == f"unforeseen ZeroDivisionError at test_logs.py:{line}: by zero"
    assert logs.unforeseen(KeyError("never raised")) == "unforeseen KeyError: 'never raised'"
    assert shown(capfd) == []
    text = (tmp_path / "server.log").read_text()
    assert "DEBUG   fed.bug: unforeseen error\nTraceback (most recent call last):\n" in text
    assert f'test_logs.py", line {line}, in buggy\n' in text


def test_no_line_is_a_command_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """What a peer says stands on one line of its own, without escapes."""
    logs.configure("server")
    logging.getLogger("fed.server").warning("lost %s", "client\x1b[2J\nserver: round 9/9\r\x9b31m")
    assert shown(capfd) == ["server: warning: lost client [2J server: round 9/9  31m"]


# -- for programs -----------------------------------------------------------------------------------------------------


def objects(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Give the objects on standard error, one a line."""
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_for_programs_is_an_object(capfd: pytest.CaptureFixture[str]) -> None:
    """It has the time as RFC 3339 has it, level, role, logger and message, and null for what is not known."""
    logs.configure("server", form="json")
    moment = datetime.datetime(2026, 11, 24, 6, 40, 15, 250_000, datetime.UTC)
    record = logging.LogRecord("fed.server", logging.WARNING, "", 0, "slow …\n%s", ("\x1b[2J\u2028",), None)
    record.created = moment.timestamp()
    logging.getLogger("fed.server").handle(record)
    text = capfd.readouterr().err
    assert text.isascii()
    assert text.count("\n") == 1
    line = json.loads(text)
    assert list(line) == ["time", "level", "role", "logger", "run", "round", "client", "event", "message"]
    assert line == {
        "time": "2026-11-24T06:40:15.250+00:00",
        "level": "warning",
        "role": "server",
        "logger": "fed.server",
        "run": None,
        "round": None,
        "client": None,
        "event": None,
        "message": "slow …\n\x1b[2J\u2028",
    }


def test_a_line_says_what_it_is_about(capfd: pytest.CaptureFixture[str]) -> None:
    """What holds for a process is in each of its lines, unless a line says otherwise; a new process knows nothing."""
    logs.configure("server", form="json")
    logs.about(run="a", round=3)
    logger = logging.getLogger("fed.server")
    logger.info("one")
    logger.info("two", extra={"round": 2, "client": "client_0", "event": "lost"})
    logs.about(round=4)
    logs.last_words("fed server", "error", "three")
    logs.configure("server", form="json")
    logger.info("four")
    assert [(line["run"], line["round"], line["client"], line["event"]) for line in objects(capfd)] == [
        ("a", 3, None, None),
        ("a", 2, "client_0", "lost"),
        ("a", 4, None, None),
        (None, None, None, None),
    ]


@pytest.mark.parametrize(("form", "count"), [("text", 0), ("json", 1)])
def test_what_a_person_need_not_read_is_for_programs(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, form: str, count: int
) -> None:
    """Events without a line of their own are told to programs, and in the file."""
    logs.configure("server", form=form)
    logs.to_file(tmp_path / "server.log")
    logging.getLogger(logs.EVENTS).info("joined client_0")
    logging.getLogger("declearn.server").warning("chatter")
    assert len(capfd.readouterr().err.splitlines()) == count
    assert "joined client_0" in (tmp_path / "server.log").read_text()


def test_a_traceback_is_in_no_line_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    """A line stays a line, whatever is logged with it."""
    logs.configure("server", form="json")
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("fed.server").exception("it failed")
    assert [line["message"] for line in objects(capfd)] == ["it failed"]


@pytest.mark.parametrize(
    ("level", "text"), [("error", "fed init: error: no [2Jroom\n"), ("warning", "fed init: no [2Jroom\n")]
)
def test_last_words_have_the_form_of_the_lines(capfd: pytest.CaptureFixture[str], level: str, text: str) -> None:
    """How a command ended is a plain line, or an object with its level."""
    logs.configure("init")
    logs.last_words("fed init", level, "no\x1b[2Jroom")
    assert capfd.readouterr().err == text
    logs.configure("init", form="json")
    logs.last_words("fed init", level, "no room")
    [line] = objects(capfd)
    assert (line["level"], line["role"], line["logger"], line["message"]) == (level, "init", "fed", "no room")


def test_configuring_anew_replaces_what_was(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines are not doubled when logging is set up a second time."""
    logs.configure("init")
    logs.configure("server")
    logging.getLogger("fed.server").info("once")
    assert shown(capfd) == ["server: once"]


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The line names the file and the reason."""
    path = tmp_path / "missing" / "server.log"
    with pytest.raises(StorageError) as caught:
        logs.to_file(path)
    assert str(caught.value) == (
        f"{path} can't be written (No such file or directory); wanted a writable results folder; mend its permissions"
    )
