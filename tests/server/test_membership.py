"""Who belongs to the federation: seats, grace, stand-by, in every order of coming and going."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.server.membership import Membership, Seat, natural


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(*names: str, sizes: tuple[int, ...] = (1, 2, 3), grace: float = 10.0) -> tuple[Membership, Clock]:
    """Make a federation whose members `names` are there and ready."""
    clock = Clock()
    membership = Membership(sizes, grace, clock)
    for name in names:
        membership.join(name, dealable=True)
        membership.members[name].ready = True
    return membership, clock


def test_seats_are_ranks_among_the_names() -> None:
    """Each member's seat is its rank among the names, counted as people count."""
    membership, _ = make("client_10", "client_2", "client_0")
    call = membership.roll_call({})
    assert call.seats == {"client_0": Seat(3, 0), "client_2": Seat(3, 1), "client_10": Seat(3, 2)}
    assert call.participants == ("client_0", "client_2", "client_10")


def test_a_lost_member_keeps_its_seat_until_its_grace_is_over() -> None:
    """Who is lost takes no part but keeps its seat; after the grace it is forgotten and the size shrinks."""
    membership, clock = make("a", "b", "c")
    seats = membership.roll_call({}).seats
    membership.leave("b", clean=False)
    clock.now = 9.9
    call = membership.roll_call(seats)
    assert (call.seats, call.participants, call.forgotten) == (seats, ("a", "c"), ())
    assert membership.next_expiry() == pytest.approx(0.1)
    clock.now = 10.0
    call = membership.roll_call(seats)
    assert (call.seats, call.forgotten) == ({"a": Seat(2, 0), "c": Seat(2, 1)}, ("b",))
    assert membership.next_expiry() is None


def test_a_member_that_says_good_bye_frees_its_seat_at_once() -> None:
    """Who leaves cleanly is no longer counted at the next boundary."""
    membership, _ = make("a", "b")
    seats = membership.roll_call({}).seats
    membership.leave("b", clean=True)
    assert membership.roll_call(seats).seats == {"a": Seat(1, 0)}


def test_a_member_that_returns_in_time_has_the_seat_it_had() -> None:
    """Who returns within its grace is told apart from a newcomer, and is dealt its old seat anew."""
    membership, _ = make("a", "b")
    seats = membership.roll_call({}).seats
    membership.leave("b", clean=False)
    assert membership.join("b", dealable=True)
    call = membership.roll_call(seats)
    assert (call.seats, call.participants) == (seats, ("a",)), "its seat is kept while it is set up"
    membership.members["b"].ready = True
    call = membership.roll_call(seats)
    assert (call.seats, call.participants) == (seats, ("a", "b"))
    assert membership.members["b"].dealt is None
    assert not membership.join("c", dealable=True)


def test_a_newcomer_counts_once_it_is_set_up() -> None:
    """Who has joined but has no model yet changes nothing for the others."""
    membership, _ = make("a")
    seats = membership.roll_call({}).seats
    membership.join("b", dealable=True)
    assert membership.roll_call(seats).seats == seats
    membership.members["b"].ready = True
    assert membership.roll_call(seats).seats == {"a": Seat(2, 0), "b": Seat(2, 1)}


def test_more_than_the_data_set_is_cut_for_stand_by_and_take_over() -> None:
    """Whoever has a seat keeps one; who comes on top stands by, and takes over when one leaves."""
    membership, _ = make("b", "c", "d")
    seats = membership.roll_call({}).seats
    membership.join("a", dealable=True)
    membership.members["a"].ready = True
    call = membership.roll_call(seats)
    assert (set(call.seats), call.standby, call.participants) == ({"b", "c", "d"}, ("a",), ("b", "c", "d"))
    membership.leave("c", clean=True)
    call = membership.roll_call(call.seats)
    assert (set(call.seats), call.standby) == ({"a", "b", "d"}, ())


def test_a_size_that_can_not_be_dealt_is_skipped() -> None:
    """Where the data set has no cut for a size, the next smaller one is dealt."""
    membership, _ = make("a", "b", "c", sizes=(1, 2, 4))
    call = membership.roll_call({})
    assert (call.size, call.standby) == (2, ("c",))


def test_members_with_their_own_data_take_part_without_a_seat() -> None:
    """A site with its own data trains, and the others are dealt the data set among themselves."""
    membership, _ = make("a")
    membership.join("hospital", dealable=False)
    membership.members["hospital"].ready = True
    call = membership.roll_call({})
    assert (call.seats, call.participants) == ({"a": Seat(1, 0)}, ("a", "hospital"))


def test_a_member_that_was_refused_is_left_out_for_good() -> None:
    """Who can't be set up takes no part, and keeps no seat when it goes."""
    membership, _ = make("a", "b")
    membership.members["b"].refused = "no such layer"
    assert membership.roll_call({}).participants == ("a",)
    membership.leave("b", clean=False)
    assert "b" not in membership.members


NAMES = [f"client_{number}" for number in range(6)]
GRACE = 5.0


class Coming(RuleBasedStateMachine):
    """Members come and go in any order, between boundaries at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.membership = Membership((1, 2, 3, 4), GRACE, self.clock)
        self.seats: dict[str, Seat] = {}

    @rule(name=st.sampled_from(NAMES))
    def join(self, name: str) -> None:
        member = self.membership.members.get(name)
        if member is None or not member.connected:
            self.membership.join(name, dealable=True)

    @rule(name=st.sampled_from(NAMES))
    def set_up(self, name: str) -> None:
        member = self.membership.members.get(name)
        if member is not None and member.connected:
            member.ready = True

    @rule(name=st.sampled_from(NAMES), clean=st.booleans())
    def leave(self, name: str, clean: bool) -> None:  # noqa: FBT001 - hypothesis names its arguments
        member = self.membership.members.get(name)
        if member is not None and member.connected:
            self.membership.leave(name, clean=clean)

    @rule(seconds=st.sampled_from([0.0, 1.0, GRACE, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def boundary(self) -> None:
        before = dict(self.seats)
        call = self.membership.roll_call(self.seats)
        self.seats = call.seats
        assert sorted(call.seats.values()) == [Seat(call.size, rank) for rank in range(call.size)], (
            "one seat each, all dealt"
        )
        assert list(call.seats) == sorted(call.seats, key=natural)
        assert set(call.participants) <= set(call.seats)
        assert not set(call.standby) & set(call.seats)
        for name in call.participants:
            assert self.membership.is_ready(name)
        for name, seat in before.items():
            member = self.membership.members.get(name)
            if member is not None and call.size >= seat.size:
                assert name in call.seats, "who had a seat and is still counted keeps one"
        if call.standby:
            assert call.size == 4, "nobody stands by while the data set can be cut finer"

    @precondition(lambda self: self.seats)
    @invariant()
    def nobody_is_kept_longer_than_its_grace(self) -> None:
        expiry = self.membership.next_expiry()
        assert expiry is None or 0.0 <= expiry <= GRACE


TestComing = Coming.TestCase
TestComing.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
