"""The event-driven message hub: who is there, what waits for them, what they sent.

Replaces `declearn.communication.api.backend.MessagesHandler`, which sleeps `heartbeat` seconds between two looks at a
dictionary in each of its waits. Here every wait is a future that arrival, collection, departure or a deadline resolves,
so that thousands of waiting clients cost no processor time. The wire format (`ActionMessage`s) is upstream's.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from declearn.communication.api.backend import MessagesHandler, flags
from declearn.communication.api.backend.actions import Accept, ActionMessage, Drop, Join, Ping, Recv, Reject, Send

from services.errors import LostError
from services.transport.refusals import Refusals, one_line
from services.transport.wire import read_request

logger = logging.getLogger("fed.server.hub")

MALFORMED = "a message that is none of declearn's"

NAME_IN_USE = "another client is connected under this name"

PUT_OUT = "put out of this run"

UNASKED = "a message that nobody asked for"

TOO_OFTEN = "this client has joined too often of late"

MOST_JOINS = 10
"""Times that one identity may join within `JOIN_PERIOD`: each is told in the log, and set up with the model."""

JOIN_PERIOD = 60.0
"""Seconds in which joins are counted."""


class ClientGoneError(LostError):
    """A client left, or its connection was lost, while something was expected of it.

    Attributes:
        name: the client's name.
        reason: why, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"client {name} is gone ({reason})")


