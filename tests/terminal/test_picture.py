"""What a run looks like at each size of a terminal and in each state."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from services.tables import HISTORY_COLUMNS
from services.terminal.picture import MOST_EVENTS, ClientPicture, Picture
from services.wording import NONE, clock
from tests.server.page.test_render import CLIENT, state

TIME = "2026-11-24T06:40:21.000+00:00"

NOTHING = {
    "phase": "gathering",
    "round": 0,
    "seconds": 3.0,
    "seconds_left": None,
    "loss": None,
    "accuracy": None,
    "test_loss": None,
    "test_accuracy": None,
    "clients": {},
    "gone": {},
    "history": {column: [] for column in HISTORY_COLUMNS},
    "events": [],
    "refusals": {},
    "privacy": None,
}
"""What a run is like before anybody is there."""


def drawn(picture: RenderableType, width: int = 80, height: int = 24) -> list[str]:
    """Draw on a terminal of that size, without colours; lines come without blanks at their ends."""
    stream = io.StringIO()
    Console(file=stream, width=width, height=height, color_system=None).print(picture)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def crowd(count: int, **changes: dict[str, Any]) -> dict[str, Any]:
    """Make up so many clients, some of them changed, by name."""
    names = [f"client_{number}" for number in range(count)]
    return {name: CLIENT | changes.get(name, {}) for name in names}


def test_a_run_in_its_second_round() -> None:
    """Phase, round, times, figures, a bar of rounds, a row a client, events and refusals."""
    time = clock(TIME)
    assert drawn(Picture(state())) == [
        "Training · round 2 of 5 · 20261124-064015",
        "1 min 15 s, 22 s left · test accuracy 0.9631 · accuracy 0.9593 · loss 0.1490",
        "epsilon 1.25 of 3.00",
        "rounds ━━━━━━━━━━━━━╸                                                        1/5",
        "client   state    images s/round accuracy seen steps",
        "client_0 training 16,000     4.8   0.9700  now ━━━━━━                    120/500",
        "client_1 gone     16,000     4.8   0.9700  now connection lost",
        f"{time} dropped client_1: connection lost",
        "refused at the door: a malformed frame (3)",
    ]


def test_a_narrow_terminal_has_what_matters_most() -> None:
    """At forty characters figures of clients are left out, and what is too long ends in an ellipsis."""
    assert drawn(Picture(state()), 40) == [
        "Training · round 2 of 5 · 20261124-0640…",
        "1 min 15 s, 22 s left",
        "test accuracy 0.9631 · accuracy 0.9593",
        "loss 0.1490 · epsilon 1.25 of 3.00",
        "rounds ━━━━━╸                        1/5",
        "client   state    steps",
        "client_0 training ━━━            120/500",
        "client_1 gone     connection lost",
        f"{clock(TIME)} dropped client_1: connection l…",
        "refused at the door: a malformed frame …",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (NOTHING, ["Waiting for clients · 20261124-064015", "3 s · 0 of 3 clients are there"]),
        (
            NOTHING | {"clients": {"a": CLIENT | {"state": "joining"} | dict.fromkeys(("steps", "train", "train_s"))}},
            ["3 s · 1 of 3 clients are there", f"a      joining      {NONE}       {NONE}   0.9700  now"],
        ),
        ({"phase": "preparing"}, ["Preparing a round · round 2 of 5"]),
        ({"phase": "evaluating"}, ["Evaluating · round 2 of 5"]),
        (
            {"phase": "waiting", "seconds_left": None},
            ["Too few clients: waiting for them to return", "1 of 3 clients are there"],
        ),
        (
            {"clients": {"b": CLIENT | {"state": "dropped", "steps": None, "reason": "round 1: out of time"}}},
            ["b        dropped 16,000     4.8   0.9700  now round 1: out of time"],
        ),
        ({"clients": {"c": CLIENT | {"state": "late", "steps": None}}}, ["c        late  16,000"]),
        ({"phase": "completed"}, ["Completed · 20261124-064015", "1 min 15 s · test accuracy"]),
        ({"phase": "failed", "reason": "the loss is nan"}, ["Failed · 20261124-064015", "the loss is nan"]),
        ({"phase": "stopped", "reason": "too few clients"}, ["Stopped · 20261124-064015", "too few clients"]),
        ({"phase": "made up"}, ["made up · round 2 of 5"]),
    ],
    ids=lambda value: value.get("phase", "") if isinstance(value, dict) else "",
)
def test_each_state_has_its_words(changes: dict[str, Any], words: list[str]) -> None:
    """A run, and each client in it, is told in words in each of its states, with time left while it goes on."""
    text = "\n".join(drawn(Picture(state(**changes))))
    for each in words:
        assert each in text
    assert ("left" in text) == (changes.get("phase", "training") in {"training", "preparing", "evaluating", "made up"})


def test_a_note_comes_last() -> None:
    """What there is to say of the state itself stands below it."""
    assert drawn(Picture(state(), "it fell silent; looking for it for 60 s"))[-1] == (
        "it fell silent; looking for it for 60 s"
    )


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 7, 10, 24, 60])
@pytest.mark.parametrize("clients", [0, 1, 3, 40])
def test_a_picture_fits_its_terminal(width: int, height: int, clients: int) -> None:
    """No line is wider than the terminal, and one line is left to the cursor, whatever there is to be shown."""
    trouble = CLIENT | {"state": "dropped", "steps": None, "reason": "the disk is full " * 20}
    long = "name_" * 40
    picture = Picture(
        state(
            clients=crowd(clients, client_0=trouble) | ({long: CLIENT, "客户" * 20: trouble} if clients else {}),
            events=[[TIME, number, "dropped", long, long] for number in range(20)],
            refusals={long: 1},
            reason=long,
        ),
        long,
    )
    lines = drawn(picture, width, height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert all(cell_len(line) <= width for line in lines)


def test_those_in_trouble_are_not_cut() -> None:
    """Of more clients than there are lines those in trouble are shown, in their order, and the others are counted."""
    lost = {"state": "dropped", "steps": None, "reason": "round 1: out of time"}
    gone = {"client_99": CLIENT | {"state": "gone", "steps": None, "reason": "it left"}}
    run = state(clients=crowd(30, client_7=lost, client_23=lost, client_24={"state": "idle"}), gone=gone)
    lines = drawn(Picture(run), height=14)
    names = ["client", "client_0", "client_1", "client_7", "client_23", "client_99", "…"]
    assert [line.split()[0] for line in lines[4:-2]] == names
    assert lines[10] == "… and 26 more: 25 training, 1 idle"
    assert drawn(Picture(run), height=8)[4] == "31 clients: 27 training, 2 dropped, 1 idle, 1 gone"


def test_the_latest_events_are_shown() -> None:
    """Of many events the last few are there, the latest last; of many clients, events keep a quarter of the room."""
    events = [[TIME, 0, "joined", f"client_{number}", ""] for number in range(30)]
    lines = drawn(Picture(state(events=events)))
    assert [line for line in lines if "joined" in line] == [
        f"{clock(TIME)} joined client_{number}" for number in range(30 - MOST_EVENTS, 30)
    ]
    lines = drawn(Picture(state(events=events, clients=crowd(40))), height=18)
    assert sum("joined" in line for line in lines) == 3


def test_all_clients_are_there_where_lines_do_not_count() -> None:
    """Where nothing is drawn over, each client has its line."""
    lines = drawn(Picture(state(clients=crowd(50)), whole=True), height=10)
    assert sum("training" in line for line in lines) == 50


def test_markup_is_text() -> None:
    """Square brackets in what others say are what they are."""
    text = "\n".join(drawn(Picture(state(clients={"[red]a[/red]": CLIENT}, reason="[bold]no[/bold]", phase="[b]x"))))
    assert "[red]a[/red]" in text
    assert "[bold]no[/bold]" in text
    assert "[b]x" in text


@pytest.mark.parametrize(
    ("doing", "round_", "steps", "line"),
    [
        ("training", 2, (120, 250), "client_0 · round 2 · training ━━━━━━━━━━╸            120/250"),
        ("training", 2, (0, 0), "client_0 · round 2 · training"),
        ("evaluating", 2, (250, 250), "client_0 · round 2 · evaluating"),
        ("looking for the server", 0, (0, 0), "client_0 · looking for the server"),
    ],
)
def test_a_client_has_one_line(doing: str, round_: int, steps: tuple[int, int], line: str) -> None:
    """What a client is at, in which round, and how far it is."""
    assert drawn(ClientPicture("client_0", lambda: (doing, round_, steps)), 60) == [line]
