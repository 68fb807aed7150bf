"""One run in which clients are killed at each point of a round, fail, return and leave; each fault is a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.conftest import stacks
from tests.compose.stack import QUICK, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

ROUNDS = 16
STEPS = 80
PLAN = QUICK | {
    "rounds": ROUNDS,
    "data": {"valid_fraction": 0.03},
    "train": {"batch_size": 32, "steps": STEPS},
    # image by image, so that evaluation takes long enough to be killed in
    "evaluate": {"batch_size": 1},
    "federation": QUICK["federation"] | {"rejoin_grace": 200, "round_timeout": 600},
}
FAILING = Path(__file__).with_name("failing_client.py")


@dataclasses.dataclass
class Struck:
    """A run that is over, and what was done to whom in which of its rounds."""

    stack: Stack
    registering: str = ""
    failing: str = ""
    training: tuple[str, int] = ("", 0)
    evaluating: tuple[str, int] = ("", 0)
    leaving: str = ""
    before_leaving: int = 0
    code_of_leaving: int = -1
    code: int = -1
    codes: list[int] = dataclasses.field(default_factory=list)
    said: str = ""

    def rows(self, client: str) -> dict[int, dict[str, str]]:
        """Rows of one client in `clients.csv`, by round."""
        return {int(row["round"]): row for row in self.stack.table("clients.csv") if row["client"] == client}

    def history(self, number: int) -> dict[str, str]:
        """One round's row of `history.csv`."""
        return self.stack.table("history.csv")[number - 1]

    def events(self, client: str) -> list[tuple[str, int, str]]:
        """What `events.csv` tells of one client: event, round, detail."""
        rows = [row for row in self.stack.table("events.csv") if row["client"] == client]
        return [(row["event"], int(row["round"]), row["detail"]) for row in rows]


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Struck]:
    """Strike one client while it registers, one while it trains, one while it evaluates; one fails, one leaves."""
    with stacks("members", tmp_path_factory.mktemp("members")) as make:
        stack = make(PLAN, LIVENESS_TIMEOUT=60)
        run = Struck(stack)
        stack.up()
        failing = stack.container("client", 4)
        stack.compose(
            "run", "--detach", "--no-deps", "--name", failing, "--volume", f"{FAILING}:/fed/failing_client.py:ro",
            "--entrypoint", "python", "client", "failing_client.py", f"{STEPS + 2}",
        )  # fmt: skip

        run.failing = stack.name_of(failing)
        victims = {stack.name_of(container): container for container in stack.clients() if container != failing}
        stack.until(lambda: bool(victims.keys() & set(stack.status.get("clients", ()))), "a client")
        run.registering = min(victims.keys() & set(stack.status["clients"]))
        stack.kill(victims[run.registering])
        stack.until(lambda: run.registering not in stack.status["clients"], "the server to notice")
        assert stack.status["phase"] == "gathering"

        stack.until(lambda: "error" in {row["state"] for row in run.rows(run.failing).values()}, "a failure")
        stack.until(lambda: bool(run.rows(run.registering)), "the one that was killed to train")
        three = victims.pop(run.registering)
        one, two = victims.values()
        number = stack.until_begins("training")
        stack.docker("kill", one)
        run.training = (stack.name_of(one), number)
        number = stack.until_begins("evaluating")
        stack.kill(two)
        run.evaluating = (stack.name_of(two), number)
        stack.up()
        for name, number in (run.training, run.evaluating):
            stack.until(lambda name=name, number=number: max(run.rows(name)) > number, f"{name} to train again")  # type: ignore[misc]

        run.leaving, run.before_leaving = stack.name_of(three), stack.rounds
        stack.docker("stop", three)
        run.code_of_leaving = stack.exit_code(three)
        run.code = stack.wait_server()
        run.codes = [stack.exit_code(container) for container in (one, two, failing)]
        # a container started by `run` is none of `docker compose logs`
        run.said = stack.said(failing)
        yield run


def test_a_client_killed_while_it_registers_is_nobody_s_problem(struck: Struck) -> None:
    """Killed before it has the model, a client leaves no trace in the rounds, and is there as soon as it is back."""
    rows = struck.rows(struck.registering)
    assert {row["state"] for number, row in rows.items() if number <= struck.before_leaving} == {"trained"}
    before = [row for row in struck.stack.table("clients.csv") if int(row["round"]) < min(rows)]
    assert {row["client"] for row in before if row["state"] != "trained"} <= {struck.failing}


