"""One run in which clients freeze and are cut off the network, for shorter and longer than the liveness time-out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest

from tests.compose.conftest import stacks
from tests.compose.stack import Stack, plan

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

SHORT, LONG = 5, 60
"""Seconds that a client is cut off the network; the liveness time-out is in between."""


@dataclasses.dataclass
class Struck:
    """A run that was stopped after all faults were over.

    Attributes:
        stack: its stack.
        nudged: the client that was cut off for `SHORT` seconds.
        frozen: the client that was paused until it was missed, and the round before which it was.
        cut: the client that was cut off for `LONG` seconds, and the round before which it was.
        back: last round at the time when both had returned.
        code: how the server ended.
    """

    stack: Stack
    nudged: str = ""
    frozen: tuple[str, int] = ("", 0)
    cut: tuple[str, int] = ("", 0)
    back: int = 0
    code: int = -1

    def rounds(self, client: str) -> set[int]:
        """Rounds in which a client trained."""
        rows = self.stack.table("clients.csv")
        return {int(row["round"]) for row in rows if row["client"] == client and row["state"] == "trained"}

    def events(self, client: str) -> list[str]:
        """What happened to a client, in order."""
        return [row["event"] for row in self.stack.table("events.csv") if row["client"] == client]


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Struck]:
    """Cut one client off for a moment; then cut one off for long, and freeze another one meanwhile."""
    with stacks("network", tmp_path_factory.mktemp("network")) as make:
        stack = make(plan(500, steps=150, rejoin_grace=300, round_timeout=600), LIVENESS_TIMEOUT=20, SERVER_GRACE=300)
        network = f"{stack.name}_federation"
        stack.up()
        stack.until_round(1)
        one, two, three = stack.clients()
        run = Struck(stack, nudged=stack.name_of(three))

        stack.docker("network", "disconnect", network, three)
        time.sleep(SHORT)  # the length of the cut is the fault itself
        stack.docker("network", "connect", network, three)
        stack.until_round(stack.rounds + 2)

        run.cut = (stack.name_of(one), stack.rounds)
        stack.docker("network", "disconnect", network, one)
        began = time.monotonic()
        run.frozen = (stack.name_of(two), stack.rounds)
        stack.docker("pause", two)
        stack.until_event("lost", run.frozen[0])
        stack.until_event("lost", run.cut[0])
        stack.until_round(stack.rounds + 2)
        stack.docker("unpause", two)
        stack.until_event("returned", run.frozen[0])
        time.sleep(max(0.0, LONG - (time.monotonic() - began)))
        stack.docker("network", "connect", network, one)
        stack.until_event("returned", run.cut[0])
        run.back = stack.rounds
        stack.until_round(run.back + 2)
        stack.compose("stop", "server")
        run.code = stack.exit_code(stack.container("server"))
        yield run


def test_a_cut_shorter_than_the_liveness_time_out_goes_by(struck: Struck) -> None:
    """Cut off the network for 5 s, a client is not missed, and takes part in every round."""
    assert struck.events(struck.nudged) == ["joined"]
    assert struck.rounds(struck.nudged) == set(range(1, len(struck.stack.table("history.csv")) + 1))


def test_a_client_cut_off_for_longer_misses_rounds_and_returns(struck: Struck) -> None:
    """Cut off for 60 s, a client is lost within the liveness time-out, costs its part alone, and returns."""
    name, before = struck.cut
    assert struck.events(name)[:2] == ["joined", "lost"]
    assert "returned" in struck.events(name)
    assert set(range(before + 2, before + 4)) - struck.rounds(name)
    assert struck.back + 2 in struck.rounds(name)


def test_a_frozen_client_is_dropped_and_returns(struck: Struck) -> None:
    """Frozen longer than the liveness time-out, a client is dropped without holding up the rest; thawed, it returns."""
    name, before = struck.frozen
    assert struck.events(name)[:2] == ["joined", "lost"]
    assert "returned" in struck.events(name)
    assert set(range(before + 2, before + 4)) - struck.rounds(name)
    assert struck.back + 2 in struck.rounds(name)


def test_the_seats_of_all_are_kept_meanwhile(struck: Struck) -> None:
    """Each round is there once, dealt to three, whoever was away; the server ends with code 11 and no traceback."""
    assert {row["size"] for row in struck.stack.table("history.csv")} == {"3"}
    struck.stack.check_history(struck.stack.rounds)
    assert struck.code == 11
