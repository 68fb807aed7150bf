"""The view at the foot of a terminal: nothing that is written by anybody breaks it, and it leaves no trace."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.support import deadline
from tests.terminal.stage import Screen, surroundings

PROGRAM = """
import logging, os, subprocess, sys
from rich.text import Text
from services import logs
from services.terminal import live

logs.configure("server", form=os.environ.get("FORM", "text"), verbose="QUIET" not in os.environ)
log = logging.getLogger("fed.server")
log.info("before")
with live.board() as board:
    print("drawn" if board else "not drawn", flush=True)
    if board:
        board.show(Text("the picture\\nof two lines"))
    {body}
print("after", file=sys.stderr)
"""


def program(body: str) -> list[str]:
    """Give the command of a program that does this while a picture is shown."""
    return [sys.executable, "-c", PROGRAM.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ").strip())]


PICTURE = ["the picture", "of two lines"]


def above(text: str) -> list[str]:
    """Give the lines above the picture, which must be whole and last, each without its time."""
    lines = text.splitlines()
    assert lines[-2:] == PICTURE
    assert text.count("picture") == 1
    return [line[9:] if line[2:3] == ":" else line for line in lines[:-2]]


def test_lines_of_all_kinds_go_above_the_picture() -> None:
    """Log lines, prints, what C code or a child process writes, long lines and escapes: the picture stays whole."""
    body = """
    log.info("a log line with [red]markup[/red] and \\x1b[2Jan escape")
    print("a print")
    os.write(2, b"found a processor\\nchose a \\xff kernel\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(1, b'a child\\\\n')"])
    log.warning("long " * 50)
    print("half a line", end="", flush=True)
    print(", and the rest")
    log.info("done")
    input()
    """
    with Screen(program(body), columns=60, lines=20) as screen:
        lines = above(screen.until("server: done", "and the rest", "a child", *PICTURE))
        assert "server: a log line with [red]markup[/red] and  [2Ja" in lines
        for words in (
            "drawn",
            "a print",
            "found a processor",
            "chose a � kernel",
            "a child",
            "half a line, and the rest",
        ):
            assert lines.count(words) == 1, words
        assert "long " * 49 + "long" in "".join(line.ljust(60) for line in screen.text.splitlines())
        assert b"\x1b[2J" not in screen.raw


def test_it_goes_without_a_trace() -> None:
    """Once the block is over only lines are left, those of the last moment too, and descriptors lead where they did."""
    body = """
    for number in range(200):
        os.write(2, b"line %d\\n" % number)
        log.info("log %d", number)
    """
    with Screen(program(body), lines=20) as screen:
        assert screen.end() == 0
        lines = screen.scrolled.splitlines()
        assert "picture" not in screen.scrolled
        assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(200)]
        assert [line[9:] for line in lines if "log " in line] == [f"server: log {number}" for number in range(200)]
        assert lines[-1] == "after"
        assert not screen._screen.cursor.hidden


def test_many_threads_may_write() -> None:
    """Lines that come from many threads while the picture changes are all there, each whole."""
    body = """
    import threading
    def write(place):
        for number in range(50):
            log.info("thread %d line %d", place, number)
            board.show(Text("the picture\\nof two lines"))
    threads = [threading.Thread(target=write, args=(place,)) for place in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    log.info("done")
    input()
    """
    with Screen(program(body), columns=60, lines=10) as screen:
        screen.until("server: done", *PICTURE)
        lines = above(screen.scrolled)
        wanted = {f"server: thread {place} line {number}" for place in range(8) for number in range(50)}
        assert sorted(lines) == sorted({*wanted, "server: before", "drawn", "server: done"})


def test_an_error_shows_below_the_lines() -> None:
    """A traceback of the program itself comes after the picture has gone, whole."""
    with Screen(program("raise SystemExit('the reason')")) as screen:
        assert screen.end() == 1
        assert screen.text.splitlines()[-1] == "the reason"
        assert "picture" not in screen.text


def test_a_second_one_is_none() -> None:
    """While a picture is shown there is no second one, and lines within go above the first."""
    body = """
    with live.board() as second:
        log.info("second: %s", second)
        input()
    """
    with Screen(program(body)) as screen:
        lines = above(screen.until("second", "drawn", *PICTURE))
        assert sorted(lines) == ["drawn", "server: before", "server: second: None"]


@pytest.mark.parametrize(
    "env",
    [{"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}, {"TTY_COMPATIBLE": "0"}, {"FORM": "json"}, {"QUIET": "1"}],
    ids=str,
)
def test_who_wants_none_gets_none(env: dict[str, str]) -> None:
    """A dumb terminal, who says so, JSON lines, and a quiet command have no picture, and no escapes."""
    with Screen(program("log.info('within')"), env=env) as screen:
        assert screen.end() == 0
        assert "not drawn" in screen.text
        assert b"\x1b" not in screen.raw


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}], ids=str)
def test_a_pipe_gets_lines_alone(env: dict[str, str]) -> None:
    """In a pipe everything is written as it always is."""
    done = subprocess.run(
        program("log.info('within')"),
        capture_output=True,
        text=True,
        check=True,
        env=surroundings(**env),
        timeout=deadline(60),
    )
    assert done.stdout == "not drawn\n"
    assert [line[9:] for line in done.stderr.splitlines()[:2]] == ["server: before", "server: within"]
    assert "\x1b" not in done.stderr