def test_a_client_that_raises_in_training_misses_that_round_alone(struck: Struck) -> None:
    """A client that fails is dropped from that round with its reason, nobody else is, and it takes part in the next."""
    rows = struck.rows(struck.failing)
    (number,) = (number for number, row in rows.items() if row["state"] == "error")
    reason = "training failed (OSError; its own log says more)"
    assert rows[number]["reason"] == reason
    assert struck.events(struck.failing) == [("joined", 0, ""), ("dropped", number, reason)] + [
        event for event in struck.events(struck.failing) if event[0] not in {"joined", "dropped"}
    ]
    row = struck.history(number)
    assert (int(row["clients"]), row["dropped"]) == (len(struck.stack.of_round(number)) - 1, "1")
    assert rows[number + 1]["state"] == "trained"


def test_a_client_killed_while_it_trains_costs_its_part(struck: Struck) -> None:
    """The round ends when the survivors have answered, not at its deadline, and counts without the one killed."""
    name, number = struck.training
    row = struck.rows(name)[number]
    assert (row["state"], row["reason"], row["train_s"]) == ("gone", "connection lost", "")
    assert ("dropped", number, "connection lost") in struck.events(name)
    assert int(struck.history(number)["dropped"]) >= 1
    assert float(struck.history(number)["seconds"]) < PLAN["federation"]["round_timeout"]


def test_a_client_killed_while_it_evaluates_counts_with_its_training(struck: Struck) -> None:
    """What it has trained is averaged; the survivors' figures end the round, which is not at its deadline."""
    name, number = struck.evaluating
    row = struck.rows(name)[number]
    assert row["state"] == "trained"
    assert float(row["train_s"]) > 0
    assert (row["eval_s"], row["loss"], row["accuracy"]) == ("", "", "")
    assert ("dropped", number, "connection lost") in struck.events(name)
    history = struck.history(number)
    others = [row for row in struck.stack.table("clients.csv") if row["round"] == str(number) and row["client"] != name]
    survivors = [row for row in others if row["state"] == "trained"]
    assert int(history["clients"]) == len(survivors) + 1
    assert all(row["eval_s"] for row in survivors)
    assert 0 < float(history["accuracy"]) <= 1
    assert float(history["seconds"]) < PLAN["federation"]["round_timeout"]


def test_clients_that_were_killed_return_to_their_places(struck: Struck) -> None:
    """Back by `docker compose up -d`, or by Docker, a client has its name, its seat and its part of the data again."""
    for name, number in (struck.training, struck.evaluating):
        rows = struck.rows(name)
        back = min(other for other in rows if other > number)
        assert rows[back]["state"] == "trained"
        assert [event for event, _, _ in struck.events(name)].count("returned") >= 1
        assert (rows[back]["size"], rows[back]["seat"]) == (rows[number]["size"], rows[number]["seat"])
    history = struck.stack.table("history.csv")
    sizes = {row["size"] for row in history if struck.training[1] <= int(row["round"]) <= struck.before_leaving}
    assert sizes == {"4"}, "their seats were kept for them"


def test_a_client_that_leaves_politely_is_dealt_out(struck: Struck) -> None:
    """On SIGTERM a client leaves at once and with code 0; the others hold the whole data set from then on."""
    assert struck.code_of_leaving == 0
    assert "left" in {event for event, _, _ in struck.events(struck.leaving)}
    assert "lost" not in {event for event, _, _ in struck.events(struck.leaving)}
    assert struck.history(ROUNDS)["size"] == "3"
    assert ROUNDS not in struck.rows(struck.leaving)


def test_the_run_that_saw_all_this_is_completed(struck: Struck) -> None:
    """Server and clients end with code 0, each round is there once, and nobody has printed a traceback."""
    assert struck.code == 0
    assert struck.stack.summary["status"] == "completed"
    assert struck.codes == [0, 0, 0]
    struck.stack.check_history(ROUNDS)
    assert "Traceback" not in struck.said
