"""`fed status`: what a person sees of a run on a terminal, and a program in a pipe, up to its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from services.errors import NetworkError, StoppedError, TrainingError, UsageError
from services.tables import HISTORY_COLUMNS
from services.terminal import status
from tests.server.page.test_render import CLIENT
from tests.support import deadline
from tests.terminal.stage import FED, Page, Screen, page, surroundings

EVENT = ["2026-11-24T06:41:00.000+00:00", 1, "returned", "client_1", ""]

SECOND = {column: [1, 2] for column in HISTORY_COLUMNS} | {"test_accuracy": [0.9631, 0.9796]}


@pytest.fixture
def run() -> Iterator[Page]:
    """Serve the page of a run in its second round."""
    with page() as served:
        yield served


def listing(url: str, *words: str, **env: str) -> subprocess.Popen[str]:
    """Start `fed status` with its output in a pipe."""
    return subprocess.Popen(
        [*FED, "status", "--url", url, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(**env),
    )


def told(process: subprocess.Popen[str]) -> tuple[list[str], str, int]:
    """Wait for a listing's end: its lines without their times, what it said on standard error, and its code."""
    out, err = process.communicate(timeout=deadline(60))
    lines = out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines], err, process.returncode


# -- on a terminal ----------------------------------------------------------------------------------------------------


def test_a_run_is_drawn_as_it_goes_on_and_stays_at_its_end(run: Page) -> None:
    """Each state takes the place of the last; the last stays, and the code is that of a completed run."""
    with Screen([*FED, "status", "--url", run.url]) as screen:
        text = screen.until("120/500")
        assert "Training · round 2 of 5" in text
        assert re.search(r"client_0 +training +16,000 +4\.8 +0\.9700 +now ", text)
        assert re.search(r"client_1 +gone .*connection lost", text)
        assert re.search(r"^rounds .*1/5$", text, re.MULTILINE)
        run.change(history=SECOND, test_accuracy=0.9796, events=[EVENT])
        text = screen.until("0.9796")
        assert (text.count("rounds"), text.count("client_0")) == (1, 1)
        assert "returned client_1" in text
        run.change(phase="completed", clients={}, gone={"client_0": CLIENT | {"state": "over", "steps": None}})
        assert screen.end() == 0
        assert screen.scrolled.count("rounds") == 1
        assert "Completed" in screen.text
        assert not screen._screen.cursor.hidden


def test_ctrl_c_ends_it_without_a_trace(run: Page) -> None:
    """Ctrl-C leaves the last picture, no traceback, and the code of what was stopped."""
    with Screen([*FED, "status", "--url", run.url]) as screen:
        screen.until("120/500")
        screen.interrupt()
        assert screen.end() == StoppedError.exit_code
        assert "Traceback" not in screen.scrolled
        assert screen.text.endswith("refused at the door: a malformed frame (3)")


def test_a_killed_one_leaves_a_terminal_with_its_cursor(run: Page) -> None:
    """A terminal is of use after a program on it was killed."""
    with Screen([*FED, "status", "--url", run.url]) as screen:
        screen.until("120/500")
        screen.interrupt(signal.SIGKILL)
        assert screen.end() == -signal.SIGKILL
        assert not screen._screen.cursor.hidden


def test_a_terminal_may_change_its_size(run: Page) -> None:
    """The next picture fits the new size: fewer figures, and a count of the clients that have no line."""
    run.change(clients={f"client_{number}": CLIENT for number in range(40)})
    with Screen([*FED, "status", "--url", run.url], columns=100, lines=60) as screen:
        screen.until("client_39")
        screen.resize(50, 20)
        text = screen.until(" more: ")
        assert "images" not in text
        assert all(len(line) <= 50 for line in text.splitlines())
        assert len(text.splitlines()) < 20


def test_nothing_of_a_peer_is_a_command_to_the_terminal(run: Page) -> None:
    """Names, reasons, events and refusals reach the terminal without escapes and without styles of their own."""
    evil = "\x1b[35m\x1b]0;title\x07[red]\x9b2J\u202eevil"
    run.change(
        clients={evil: CLIENT | {"reason": evil, "steps": None}},
        reason=evil,
        events=[[EVENT[0], 1, evil, evil, evil]],
        refusals={evil: 1},
    )
    with Screen([*FED, "status", "--url", run.url], columns=200) as screen:
        text = screen.until("refused at the door")
        assert text.count("[35m ]0;title [red] 2J evil") == 6  # the name is cut
        for command in (b"\x1b[35m", b"\x1b]0", b"\x07", "\x9b".encode(), "\u202e".encode()):
            assert command not in screen.raw


@pytest.mark.parametrize(
    ("env", "drawn", "coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TTY_INTERACTIVE": "0"}, False, False),
        ({"LOG_FORMAT": "json"}, False, False),
    ],
    ids=str,
)
def test_who_wants_no_colours_or_no_drawing_gets_none(
    run: Page, env: Mapping[str, str], *, drawn: bool, coloured: bool
) -> None:
    """NO_COLOR takes the colours away; a dumb terminal, or who says so, is given plain lines."""
    with Screen([*FED, "status", "--url", run.url], env=env) as screen:
        screen.until("20261124-064015")
        run.change(phase="completed")
        assert screen.end() == 0
        assert (b"\x1b[2K" in screen.raw) == drawn
        assert bool(re.search(rb"\x1b\[[\d;]*(3[0-7]|9[0-7]|38;5)", screen.raw)) == coloured
        assert (b"\x1b" in screen.raw) == drawn


