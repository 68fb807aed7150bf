"""Who is there and what each one holds: newcomers are set up, and the data set is dealt to those who can train.

`Membership` decides; what it decides is carried out here, by messages to the clients, and told in events.csv.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import zlib
from collections.abc import Callable, Collection, Mapping

from declearn import messaging
from declearn.messaging import Message

from services.experiment import Plan
from services.server.membership import Member, Membership, Seat
from services.server.results import RunFolder
from services.transport.hub import ClientGoneError, Mailbox
from services.transport.messages import DEALABLE, HALVES, ClientState, Compression, Deal, DealReply, StandBy, StateQuery
from services.transport.server import REFUSED, Answers, Loss, ServerEndpoint

SET_UP_TIMEOUT = 600.0
"""Seconds a newcomer has to import its framework and build the model; many on one machine take minutes."""

MOST_REFUSED = 3
"""Replies of a client that are refused in a row before it is put out of the federation."""

DEAL_TIMEOUT = 60.0
"""Seconds a member has to load its index set; one that takes longer misses a round."""

logger = logging.getLogger("fed.server")


class Attendance:
    """The clients of one run, from the moment they join.

    Args:
        plan: of it `seed`, `deterministic`, `compression` and `federation` count here.
        endpoint: where the clients are.
        folder: where events are told.
        sizes: the numbers of clients the data set can be dealt to; empty where there is nothing to deal.
        request: makes what a newcomer is set up with.
        privacy: makes what it is set up with after that, where it is to train by DP-SGD.
        on_join: is told the name of whoever joins.
        now: tells the number of the last round.

    Attributes:
        seats: by name, the seat of each member that is dealt data.
        client_states: by name, the optimizer state of a client as the server last received it.
        put_out: by name, why a client may take no more part in this run.
        changed: set whenever somebody came, left, became ready or caught up.
    """

    def __init__(
        self,
        plan: Plan,
        endpoint: ServerEndpoint,
        folder: RunFolder,
        sizes: tuple[int, ...],
        *,
        request: Callable[[], messaging.InitRequest],
        privacy: Callable[[], messaging.PrivacyRequest] | None,
        on_join: Callable[[str], None],
        now: Callable[[], int],
    ) -> None:
        self.plan = plan
        self.membership = Membership(sizes, plan.federation.rejoin_grace)
        self.seats: dict[str, Seat] = {}
        self.client_states: dict[str, bytes] = {}
        self.put_out = endpoint.handler.put_out
        self.changed = asyncio.Event()
        self._netwk = endpoint
        self._folder = folder
        self._request = request
        self._privacy = privacy
        self._tell = on_join
        self._now = now
        self._refused_in_a_row: dict[str, int] = {}
        self._set_ups: dict[str, asyncio.Task[None]] = {}
        self._joins: collections.Counter[str] = collections.Counter()
        self._standby: tuple[str, ...] = ()

    def open(self) -> None:
        """Set up those who are there, and from now on everybody who comes."""
        hub = self._netwk.handler
        for mailbox in list(hub.mailboxes.values()):
            self._on_join(mailbox)
        hub.on_join, hub.on_leave = self._on_join, self._on_leave
        hub.on_late = lambda _: self.changed.set()

    def close(self) -> None:
        """Take no more note of who comes and goes."""
        hub = self._netwk.handler
        hub.on_join = hub.on_leave = hub.on_late = None
        for task in self._set_ups.values():
            task.cancel()

    async def settled(self) -> None:
        """Wait until everybody who has come so far is set up, or can't be."""
        if self._set_ups:
            await asyncio.wait(list(self._set_ups.values()))

    async def call_the_roll(self) -> list[str]:
        """Deal the data set to those who are there, and tell who can train."""
        call = self.membership.roll_call(self.seats)
        for name in call.forgotten:
            line = f"{name} did not return within {self.plan.federation.rejoin_grace:g} s"
            self._folder.add_event(self._now(), "forgotten", name, "did not return in time", line=line)
        if call.standby != self._standby:
            self._let_stand_by(call.standby)
        if call.seats != self.seats and call.size:
            line = f"dealing the data set to {call.size} clients"
            self._folder.add_event(self._now(), "dealt", "", f"{call.size} clients", line=line, level=logging.INFO)
        self.seats = call.seats
        members = self.membership.members
        requests: dict[str, Message] = {
            name: Deal(seat.size, seat.seat, derived_seed(self.plan.seed, seat.size, seat.seat))
            for name, seat in call.seats.items()
            if members[name].ready and members[name].dealt != seat and not self._netwk.handler.is_busy(name)
        }
        if requests:
            asked = {name: members[name] for name in requests}
            answers = await self._netwk.ask(requests, DealReply, DEAL_TIMEOUT)
            for name, member in asked.items():
                if members.get(name) is not member:
                    continue  # it went, or came anew, meanwhile
                if name in answers.replies:
                    member.dealt = call.seats[name]
                elif answers.losses[name].kind in {"error", REFUSED}:
                    self._refuse(member, answers.losses[name])
        return [name for name in call.participants if self.membership.is_ready(name) and self._is_dealt(name)]

    def held(self, name: str) -> tuple[Seat | None, int]:
        """Tell what a member trains on, as a value that changes with it: its seat, and how often it has joined."""
        return self.membership.members[name].dealt, self._joins[name]

    def exclude(self, name: str, reason: str) -> None:
        """Leave out a member that can't do what the plan asks of it."""
        member = self.membership.members.get(name)
        if member is not None:
            member.ready = False
            self._refuse(member, Loss("error", reason))

    def own_images(self, name: str) -> int | None:
        """Tell how many training images a member with its own data says it has; None where that is not known."""
        member = self.membership.members.get(name)
        return None if member is None else member.images

    def judge(self, trained: Collection[str], losses: Mapping[str, Loss]) -> None:
        """Put out whoever has had its reply refused several times in a row; until the end of the run.

        Args:
            trained: names of those whose replies of a round count.
            losses: by name, why a reply does not count.
        """
        for name in trained:
            self._refused_in_a_row.pop(name, None)
        for name, loss in losses.items():
            if loss.kind != REFUSED:
                continue
            count = self._refused_in_a_row[name] = self._refused_in_a_row.get(name, 0) + 1
            if count >= MOST_REFUSED:
                reason = f"its replies were refused {count} times in a row, last: {loss.reason}"
                logger.warning("%s is put out: %s", name, reason)
                self._folder.add_event(self._now(), "refused", name, reason)
                self.put_out_of_run(name, reason)

    def put_out_of_run(self, name: str, reason: str) -> None:
        """Let a client take no more part in this run, unless the operator says otherwise."""
        self._refused_in_a_row.pop(name, None)
        self.membership.members.pop(name, None)
        self._netwk.put_out(name, reason)
        self.changed.set()

    async def collect_states(self, members: list[str]) -> dict[str, bytes]:
        """Fetch the clients' optimizer states, so that a resumed run equals an uninterrupted one."""
        answers = await self._netwk.ask(dict.fromkeys(members, StateQuery()), ClientState, SET_UP_TIMEOUT)
        return {name: reply.state for name, reply in answers.replies.items()}

    def _is_dealt(self, name: str) -> bool:
        """Tell whether a member holds what it should train on, and is not at work on a round that is over."""
        member = self.membership.members[name]
        if self._netwk.handler.is_busy(name):
            return False
        return not member.dealable or (name in self.seats and member.dealt == self.seats[name])

    def _refuse(self, member: Member, loss: Loss) -> None:
        """Leave out a member that can't be set up, or can't load what it is dealt."""
        if loss.kind == "gone":
            return  # the hub reports it
        member.refused = loss.reason
        line = f"{member.name} can't take part: {loss.reason}"
        self._folder.add_event(self._now(), "refused", member.name, loss.reason, line=line)

    def _let_stand_by(self, names: tuple[str, ...]) -> None:
        self._standby = names
        reason = f"the data set is dealt to at most {max(self.membership.sizes, default=0)} clients"
        if not self.membership.sizes:
            reason = "there is no data set to deal; run `fed init`, or start clients as `fed client NAME FOLDER`"
        if names:
            logger.warning("%s stand by: %s", ", ".join(names), reason)
        for name in names:
            self.membership.members[name].dealt = None
            self._folder.add_event(self._now(), "standby", name, reason)
            with contextlib.suppress(ClientGoneError):
                self._netwk.handler.post_message(StandBy(reason).serialize(), name)

    def _on_join(self, mailbox: Mailbox) -> None:
        name = mailbox.name
        returns = self.membership.join(name, dealable=DEALABLE in mailbox.traits)
        self._joins[name] += 1
        self._tell(name)
        self._folder.add_event(self._now(), "returned" if returns else "joined", name)
        self._set_ups[name] = asyncio.create_task(self._set_up(name))

    def _on_leave(self, name: str, reason: str, clean: bool) -> None:  # noqa: FBT001 - the hub's callback
        if name not in self.membership.members:
            return
        self.membership.leave(name, clean=clean)
        task = self._set_ups.pop(name, None)
        if task is not None:
            task.cancel()
        if clean:
            self._folder.add_event(self._now(), "left", name, reason, line=f"{name} left: {reason}", level=logging.INFO)
        else:
            self._folder.add_event(self._now(), "lost", name, reason, line=f"lost {name}: {reason}")
        self.changed.set()

    async def _set_up(self, name: str) -> None:
        """Give a newcomer the model, its optimizer and, where it is known, the state it had."""
        member = self.membership.members[name]
        kind = self._beyond_stock()
        if kind is not None and not self._netwk.traits(name):
            self._refuse(member, Loss("error", f"a {kind} takes no stock declearn client"))
            return
        answers = await self._ask_for_images(member)
        if not answers.losses:
            answers = await self._netwk.ask({name: self._request()}, messaging.InitReply, SET_UP_TIMEOUT)
        if not answers.losses and self.plan.compression != "none" and HALVES in self._netwk.traits(name):
            told = Compression(self.plan.compression)
            answers = await self._netwk.ask({name: told}, Compression, SET_UP_TIMEOUT)
        if not answers.losses and self._privacy is not None:
            answers = await self._netwk.ask({name: self._privacy()}, messaging.PrivacyReply, SET_UP_TIMEOUT)
        if not answers.losses and name in self.client_states:
            state = ClientState(self.client_states[name])
            answers = await self._netwk.ask({name: state}, ClientState, SET_UP_TIMEOUT)
        if self.membership.members.get(name) is not member:
            return
        if name in answers.losses:
            self._refuse(member, answers.losses[name])
        else:
            member.ready = True
        self.changed.set()

    def _beyond_stock(self) -> str | None:
        """Name what of the plan a stock declearn client can't do; the messages for it would end that client."""
        if self.plan.deterministic:
            return "deterministic run"
        if self._privacy is not None:
            return "run with DP-SGD"
        return None if self.plan.fairness.algorithm is None else "run with fairness"

    async def _ask_for_images(self, member: Member) -> Answers:
        """Ask a site with its own data how many images it trains on, by which its steps are bounded from now on.

        Under secure aggregation steps are none of the server's business, and it does not ask.
        """
        if member.dealable or self.plan.secagg is not None:
            return Answers({}, {})
        query = messaging.MetadataQuery(["n_samples"])
        answers = await self._netwk.ask({member.name: query}, messaging.MetadataReply, SET_UP_TIMEOUT)
        for reply in answers.replies.values():
            images = reply.data_info.get("n_samples") if isinstance(reply.data_info, dict) else None
            if not isinstance(images, int) or images < 1:
                return Answers({}, {member.name: Loss(REFUSED, f"it says that it has {str(images)[:60]!r} images")})
            member.images = images
            logger.info("%s has %s training images of its own, as it says", member.name, f"{images:,}")
        return answers


def derived_seed(seed: int, *parts: int) -> int:
    """Derive a seed in [0, 2**32[ for one use from a run's seed; the same on every machine."""
    return zlib.crc32(repr((seed, *parts)).encode())
