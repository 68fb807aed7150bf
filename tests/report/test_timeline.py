"""Who did what when: tables and events put together, for runs with every kind of fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.report import facts, timeline
from services.report.timeline import Attempt, Client, Mark, Timeline, coarser
from services.tables import ClientRound, Event
from tests.report import made
from tests.report.made import event, row


def told(
    folder: Path, rounds: int, rows: Iterable[ClientRound] | None = None, events: Sequence[Event] = ()
) -> Timeline:
    """Write a run and tell of it."""
    history = [made.round_(number) for number in range(1, rounds + 1)]
    return timeline.tell(facts.read(made.write(folder / "run", history=history, rows=rows, events=events)))


def of(found: Timeline, name: str) -> Client:
    """Give one client."""
    return next(client for client in found.clients if client.name == name)


def test_states_in_a_row_are_one_span(tmp_path: Path) -> None:
    """Rounds of one state and reason are told together; rounds without a row are ones in which it was not there."""
    rows = [
        row(1, "client_0"),
        row(2, "client_0"),
        row(3, "client_0", "gone", "connection lost"),
        row(6, "client_0", "idle", "not drawn"),
        row(7, "client_0", "late", "no reply in 60 s"),
        row(8, "client_0", "late", "no reply in 60 s"),
        row(9, "client_0", "error", "OSError"),
        row(10, "client_0", "refused", "its update is not finite"),
    ]
    client = of(told(tmp_path, 11, rows), "client_0")
    assert client.words == [
        "trained 1-2",
        "gone 3 (connection lost)",
        "not there 4-5",
        "idle, not drawn 6",
        "late 7-8 (no reply in 60 s)",
        "reported an error 9 (OSError)",
        "its update was refused 10 (its update is not finite)",
        "not there 11",
    ]
    assert (client.trained, client.idle, client.dropped) == (2, 1, 5)


def test_figures_are_sums_and_means_of_the_rows(tmp_path: Path) -> None:
    """Bytes are sums, seconds a mean over rounds trained; accuracy and epsilon are the last that were told."""
    rows = [
        row(1, "client_1", train_s=4.0, epsilon=0.5, accuracy=0.8),
        row(2, "client_1", train_s=5.0, epsilon=0.75, accuracy=0.9),
        row(3, "client_1", "gone", "connection lost"),
    ]
    client = of(told(tmp_path, 3, rows), "client_1")
    assert (client.train_s, client.epsilon, client.accuracy) == (4.5, 0.75, 0.9)
    assert (client.sent, client.received) == (4_500_000, 2_000_022)
    assert (client.images, client.share) == (600, 0.6)


@pytest.mark.parametrize("changes", [{"size": None, "seat": None}, {"size": 5}, {"seat": 9}])
def test_samples_that_are_not_known_are_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A site with its own data was dealt nothing, and a deal that is not in the folder tells nothing."""
    client = of(told(tmp_path, 1, [row(1, "client_0", **changes)]), "client_0")
    assert (client.images, client.share) == (None, None)


def test_clients_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """client_10 comes after client_9, and one that never trained is listed too."""
    rows = [row(1, name) for name in ("client_10", "client_9", "St. Mary")]
    found = told(tmp_path, 1, rows, [event(0, "joined", "client_2"), event(0, "refused", "client_2", "no model")])
    assert [client.name for client in found.clients] == ["St. Mary", "client_2", "client_9", "client_10"]
    late = of(found, "client_2")
    assert late.words == ["not there 1"]
    assert late.marks == (Mark(0, comes=False, events=("refused: no model",)),)


def test_comings_and_goings_are_marked_between_rounds(tmp_path: Path) -> None:
    """Each is marked after the round that counted last; being there from the start is no news."""
    events = [
        event(0, "joined", "client_0"),
        event(0, "joined", "client_1"),
        event(1, "lost", "client_1", "connection lost"),
        event(1, "returned", "client_1"),
        event(2, "left", "client_0", "it left"),
        event(2, "joined", "client_2"),
    ]
    found = told(tmp_path, 3, events=events)
    assert of(found, "client_0").marks == (Mark(2, comes=False, events=("left: it left",)),)
    assert of(found, "client_1").marks == (
        Mark(1, comes=False, events=("lost: connection lost",)),
        Mark(1, comes=True, events=("returned",)),
    )
    assert of(found, "client_2").marks == (Mark(2, comes=True, events=("joined",)),)