# -- in a pipe --------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_for_each_change(run: Page) -> None:
    """What is found, each event, each round and the end are a plain line each, without escapes."""
    process = listing(run.url)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first[9:] == (
        "run 20261124-064015: training, 1 of 5 rounds done, 1 of 3 clients, 1 min 15 s, test accuracy 0.9631\n"
    )
    run.change(events=[*run.state["events"], EVENT], history=SECOND)
    assert process.stdout.readline()[9:] == "returned client_1\n"
    assert process.stdout.readline()[9:] == (
        "round 2/5: 2.0 s, 2 clients, loss 2.0000, accuracy 2.0000, test accuracy 0.9796\n"
    )
    run.change(phase="completed", test_accuracy=0.9796)
    assert told(process) == (["completed in 1 min 15 s, test accuracy 0.9796"], "", 0)


def test_lines_for_programs_are_json(run: Page) -> None:
    """With LOG_FORMAT=json each line is an object that says of which run, round, client and event it is."""
    process = listing(run.url, LOG_FORMAT="json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["run"], first["round"], first["event"], first["role"]) == ("20261124-064015", 1, None, "status")
    run.change(phase="completed", events=[*run.state["events"], EVENT])
    lines = [json.loads(line) for line in process.communicate(timeout=deadline(60))[0].splitlines()]
    assert [(line["time"], line["round"], line["event"], line["client"]) for line in lines[:1]] == [
        (EVENT[0], 1, "returned", "client_1")
    ]
    assert lines[1]["event"] == "completed"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("phase", "error", "line"),
    [
        ("stopped", StoppedError, "fed status: run 20261124-064015 is stopped: stopped by a signal\n"),
        ("failed", TrainingError, "fed status: error: run 20261124-064015 is failed: stopped by a signal\n"),
    ],
)
def test_a_run_that_is_not_completed_has_its_code(
    run: Page, phase: str, error: type[StoppedError | TrainingError], line: str
) -> None:
    """A run that is stopped or failed ends this with the code of that, and the reason in a line."""
    run.change(phase=phase, reason="stopped by a signal")
    lines, err, code = told(listing(run.url))
    assert (len(lines), err, code) == (1, line, error.exit_code)


def test_the_last_state_is_seen_of_a_server_that_ends_at_once(run: Page) -> None:
    """A server that ends in the moment its run is over is still seen to have completed it."""
    process = listing(run.url)
    assert process.stdout is not None
    process.stdout.readline()
    run.change(phase="completed")
    run.close()
    lines, err, code = told(process)
    assert (lines, err, code) == (["completed in 1 min 15 s, test accuracy 0.9631"], "", 0)


# -- once -------------------------------------------------------------------------------------------------------------


def test_once_shows_all_there_is_and_ends(run: Page) -> None:
    """`--once` into a pipe has a line for each client, no matter how many, and no escapes; the run goes on."""
    run.change(clients={f"client_{number}": CLIENT for number in range(100)})
    out, err = listing(run.url, "--once").communicate(timeout=deadline(60))
    assert err == ""
    assert len(re.findall(r"^client_\d+ +training .* 120/500$", out, re.MULTILINE)) == 100
    assert "\x1b" not in out


def test_colours_are_forced_as_rich_does(run: Page) -> None:
    """FORCE_COLOR brings colours into a pipe, and no more than that."""
    out, _ = listing(run.url, "--once", FORCE_COLOR="1").communicate(timeout=deadline(60))
    assert re.search(r"\x1b\[[\d;]*36m", out)
    assert "\x1b[2K" not in out


def test_json_is_what_the_page_tells(run: Page) -> None:
    """`--json` writes the state as `/status` has it."""
    out, _ = listing(run.url, "--json").communicate(timeout=deadline(60))
    assert json.loads(out) == run.state


# -- nobody there -----------------------------------------------------------------------------------------------------


def free_url() -> str:
    """Give an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("flags", [{}, {"once": True}, {"as_json": True}], ids=str)
def test_nobody_there_is_one_line(flags: dict[str, Any]) -> None:
    """Where no server answers, the line names the address and both ways out."""
    url = free_url()
    with pytest.raises(NetworkError) as caught:
        status.run(url, **flags)
    assert str(caught.value) == (
        f"no status page answers at {url} (Connection refused); wanted a server that is at work on a run;"
        " start one, or name its address with --url or STATUS_PORT"
    )


def test_an_address_that_is_none_is_refused() -> None:
    """An address without a scheme is a mistake of the command line's."""
    with pytest.raises(UsageError) as caught:
        status.run("localhost:8000")
    assert str(caught.value) == (
        "the address of the status page is 'localhost:8000'; wanted http://host:port; correct --url"
    )
