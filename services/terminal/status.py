"""`fed status`: what a server is at, live on a terminal, and as lines where nobody looks."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any, cast

from services import logs
from services.errors import StoppedError, TrainingError
from services.terminal import changes, feed
from services.terminal.changes import Change
from services.terminal.live import Board, Terminal
from services.terminal.picture import Picture
from services.wording import printable

WIDTH = 160
"""Characters of a line of a picture that is drawn into a pipe or file."""


def run(url: str, *, once: bool = False, as_json: bool = False, form: str = "text") -> None:
    """Show a run until it is over; end as it did.

    Args:
        url: of the status page.
        once: show its state and end.
        as_json: write its state as JSON, and end.
        form: of the lines where there is no terminal, `text` or `json`.

    Raises:
        UsageError: `url` is none.
        NetworkError: no server answers there.
        LostError: the server went away and did not come back.
        StoppedError, TrainingError: the run was stopped, or failed.
    """
    url = feed.check(url)
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")  # a terminal may lack our characters
    terminal = Terminal(sys.stdout)
    if as_json:
        sys.stdout.write(json.dumps(feed.ask(url)) + "\n")
    elif once:
        if not terminal.draws:
            terminal.width = WIDTH
        terminal.print(Picture(feed.ask(url), whole=True))
    else:
        _end(_watch(url, terminal) if terminal.draws and form == "text" else _list(url, form))


def _watch(url: str, terminal: Terminal) -> feed.State:
    """Draw each state over the last one; gives the last."""
    state: feed.State = {}
    board = Board(terminal, stays=True)
    with board.drawn():
        for news in feed.lasting(url):
            if isinstance(news, str):
                board.show(Picture(state, news))
            else:
                state = news
                board.show(Picture(state))
    return state


def _list(url: str, form: str) -> feed.State:
    """Write a line for each change; gives the last state."""
    state: feed.State = {}
    for news in feed.lasting(url):
        if isinstance(news, str):
            _write(Change(news, {"run": state["run_id"]}), form)
            continue
        for change in changes.between(state, news) if state else [changes.summary(news)]:
            _write(change, form)
        state = news
    return state


def _write(change: Change, form: str) -> None:
    created = time.time() if change.time is None else change.time
    if form == "json":
        line = logs.as_json(created, "info", "status", "fed.status", change.message, dict(change.facts))
    else:
        line = f"{time.strftime('%H:%M:%S', time.localtime(created))} {printable(change.message)}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end(state: dict[str, Any]) -> None:
    """End as the run did."""
    found = f"run {state['run_id']} is {state['phase']}" + (f": {state['reason']}" if state["reason"] else "")
    if state["phase"] == "stopped":
        raise StoppedError(found)
    if state["phase"] == "failed":
        raise TrainingError(found)
