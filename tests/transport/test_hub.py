"""The hub: joining, exchanging and leaving, in whatever order they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from declearn.communication.api.backend import flags
from declearn.communication.api.backend.actions import Accept, Drop, Join, Ping, Recv, Reject, Send
from declearn.utils.serialize import msgpack_serialize
from declearn.version import VERSION
from hypothesis import given, settings
from hypothesis import strategies as st

from services.transport.hub import NAME_IN_USE, PUT_OUT, TOO_OFTEN, UNASKED, ClientGoneError, Hub

T = TypeVar("T")
PATIENCE = 5.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a loop of its own, for at most `PATIENCE` seconds."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def joined(hub: Hub, *names: str) -> None:
    """Let clients join, each with its name for a connection."""
    hub.open_clients_registration()
    for name in names:
        answer = await hub.handle_message(Join(name, VERSION).serialize(), name)
        assert isinstance(answer, Accept)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def messages_of_any_fields() -> st.SearchStrategy[bytes]:
    """Make messages of declearn's actions, their fields of any type."""
    values = (
        st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
    )
    fields = st.dictionaries(st.sampled_from(["name", "version", "content", "timeout", "reason", "flag"]), values)
    actions = st.sampled_from(["join", "send", "recv", "drop", "ping", "accept", "reject", "none"])
    return st.builds(lambda kept, action: msgpack_serialize({**kept, "action": action}), fields, actions)


