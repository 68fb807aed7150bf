"""One run in which clients send what no honest client does, each something else; what became of each is a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.conftest import stacks
from tests.compose.stack import QUICK, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

DISHONEST = Path(__file__).with_name("dishonest_client.py")
HONEST = 3
ROUNDS = 20
STEPS = 40
FAULTS = {
    "nan": "its updates hold values that are not finite in conv/kernel:0",
    "inf": "its updates hold values that are not finite in conv/kernel:0",
    "huge": "its updates hold values above 1e+08 in conv/kernel:0",
    "shape": "its updates have shape (3, 3, 1, 32, 1) for conv/kernel:0, not (3, 3, 1, 32)",
    "names": "its updates name 'my/classes/bias:0', which the model does not have",
    "dtype": "its updates hold values of type float64 in conv/kernel:0, not float32",
    "steps": f"it claims {STEPS * 1000} steps, its images allow {STEPS}",
    "other-round": "its updates are those that it sent in round 1",
}
"""What each kind of dishonest client is told by."""
AHEAD = "ahead"
"""The kind whose updates are sound, and sent once more before anybody has asked."""
EVERYBODY = HONEST + len(FAULTS) + 1
PLAN = QUICK | {
    "rounds": ROUNDS,
    "data": {"valid_fraction": 0.03},
    "train": {"batch_size": 32, "steps": STEPS},
    "federation": QUICK["federation"] | {"join_timeout": 300},
}


@dataclasses.dataclass
class Betrayed:
    """A run that is over, and who was who in it.

    Attributes:
        names: by kind, the identity of the dishonest client.
        codes: by kind, what it ended with.
        said: by kind, what it has written.
        returned: what a client has written that was put out and came back.
        code: what the server ended with.
    """

    stack: Stack
    names: dict[str, str]
    codes: dict[str, int]
    said: dict[str, str]
    returned: str
    code: int

    def rows(self, kind: str) -> list[dict[str, str]]:
        """Rows of one dishonest client in `clients.csv`."""
        return [row for row in self.stack.table("clients.csv") if row["client"] == self.names[kind]]


@pytest.fixture(scope="module")
def betrayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Betrayed]:
    """Run honest clients beside one dishonest client of each kind, from the first round on; one of them comes back."""
    with stacks("dishonest", tmp_path_factory.mktemp("dishonest")) as make:
        stack = make(PLAN, CLIENTS=EVERYBODY, MAX_CLIENTS=EVERYBODY, LIVENESS_TIMEOUT=120)
        stack.up("--scale", f"client={HONEST}")
        containers = {kind: f"{stack.name}-{kind}" for kind in (*FAULTS, AHEAD)}
        for kind, container in containers.items():
            stack.compose(
                "run", "--detach", "--no-deps", "--name", container,
                "--volume", f"{DISHONEST}:/fed/dishonest_client.py:ro",
                "--entrypoint", "python", "client", "dishonest_client.py", kind,
            )  # fmt: skip
        names = {kind: stack.name_of(container) for kind, container in containers.items()}
        codes = {kind: stack.exit_code(containers[kind], seconds=300) for kind in FAULTS}
        said = {kind: stack.said(containers[kind]) for kind in FAULTS}
        # no identity is free but of those who were put out
        stack.docker("start", containers["nan"])
        stack.exit_code(containers["nan"])
        returned = stack.said(containers["nan"])[len(said["nan"]) :]
        code = stack.wait_server(300)
        codes[AHEAD] = stack.exit_code(containers[AHEAD])
        said[AHEAD] = stack.said(containers[AHEAD])
        yield Betrayed(stack, names, codes, said, returned, code)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_reply_that_no_honest_client_sends_is_refused_and_named(betrayed: Betrayed, kind: str) -> None:
    """Its client is left out of three rounds with the reason, then of the run, and is told so itself."""
    name, fault = betrayed.names[kind], FAULTS[kind]
    first = 2 if kind == "other-round" else 1
    rows = betrayed.rows(kind)
    assert [(int(row["round"]), row["state"], row["reason"]) for row in rows if int(row["round"]) >= first] == [
        (number, "refused", fault) for number in range(first, first + 3)
    ]
    events = [
        (int(row["round"]), row["event"], row["detail"])
        for row in betrayed.stack.table("events.csv")
        if row["client"] == name and row["event"] != "joined"
    ]
    out = f"its replies were refused 3 times in a row, last: {fault}"
    dropped = [(number, "dropped", f"its reply is refused: {fault}") for number in range(first, first + 3)]
    assert events == [*dropped, (first + 1, "refused", out)]
    log = betrayed.stack.log("server")
    assert f"{name} dropped out of round {first}: its reply is refused: {fault}" in log
    assert f"{name} is put out: {out}" in log
    assert betrayed.codes[kind] == 9
    last = betrayed.said[kind].splitlines()[-1]
    assert last == (
        f"fed client: error: the server refused {name}: put out of this run: {out}; mend what that names; then ask who "
        "operates the federation"
    )


def test_a_reply_that_nobody_asked_for_is_taken_for_none(betrayed: Betrayed) -> None:
    """A client that sends each reply twice is named in the log; what it was asked for counts, in every round."""
    assert [row["state"] for row in betrayed.rows(AHEAD)] == ["trained"] * ROUNDS
    assert all(row["accuracy"] for row in betrayed.rows(AHEAD))
    name = betrayed.names[AHEAD]
    assert f"refused {name}: a message that nobody asked for" in betrayed.stack.log("server")
    assert betrayed.codes[AHEAD] == 0


def test_who_was_put_out_is_let_in_no_more(betrayed: Betrayed) -> None:
    """Started again, its container finds no identity that the server lets in, and says why."""
    (line,) = [line for line in betrayed.returned.splitlines() if "error:" in line]
    assert "put out of this run: its replies were refused 3 times in a row" in line


def test_the_run_that_saw_all_this_is_completed(betrayed: Betrayed) -> None:
    """The others' images are dealt anew without those who were put out, and the model is as good as without them."""
    stack = betrayed.stack
    assert betrayed.code == 0
    assert stack.summary["status"] == "completed"
    stack.check_history(ROUNDS)
    sizes = [int(row["size"]) for row in stack.table("history.csv")]
    assert sizes == [EVERYBODY] * 3 + [EVERYBODY - len(FAULTS) + 1] + [HONEST + 1] * (ROUNDS - 4)
    assert not any("Traceback" in said for said in betrayed.said.values())
    # 0.972 with and without them
    assert stack.summary["test_accuracy"] > 0.96