@dataclass
class Mailbox:
    """What is exchanged with one connected client.

    Attributes:
        name: the name it joined under.
        context: what identifies its connection: a websocket, or anything hashable.
        traits: what its handshake said of it (see `services.transport.messages`).
        outgoing: message it has yet to collect.
        incoming: message nobody has yet read.
        pending: request of an exchange that is yet to be collected: what is sent before that is no reply to it.
        owed: replies that came too late for their round and are discarded on arrival.
        asked: a reply is awaited from it.
        answers: it has collected a message that it has not answered.
        gone: why it left, or None while it is connected.
    """

    name: str
    context: Any
    traits: frozenset[str] = frozenset()
    outgoing: bytes | None = None
    incoming: bytes | None = None
    pending: bytes | None = None
    owed: int = 0
    asked: bool = False
    answers: bool = False
    gone: str | None = None
    _waiters: set[asyncio.Future[None]] = field(default_factory=set)

    def notify(self) -> None:
        """Wake everybody who waits for this mailbox to change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until `condition` holds; it is looked at after each change only.

        Raises:
            TimeoutError: `timeout` seconds have passed first.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)


class Hub(MessagesHandler):
    """Event-driven `MessagesHandler`: same calls, same wire, no polling.

    Args:
        name_of: tells the name proven by a connection's certificate, or None where none was shown.
        traits_of: tells what a connection's handshake said of its client.
        refusals: where is noted who was refused.

    Attributes:
        put_out: by name, why a client may join no more.
    """

    def __init__(
        self,
        name_of: Callable[[Any], str | None] = lambda _: None,
        traits_of: Callable[[Any], frozenset[str]] = lambda _: frozenset(),
        refusals: Refusals | None = None,
    ) -> None:
        # upstream's constructor warns that its logger argument is deprecated, yet requires it
        self.logger = logging.getLogger("declearn.server.messages_handler")
        self.logger.setLevel(logging.WARNING)  # it tells of each request to join
        self.heartbeat = 0.0
        self.registered_clients: dict[Any, str] = {}
        self.registration_status = flags.REGISTRATION_UNSTARTED
        self.mailboxes: dict[str, Mailbox] = {}
        self.on_join: Callable[[Mailbox], None] | None = None
        self.on_leave: Callable[[str, str, bool], None] | None = None
        self.on_late: Callable[[str], None] | None = None
        self._name_of = name_of
        self._traits_of = traits_of
        self.refusals = refusals or Refusals()
        self.put_out: dict[str, str] = {}
        self._last_join = -math.inf
        self._joins: dict[str, collections.deque[float]] = collections.defaultdict(
            lambda: collections.deque(maxlen=MOST_JOINS)
        )
        self._lobby = Mailbox("", None)  # woken whenever somebody joins or leaves

    # -- who is there ---------------------------------------------------------------------------------------------

    async def purge(self) -> None:
        """Forget everybody; those who wait for a message learn that the federation is over."""
        for context in list(self.registered_clients):
            self.depart(context, "the federation is over")
        self.mailboxes.clear()
        self.registration_status = flags.REGISTRATION_UNSTARTED

    def depart(self, context: Any, reason: str, *, clean: bool = False) -> None:
        """Take note that a connection is gone, and wake whoever waits for its client.

        Args:
            context: the connection.
            reason: why it is gone, in a few words.
            clean: the client said good-bye, and is not expected back.
        """
        name = self.registered_clients.pop(context, None)
        if name is None:
            return
        mailbox = self.mailboxes.pop(name)
        mailbox.gone = reason
        mailbox.notify()
        self._lobby.notify()
        if self.on_leave is not None:
            self.on_leave(name, reason, clean)

    def flush(self, client: str) -> None:
        """Drop what a client has sent and nobody has read, and what it has yet to collect."""
        mailbox = self.mailboxes.get(client)
        if mailbox is not None:
            mailbox.incoming = mailbox.outgoing = None
            mailbox.notify()

    def is_busy(self, client: str) -> bool:
        """Tell whether a client still owes the reply to a request whose time is over: it is at work on that."""
        mailbox = self.mailboxes.get(client)
        return mailbox is not None and mailbox.owed > 0

    def since_last_join(self) -> float:
        """Tell how many seconds ago the last client joined; infinite where none has."""
        return asyncio.get_running_loop().time() - self._last_join

    async def until_clients(self, condition: Callable[[int], bool], timeout: float | None = None) -> None:
        """Wait until `condition` holds for the number of connected clients.

        Raises:
            TimeoutError: `timeout` seconds have passed first.
        """
        await self._lobby.until(lambda: condition(len(self.registered_clients)), timeout)

    async def _wait_for_clients(
        self, min_clients: int = 1, max_clients: int | None = None, timeout: float | None = None
    ) -> None:
        """Replace upstream's polling back end of `wait_for_clients`; registration stays open afterwards."""
        self.open_clients_registration()
        wanted = min_clients if max_clients is None and timeout is None else max_clients
        try:
            await self.until_clients(lambda count: wanted is not None and count >= wanted, timeout)
        except TimeoutError:
            if len(self.registered_clients) < min_clients:
                raise RuntimeError(f"{len(self.registered_clients)} of {min_clients} clients joined") from None

    # -- requests of clients --------------------------------------------------------------------------------------

    async def _handle_join_request(self, message: Join, context: Any) -> Accept | Reject:
        """Accept a client under the name its certificate proves; upstream trusts the name in the message."""
        if context in self.registered_clients:
            return Accept(flags.REGISTERED_ALREADY)
        proven = self._name_of(context)
        if proven is not None and message.name != proven:
            self.refusals.note(proven, "it asked to join under another name", message.name)
            return Reject(f"your certificate names {proven!r}, you asked to join as {message.name!r}")
        if proven is not None and proven in self.mailboxes:
            self.refusals.note(proven, "another client is connected under its name")
            return Reject(NAME_IN_USE)
        reason = self.put_out.get(message.name if proven is None else proven)
        if reason is not None:
            self.refusals.note(proven or message.name, PUT_OUT)
            return Reject(f"{PUT_OUT}: {reason}")
        if proven is not None and self._joins_too_often(proven):
            self.refusals.note(proven, "it has joined too often of late")
            return Reject(TOO_OFTEN)
        answer: Accept | Reject = await super()._handle_join_request(message, context)
        if isinstance(answer, Reject):
            self.refusals.note(self._bearer(context), "it can't join", answer.flag)
        return answer

    def _joins_too_often(self, name: str) -> bool:
        joins = self._joins[name]
        return len(joins) == MOST_JOINS and asyncio.get_running_loop().time() - joins[0] < JOIN_PERIOD

    def _register_client(self, message: Join, context: Any) -> None:
        """Open a mailbox; upstream renames a second client of the same name, and so do we where nothing is proven."""
        super()._register_client(message, context)
        name = self.registered_clients[context]
        self.mailboxes[name] = Mailbox(name, context, self._traits_of(context))
        self._last_join = asyncio.get_running_loop().time()
        if self._name_of(context) is not None:
            self._joins[name].append(self._last_join)
        self._lobby.notify()
        if self.on_join is not None:
            self.on_join(self.mailboxes[name])

    async def _handle_send_request(self, message: Send, context: Any) -> Ping | Reject:
        """Take a client's message; a reply that its round no longer waits for is discarded."""
        mailbox = self._mailbox(context)
        if mailbox is None:
            return Reject(flags.REJECT_UNREGISTERED)
        mailbox.answers = False
        if mailbox.owed:
            mailbox.owed -= 1
            logger.info("discarded a late reply of %s", mailbox.name)
            if self.on_late is not None:
                self.on_late(mailbox.name)
            return Ping()
        await mailbox.until(lambda: mailbox.incoming is None or mailbox.gone is not None)
        if mailbox.pending is not None and mailbox.outgoing is mailbox.pending:
            self.refusals.note(mailbox.name, UNASKED)
            return Ping()
        mailbox.incoming = message.content
        mailbox.notify()
        return Ping()

    async def _handle_recv_request(self, message: Recv, context: Any) -> Send | Reject:
        """Give a client the message that waits for it, as soon as one does."""
        mailbox = self._mailbox(context)
        if mailbox is None:
            return Reject(flags.REJECT_UNREGISTERED)
        try:
            await mailbox.until(lambda: mailbox.outgoing is not None or mailbox.gone is not None, message.timeout)
        except TimeoutError:
            return Reject(flags.CHECK_MESSAGE_TIMEOUT)
        content, mailbox.outgoing = mailbox.outgoing, None
        mailbox.answers = content is not None
        mailbox.notify()
        return Reject(flags.REJECT_UNREGISTERED) if content is None else Send(content)

    async def _handle_drop_request(self, message: Drop, context: Any) -> Ping:
        """Let a client go that says good-bye."""
        self.depart(context, one_line(message.reason or "it left"), clean=True)
        return Ping()

    async def handle_message(self, bin_msg: bytes, context: Any) -> ActionMessage:
        """Answer one message; upstream raises on bytes that are none, and takes fields of any type."""
        message = read_request(bin_msg)
        if message is None:
            self.refusals.note(self._bearer(context), MALFORMED)
            return Reject(flags.INVALID_MESSAGE)
        if isinstance(message, Join):
            return await self._handle_join_request(message, context)
        if context not in self.registered_clients:
            self.refusals.note(self._bearer(context), "a message before joining")
            return Reject(flags.REJECT_UNREGISTERED)
        answer: ActionMessage = await self._handle_registered_client_message(message, context)
        return answer

    def _bearer(self, context: Any) -> str:
        return self.registered_clients.get(context) or self._name_of(context) or "somebody"

    def answers(self, context: Any) -> bool:
        """Tell whether a connection's client has collected a message that it has not answered."""
        mailbox = self._mailbox(context)
        return mailbox is not None and mailbox.answers

    def _mailbox(self, context: Any) -> Mailbox | None:
        name = self.registered_clients.get(context)
        return None if name is None else self.mailboxes.get(name)

    # -- requests of the server -----------------------------------------------------------------------------------

    def _open(self, client: str) -> Mailbox:
        try:
            return self.mailboxes[client]
        except KeyError:
            raise ClientGoneError(client, "not connected") from None

    def post_message(self, bin_msg: bytes, client: str) -> None:
        """Leave a message for a client to collect."""
        mailbox = self._open(client)
        mailbox.outgoing = bin_msg
        mailbox.notify()

    async def send_message(self, bin_msg: bytes, client: str, timeout: float | None = None) -> None:
        """Leave a message and wait until it is collected.

        Raises:
            TimeoutError: it was not collected in `timeout` seconds; it is withdrawn.
            ClientGoneError: the client is not there, or left first.
        """
        self.post_message(bin_msg, client)
        mailbox = self._open(client)
        try:
            await mailbox.until(lambda: mailbox.outgoing is not bin_msg or mailbox.gone is not None, timeout)
        except TimeoutError:
            mailbox.outgoing = None
            raise
        if mailbox.outgoing is bin_msg and mailbox.gone is not None:
            raise ClientGoneError(client, mailbox.gone)

    def check_message(self, client: str) -> bytes | None:
        """Take the message a client has sent, if any."""
        return self._take(self._open(client))

    async def recv_message(self, client: str, timeout: float | None = None) -> bytes:
        """Wait for a message of a client and take it.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            ClientGoneError: the client is not there, or left before it sent one.
        """
        return await self._receive(self._open(client), timeout)

    async def exchange(self, request: bytes, client: str, timeout: float | None = None) -> bytes:
        """Send one request and wait for the one reply to it.

        A request that is not collected by the deadline is withdrawn; a reply that comes after it is discarded, and so
        is a message that was sent before the request was collected.

        Raises:
            TimeoutError: no reply came in `timeout` seconds.
            ClientGoneError: the client is not there, or left before it replied.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        mailbox = self._open(client)
        mailbox.asked, mailbox.pending = True, request
        if self._take(mailbox) is not None:
            self.refusals.note(client, UNASKED)
        try:
            try:
                await self.send_message(request, client, timeout)
            finally:
                mailbox.pending = None
            try:
                return await self._receive(mailbox, None if deadline is None else max(0.0, deadline - loop.time()))
            except TimeoutError:
                mailbox.owed += 1
                raise
        finally:
            mailbox.asked = False

    async def _receive(self, mailbox: Mailbox, timeout: float | None) -> bytes:
        await mailbox.until(lambda: mailbox.incoming is not None or mailbox.gone is not None, timeout)
        content = self._take(mailbox)
        if content is None:
            raise ClientGoneError(mailbox.name, mailbox.gone or "it left")
        return content

    @staticmethod
    def _take(mailbox: Mailbox) -> bytes | None:
        content, mailbox.incoming = mailbox.incoming, None
        mailbox.notify()
        return content