@given(content=st.binary(max_size=200) | messages_of_any_fields(), known=st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_bytes_raise_or_wait(*, content: bytes, known: bool) -> None:
    """Whatever a peer sends, joined or not, it is answered; only a request for a message waits until one is there."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        answering = asyncio.create_task(hub.handle_message(content, "a" if known else "b"))
        await settle()
        if not answering.done():
            hub.post_message(b"", "a")
            await settle()
        assert isinstance(answering.result(), Accept | Ping | Reject | Send)
        assert "a" in hub.mailboxes or not hub.registered_clients or known

    run(scene())


def test_a_message_sent_is_collected_and_its_sender_goes_on() -> None:
    """A message reaches the client that asks for one, and only then does sending it end."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        sending = asyncio.create_task(hub.send_message(b"hello", "a"))
        await settle()
        assert not sending.done()
        assert await hub.handle_message(Recv().serialize(), "a") == Send(b"hello")
        await sending

    run(scene())


def test_a_client_that_asks_first_is_answered_on_arrival() -> None:
    """A request for a message that is not there yet is answered when it comes."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        asking = asyncio.create_task(hub.handle_message(Recv().serialize(), "a"))
        await settle()
        hub.post_message(b"late", "a")
        assert await asking == Send(b"late")

    run(scene())


def test_a_request_for_a_message_times_out_as_upstream_says_it() -> None:
    """A client that asks with a time-out is told so in upstream's words."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        assert await hub.handle_message(Recv(0.01).serialize(), "a") == Reject(flags.CHECK_MESSAGE_TIMEOUT)

    run(scene())


def test_a_departure_wakes_whoever_waits_for_that_client() -> None:
    """Waiting for a message of a client that leaves ends with its name and reason."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a", "b")
        waiting = asyncio.create_task(hub.recv_message("a"))
        await settle()
        hub.depart("a", "connection lost")
        with pytest.raises(ClientGoneError, match=r"client a is gone \(connection lost\)"):
            await waiting
        assert hub.client_names == {"b"}

    run(scene())


def test_a_reply_sent_before_leaving_still_counts() -> None:
    """What a client sent before it left is delivered."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        waiting = asyncio.create_task(hub.recv_message("a"))
        await settle()
        assert await hub.handle_message(Send(b"done").serialize(), "a") == Ping()
        hub.depart("a", "it left")
        assert await waiting == b"done"

    run(scene())


def test_a_message_to_somebody_unknown_fails_at_once() -> None:
    """Sending to a client that is not there says so, instead of waiting for it."""

    async def scene() -> None:
        with pytest.raises(ClientGoneError, match=r"client nobody is gone \(not connected\)"):
            await Hub().send_message(b"x", "nobody")

    run(scene())


def test_a_late_reply_is_discarded_and_the_next_one_counts() -> None:
    """After a missed deadline, the reply to the old request is dropped; that to the new request arrives."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        first = asyncio.create_task(hub.exchange(b"round 1", "a", 0.01))
        assert await hub.handle_message(Recv().serialize(), "a") == Send(b"round 1")
        with pytest.raises(TimeoutError):
            await first
        second = asyncio.create_task(hub.exchange(b"round 2", "a", PATIENCE))
        await settle()
        assert await hub.handle_message(Send(b"result 1").serialize(), "a") == Ping()
        assert await hub.handle_message(Recv().serialize(), "a") == Send(b"round 2")
        assert await hub.handle_message(Send(b"result 2").serialize(), "a") == Ping()
        assert await second == b"result 2"

    run(scene())


def test_what_was_sent_before_it_was_asked_for_is_no_reply() -> None:
    """Messages that a client sent before it has collected a request are discarded and noted; its reply counts."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        assert await hub.handle_message(Send(b"ahead").serialize(), "a") == Ping()
        waiting = asyncio.create_task(hub.handle_message(Send(b"further ahead").serialize(), "a"))
        await settle()
        exchange = asyncio.create_task(hub.exchange(b"request", "a", PATIENCE))
        assert await waiting == Ping()
        assert await hub.handle_message(Send(b"too early").serialize(), "a") == Ping()
        assert await hub.handle_message(Recv().serialize(), "a") == Send(b"request")
        assert await hub.handle_message(Send(b"reply").serialize(), "a") == Ping()
        assert await exchange == b"reply"
        assert hub.refusals.totals == {UNASKED: 3}

    run(scene())


@pytest.mark.parametrize("proven", ["a", None])
def test_who_was_put_out_is_told_why(proven: str | None) -> None:
    """A name that was put out may not join again, and learns the reason; another may."""

    async def scene() -> None:
        hub = Hub(name_of=lambda _: proven)
        hub.open_clients_registration()
        hub.put_out["a"] = "it sent rubbish"
        answer = await hub.handle_message(Join("a", VERSION).serialize(), "socket")
        assert answer == Reject("put out of this run: it sent rubbish")
        assert hub.refusals.totals == {PUT_OUT: 1}
        hub.put_out.clear()
        assert isinstance(await hub.handle_message(Join("a", VERSION).serialize(), "socket"), Accept)

    run(scene())


def test_a_request_nobody_collected_is_withdrawn() -> None:
    """A request whose deadline passes before the client asks for it is never delivered."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        with pytest.raises(TimeoutError):
            await hub.exchange(b"old", "a", 0.01)
        assert await hub.handle_message(Recv(0.01).serialize(), "a") == Reject(flags.CHECK_MESSAGE_TIMEOUT)

    run(scene())


def test_a_name_other_than_the_certificate_s_is_refused() -> None:
    """A client that asks for a name its certificate does not prove is refused, with both names."""

    async def scene() -> None:
        hub = Hub(name_of=lambda _: "client_0")
        hub.open_clients_registration()
        answer = await hub.handle_message(Join("client_1", VERSION).serialize(), "socket")
        assert answer == Reject("your certificate names 'client_0', you asked to join as 'client_1'")
        assert hub.client_names == set()

    run(scene())


def test_a_second_client_of_a_live_name_is_refused_and_takes_over_a_dead_one() -> None:
    """One proven name is one connection; once that is gone, the next one may have it."""

    async def scene() -> None:
        hub = Hub(name_of=lambda _: "client_0")
        hub.open_clients_registration()
        join = Join("client_0", VERSION).serialize()
        assert isinstance(await hub.handle_message(join, "first"), Accept)
        assert await hub.handle_message(join, "second") == Reject(NAME_IN_USE)
        hub.depart("first", "connection lost")
        assert isinstance(await hub.handle_message(join, "second"), Accept)

    run(scene())


def test_unproven_names_are_told_apart_as_upstream_does() -> None:
    """Without certificates, a second client of the same name gets a number after it."""

    async def scene() -> None:
        hub = Hub()
        hub.open_clients_registration()
        for connection in ("first", "second"):
            await hub.handle_message(Join("a", VERSION).serialize(), connection)
        assert hub.client_names == {"a", "a.1"}

    run(scene())


def test_saying_good_bye_is_a_departure() -> None:
    """A client that drops politely is gone at once, with its own reason."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        waiting = asyncio.create_task(hub.recv_message("a"))
        await settle()
        assert await hub.handle_message(Drop("maintenance").serialize(), "a") == Ping()
        with pytest.raises(ClientGoneError, match="maintenance"):
            await waiting

    run(scene())


def test_the_number_of_clients_is_waited_for_without_looking_twice() -> None:
    """Waiting for clients ends with the one that makes the condition true."""

    async def scene() -> None:
        hub = Hub()
        looked: list[int] = []

        def condition(count: int) -> bool:
            looked.append(count)
            return count >= 2

        waiting = asyncio.create_task(hub.until_clients(condition))
        await settle()
        await joined(hub, "a")
        await settle()
        await joined(hub, "b")
        await waiting
        assert looked == [0, 1, 2]

    run(scene())


def test_messages_of_strangers_and_rubbish_are_refused() -> None:
    """Who has not joined, and what is no message, gets a refusal and changes nothing."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        assert await hub.handle_message(Recv().serialize(), "stranger") == Reject(flags.REJECT_UNREGISTERED)
        for rubbish in (b"", b"\xff\x00", b"\x81\xa6action\xa3bad", b"\x93\x01\x02\x03"):
            assert await hub.handle_message(rubbish, "a") == Reject(flags.INVALID_MESSAGE)
        assert await hub.handle_message("text", "a") == Reject(flags.INVALID_MESSAGE)  # type: ignore[arg-type]
        assert hub.client_names == {"a"}

    run(scene())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["collect", "reply", "leave", "return", "deadline"]), max_size=12),
)
def test_an_exchange_ends_whatever_happens_in_whatever_order(events: list[str]) -> None:
    """An exchange always ends: with the reply to its own request, or with the reason why there is none."""

    async def scene() -> None:
        hub = Hub()
        await joined(hub, "a")
        exchange = asyncio.create_task(hub.exchange(b"request", "a"))
        await settle()
        collected = replied = left = False
        for event in events:
            connected = "a" in hub.client_names
            if event == "collect" and connected:
                answer = await hub.handle_message(Recv(0.0001).serialize(), "a")
                collected = collected or answer == Send(b"request")
            elif event == "reply" and connected and collected and not (replied or left):
                await hub.handle_message(Send(b"reply").serialize(), "a")
                replied = True
            elif event == "leave":
                hub.depart("a", "it left")
                left = left or not replied
            elif event == "return" and not connected:
                await joined(hub, "a")
            elif event == "deadline":
                await asyncio.sleep(0)
            await settle()
        if exchange.done():
            assert replied or left
        hub.depart("a", "it left")
        if replied:
            assert await exchange == b"reply"
        else:
            with pytest.raises(ClientGoneError):
                await exchange

    run(scene())


def test_an_identity_that_keeps_coming_back_is_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One identity joins only so often a minute, since each time is told and costs a set-up; others join as ever."""
    monkeypatch.setattr("services.transport.hub.MOST_JOINS", 3)
    monkeypatch.setattr("services.transport.hub.JOIN_PERIOD", 0.05)

    async def scene() -> None:
        hub = Hub(name_of=lambda context: context[0])
        hub.open_clients_registration()

        async def join(name: str, number: int) -> Any:
            answer = await hub.handle_message(Join(name, VERSION).serialize(), (name, number))
            hub.depart((name, number), "connection lost")
            return answer

        assert [type(await join("a", number)) for number in range(3)] == [Accept] * 3
        assert await join("a", 3) == Reject(TOO_OFTEN)
        assert isinstance(await join("b", 4), Accept)
        assert hub.refusals.totals == {"it has joined too often of late": 1}
        while not isinstance(await join("a", 5), Accept):
            await asyncio.sleep(0.01)

    run(scene())


def test_a_version_that_does_not_fit_is_counted() -> None:
    """A client of another declearn is told so, and counted."""

    async def scene() -> None:
        hub = Hub()
        hub.open_clients_registration()
        assert await hub.handle_message(Join("a", "1.0").serialize(), "a") == Reject(flags.REJECT_INCOMPATIBLE_VERSION)
        assert hub.refusals.totals == {"it can't join": 1}

    run(scene())
