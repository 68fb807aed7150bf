"""Ten thousand hostile connections beside a run: it learns what it would have learned, and says what it refused."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import hostile
from tests.compose.conftest import stacks
from tests.compose.stack import QUICK, Stack
from tests.support import deadline

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

CONNECTIONS = 10_000
SEED = 7
ROUNDS, COMPARED = 400, 8
CLIENTS, IDENTITIES = 3, 32
MOST_GROWTH = 100.0
"""Megabytes by which the server's memory may exceed what it was before."""

PLAN: dict[str, Any] = QUICK | {
    "deterministic": True,
    "data": {"valid_fraction": 0.03},
    "federation": QUICK["federation"] | {"round_timeout": 600, "quorum_timeout": 600},
}
HALF_OPEN = "no TLS handshake in time"
CROWDED = "too many connections that have not joined"


@dataclasses.dataclass
class Attacked:
    """A run that was attacked, and one that was not.

    Attributes:
        stack: of the run that was attacked.
        told: what the attacker says it did.
        refused: number of refusals by reason, as the server's metrics told it after the attack.
        before: most memory of the server in a round without an attack, in megabytes.
        during: most memory of the server during the attack.
        rounds: the last round before the attack, and the last one during it.
        code: how the server ended.
        undisturbed: history of a run of the same plan that nobody attacked.
    """

    stack: Stack
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    before: float = 0.0
    during: float = 0.0
    rounds: tuple[int, int] = (0, 0)
    code: int = -1
    undisturbed: list[dict[str, str]] = dataclasses.field(default_factory=list)

    @property
    def expected(self) -> collections.Counter[str]:
        """How often the server should have refused what, the flood apart."""
        return collections.Counter(self.told["refused"])


def forget_peak(stack: Stack) -> None:
    """Let the server's peak of memory begin anew (proc(5), clear_refs)."""
    stack.as_root("sh", "-c", f"echo 5 > /proc/{stack.process(stack.container('server'))}/clear_refs")


def peak(stack: Stack) -> float:
    """Tell the server's peak of memory since then, in megabytes."""
    status = Path(f"/proc/{stack.process(stack.container('server'))}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def refusals(stack: Stack) -> dict[str, int]:
    """Read from the server's metrics how often it has refused what."""
    address = f"http://127.0.0.1:{stack.environment['STATUS_PORT']}/metrics"
    with urllib.request.urlopen(address, timeout=deadline(30)) as answer:
        text = answer.read().decode()
    return {
        re.sub(r"[\d,]+ bytes", "… bytes", sample.labels["reason"]): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fed_refusals_total"
    }


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """Run a plan undisturbed for a few rounds; then run it to its end, and attack it meanwhile."""
    with stacks("hostile", tmp_path_factory.mktemp("undisturbed")) as make:
        stack = make(PLAN | {"rounds": COMPARED}, MAX_CLIENTS=IDENTITIES)
        stack.up()
        assert stack.wait_server() == 0
        undisturbed = stack.table("history.csv")
    with stacks("hostile", tmp_path_factory.mktemp("attacked")) as make:
        stack = make(PLAN | {"rounds": ROUNDS}, MAX_CLIENTS=IDENTITIES)
        run = Attacked(stack, undisturbed=undisturbed)
        stack.up()
        stack.until_round(1)
        forget_peak(stack)
        stack.until_round(2)
        run.before = peak(stack)
        forget_peak(stack)
        began = stack.rounds

        attacker = stack.container("attacker")
        free = [f"client_{number}" for number in range(CLIENTS, IDENTITIES)]
        stack.compose(
            "run", "--detach", "--no-deps", "--name", attacker, "--volume", f"{hostile.__file__}:/fed/hostile.py:ro",
            "--entrypoint", "python", "client", "hostile.py", "server", "8765", "--identities", "certs/clients",
            "--live", "client_0", "--free", ",".join(free), "--count", str(CONNECTIONS), "--seed", str(SEED),
        )  # fmt: skip
        assert stack.exit_code(attacker, 600) == 0, stack.said(attacker)[-2000:]
        run.told = json.loads(next(line for line in stack.said(attacker).splitlines() if line.startswith("{")))
        run.refused, run.during, run.rounds = refusals(stack), peak(stack), (began, stack.rounds)
        run.code = stack.wait_server(600)
        yield run


def test_the_run_goes_on_and_is_completed(attacked: Attacked) -> None:
    """Rounds go on during the attack, and the server ends with code 0, each round there once, nowhere a traceback."""
    first, last = attacked.rounds
    assert first < COMPARED <= last < ROUNDS, "the attack was beside the rounds that are compared"
    assert attacked.code == 0
    assert attacked.stack.summary["status"] == "completed"
    attacked.stack.check_history(ROUNDS)


def test_nobody_who_trains_is_disturbed(attacked: Attacked) -> None:
    """None of the clients is lost, dropped or refused, and the data set is dealt once."""
    names = {f"client_{number}" for number in range(CLIENTS)}
    events = attacked.stack.table("events.csv")
    assert [row["event"] for row in events if row["client"] in names] == ["joined"] * CLIENTS
    assert [row["detail"] for row in events if row["event"] == "dealt"] == [f"{CLIENTS} clients"]
    assert {row["client"] for row in attacked.stack.table("clients.csv")} == names
    assert {row["dropped"] for row in attacked.stack.table("history.csv")} == {"0"}


def test_what_is_learned_is_what_would_have_been(attacked: Attacked) -> None:
    """Loss and accuracy of each round are those of the run that nobody attacked, to the last digit."""
    columns = ("round", "loss", "accuracy", "test_loss", "test_accuracy")
    history = attacked.stack.table("history.csv")[:COMPARED]
    assert [[row[column] for column in columns] for row in history] == [
        [row[column] for column in columns] for row in attacked.undisturbed
    ]


def test_memory_stays_what_it_was(attacked: Attacked) -> None:
    """At its most, the server takes less than 100 MB more than in a round before the attack."""
    print(f"server: at most {attacked.before:.0f} MB before, {attacked.during:.0f} MB during the attack")  # noqa: T201
    assert attacked.during - attacked.before < MOST_GROWTH


def test_every_connection_was_closed(attacked: Attacked) -> None:
    """The server closes on each of the ten thousand by itself, within a minute."""
    assert attacked.told["connections"] == CONNECTIONS
    assert set(attacked.told["kinds"]) == {*hostile.KINDS, hostile.FLOOD}
    assert attacked.told["not_closed"] == {}


def test_each_refusal_is_counted_by_its_reason(attacked: Attacked) -> None:
    """The metrics tell of each kind of attack as many refusals as there were, and of no other reason."""
    refused, expected = collections.Counter(attacked.refused), attacked.expected
    flood = refused.pop(CROWDED) + refused.pop(HALF_OPEN)
    assert flood == pytest.approx(attacked.told["kinds"][hostile.FLOOD] + expected.pop(HALF_OPEN), rel=0.01)
    assert refused == {reason: pytest.approx(count, rel=0.02, abs=2) for reason, count in expected.items()}


def test_the_log_stays_readable(attacked: Attacked) -> None:
    """A peer is named once for each reason, the rest is told as numbers: there are no ten thousand lines."""
    log = attacked.stack.log("server").splitlines()
    named = [line.split("refused ", 1)[1] for line in log if "warning: refused " in line and " more times" not in line]
    keys = [line.split(" (")[0] for line in named]
    assert 20 < len(keys) < 500
    assert len(keys) == len(set(keys))
    assert len(log) < 1500
    assert len((attacked.stack.latest / "server.log").read_text(encoding="utf-8").splitlines()) < 2500