def test_rounds_that_did_not_count_have_their_own_drop_outs(tmp_path: Path) -> None:
    """Who dropped out of a try that was void is told with it, and not in the round that counted."""
    events = [
        event(1, "dropped", "client_1", "connection lost"),
        event(1, "void", "", "1 of 2 clients finished it"),
        event(1, "dropped", "client_0", "no reply"),
        event(1, "dropped", "client_1", "no reply"),
        event(1, "void", "", "0 of 2 clients finished it"),
        event(2, "dropped", "client_1", "it left"),
    ]
    rows = [row(1, "client_0"), row(1, "client_1"), row(2, "client_0"), row(2, "client_1", "gone", "it left")]
    found = told(tmp_path, 2, rows, events)
    assert found.void == (
        Attempt(1, "1 of 2 clients finished it", (("client_1", "connection lost"),)),
        Attempt(1, "0 of 2 clients finished it", (("client_0", "no reply"), ("client_1", "no reply"))),
    )
    assert found.tries == {1: 2}
    assert [(client.name, client.dropped, client.again) for client in found.clients] == [
        ("client_0", 0, 1),
        ("client_1", 1, 2),
    ]
    assert found.unevaluated == ()


def test_who_is_lost_between_training_and_evaluation_is_told(tmp_path: Path) -> None:
    """Its update counts, so its state is trained; the event alone says that it was lost in that round."""
    events = [event(1, "dropped", "client_1", "connection lost"), event(2, "dropped", "client_0", "it left")]
    rows = [row(1, "client_0"), row(1, "client_1"), row(2, "client_0", "gone", "it left"), row(2, "client_1")]
    assert told(tmp_path, 2, rows, events).unevaluated == ((1, "client_1", "connection lost"),)


def test_what_a_dead_server_had_told_of_a_round_is_of_no_round(tmp_path: Path) -> None:
    """A server that dies in a round runs it again: a drop-out of before then is of no round."""
    events = [
        event(1, "dropped", "client_0", "lost in evaluation"),
        event(2, "dropped", "client_1", "connection lost"),
        event(1, "resumed"),
    ]
    found = told(tmp_path, 2, events=events)
    assert found.resumed == (1,)
    assert found.void == ()
    assert found.unevaluated == ((1, "client_0", "lost in evaluation"),)


def test_a_round_that_never_counted_has_a_column(tmp_path: Path) -> None:
    """A run that ends in tries of a round shows them after its last round; events of rounds far beyond are nonsense."""
    events = [event(3, "void", "", "0 of 2 clients finished it"), event(99, "void")]
    found = told(tmp_path, 2, events=events)
    assert (found.columns, found.tries) == (3, {3: 1})
    assert told(tmp_path / "other", 2, events=[event(0, "dealt", "", "2 clients")]).dealt == ((0, "2 clients"),)


def test_a_run_without_rounds_has_clients_all_the_same(tmp_path: Path) -> None:
    """Who came to a run that never began is listed, in no round."""
    found = told(tmp_path, 0, events=[event(0, "joined", "client_0"), event(0, "lost", "client_0", "connection lost")])
    assert (found.columns, [client.words for client in found.clients]) == (0, [[]])
    assert of(found, "client_0").marks == (Mark(0, comes=False, events=("lost: connection lost",)),)


def test_many_changes_are_told_up_to_a_limit(tmp_path: Path) -> None:
    """A client that comes and goes all the time is told of up to a limit, and how much more there is."""
    rows = [row(number, "client_0") for number in range(1, 81, 2)]
    words = of(told(tmp_path, 80, rows), "client_0").words
    assert len(words) == timeline.MOST_SPANS + 1
    assert words[-1] == "and 55 more changes: see clients.csv"


def test_several_rounds_in_a_column_show_the_worst(tmp_path: Path) -> None:
    """Of the rounds in a column a client has the worst state; a last column may have fewer."""
    rows = [row(1, "client_0"), row(2, "client_0", "late", "slow"), row(3, "client_0", "idle"), row(4, "client_0")]
    events = [event(2, "dealt", "", "2 clients"), event(3, "dealt", "", "3 clients"), event(4, "lost", "client_0", "x")]
    found = coarser(told(tmp_path, 5, rows, events), 2)
    client = of(found, "client_0")
    assert [(span.first, span.last, span.state) for span in client.spans] == [
        (1, 1, "late"),
        (2, 2, "trained"),
        (3, 3, "absent"),
    ]
    assert found.columns == 3
    assert found.dealt == ((1, "3 clients"),)
    assert client.marks == (Mark(2, comes=False, events=()),)
