"""What can be seen of a run while it goes on, as plain values: for the page, its JSON, the metrics and terminals.

Nothing here is a secret, and nothing is an image: names, states, counts and figures.
"""

from __future__ import annotations

import asyncio
import collections
import statistics
from typing import TYPE_CHECKING, Any, cast

from services.experiment import Plan
from services.server.membership import Member
from services.server.results import RunFolder
from services.shards import Manifest
from services.tables import HISTORY_COLUMNS, ClientRound
from services.transport.gate import Gate
from services.transport.server import ServerEndpoint

if TYPE_CHECKING:
    from services.server.evaluation import Score
    from services.server.federation import Federation

RECENT = 3
"""Rounds from whose median is told how long the others will take."""

AT_WORK = {"training": "training", "evaluating": "evaluating"}
"""State of a client whose answer is awaited, by the phase of the run; in any other it is `preparing`."""

DEPARTURES = ("left", "lost", "forgotten")
"""Events after which a client is gone."""


class View:
    """The state of one run, looked at from outside.

    Args:
        plan: what is trained.
        endpoint: where the clients are.
        folder: what was recorded so far.
        manifest: of the data set.
        wanted: number of clients to begin with.

    Attributes:
        federation: the rounds, once there are any to be run.
        outcome: status and reason, once the run is over.
        score: of the model that the run leaves, once it is over.
    """

    def __init__(
        self, plan: Plan, endpoint: ServerEndpoint, folder: RunFolder, manifest: Manifest, wanted: int
    ) -> None:
        self.federation: Federation | None = None
        self.outcome: tuple[str, str] | None = None
        self.score: Score | None = None
        self._plan = plan
        self._endpoint = endpoint
        self._folder = folder
        self._manifest = manifest
        self._wanted = wanted
        self._experiment = plan.model_dump(mode="json")

    @property
    def phase(self) -> str:
        """What the server is at."""
        if self.outcome is not None:
            return self.outcome[0]
        return "gathering" if self.federation is None else self.federation.phase

    @property
    def healthy(self) -> bool:
        """Whether the run can go on."""
        return self.outcome is None and self.phase != "waiting"

    def snapshot(self) -> dict[str, Any]:
        """Tell everything; `docs/operating.md` has the keys."""
        federation, rounds = self.federation, self._folder.rounds
        last = rounds[-1] if rounds else None
        private = None if federation is None else federation.private
        clients = {name: self._client(name) for name in sorted(self._endpoint.client_names)}
        return {
            "run_id": self._folder.run_id,
            "phase": self.phase,
            "reason": "" if self.outcome is None else self.outcome[1],
            "healthy": self.healthy,
            "round": 0 if federation is None else federation.round,
            "rounds_planned": self._plan.rounds,
            "seconds": round(self._folder.elapsed(), 1),
            "seconds_left": self._seconds_left(),
            "loss": None if last is None else last.loss,
            "accuracy": None if last is None else last.accuracy,
            "test_loss": self.score.loss if self.score else None if last is None else last.test_loss,
            "test_accuracy": self.score.accuracy if self.score else None if last is None else last.test_accuracy,
            "clients_wanted": self._wanted,
            "clients": clients,
            "gone": {name: self._gone(name) for name in self._known() if name not in clients},
            "history": {column: [getattr(row, column) for row in rounds] for column in HISTORY_COLUMNS},
            "drops": self._drops(),
            "events": [list(row) for row in self._folder.events],
            "refusals": dict(self._endpoint.door.refusals.totals),
            "privacy": None if private is None else private.summary(),
            "dataset": {
                "name": self._manifest.dataset,
                "scheme": self._manifest.scheme,
                "classes": list(self._manifest.classes),
            },
            "drawable": self._drawable(),
            "experiment": self._experiment,
        }

    def _drawable(self) -> bool | None:
        """Tell whether the trained model may be asked about a picture; None where it takes none."""
        shape = self._manifest.image_shape
        if len(shape) == 1 or shape[2:] not in {(), (1,), (3,)}:
            return None
        return self.outcome is not None and self.outcome[0] == "completed"

    def _drops(self) -> dict[str, int]:
        """Count by kind the clients that began a round and did not finish it."""
        states = (row.state for row in self._folder.clients if row.state not in {"trained", "idle"})
        return dict(collections.Counter(states))

    def _seconds_left(self) -> float | None:
        """Foretell how long the rounds that are left will take; None before there is anything to tell it from."""
        rounds = self._folder.rounds
        if self.outcome is not None or not rounds:
            return None
        return round((self._plan.rounds - len(rounds)) * statistics.median(row.seconds for row in rounds[-RECENT:]), 1)

    def _known(self) -> list[str]:
        """List the clients that took part in any round or hold a seat."""
        seats = {} if self.federation is None else self.federation.attendance.seats
        return sorted(seats.keys() | {row.client for row in self._folder.clients})

    def _client(self, name: str) -> dict[str, Any]:
        """Tell of one that is connected."""
        federation = self.federation
        member = None if federation is None else federation.attendance.membership.members.get(name)
        state, reason = self._state(name, member)
        gate = self._gate(name)
        step, steps = (gate.progress if gate is not None and state == "training" else None) or (None, None)
        return {
            "state": state,
            "reason": reason,
            "step": step,
            "steps": steps,
            "seen_s": None if gate is None else round(asyncio.get_running_loop().time() - gate.heard, 1),
            **self._figures(name, None if member is None else member.dealt),
        }

    def _gate(self, name: str) -> Gate | None:
        mailbox = self._endpoint.handler.mailboxes.get(name)
        return None if mailbox is None else cast("Gate", mailbox.context)

    def _state(self, name: str, member: Member | None) -> tuple[str, str]:
        mailbox = self._endpoint.handler.mailboxes.get(name)
        if member is None or mailbox is None:
            return "joining", ""
        if member.refused is not None:
            return "refused", member.refused
        if not member.ready:
            return "joining", ""
        if mailbox.owed:
            return "late", "it is still at work on what is over"
        if mailbox.asked:
            return AT_WORK.get(self.phase, "preparing"), ""
        return self._rest(name, member)

    def _rest(self, name: str, member: Member) -> tuple[str, str]:
        """Tell of a client that nothing is asked of at the moment."""
        federation, row = self.federation, self._last_row(name)
        if federation is None:
            return "idle", ""
        if member.dealable and federation.round and name not in federation.attendance.seats:
            return "standby", "the data set has no part for it"
        if row is None or row.round != federation.round or row.state in {"trained", "idle"}:
            return "idle", ""
        return "dropped", f"round {row.round}: {row.reason}"

    def _gone(self, name: str) -> dict[str, Any]:
        events = [row for row in self._folder.events if row[3] == name and row[2] in DEPARTURES]
        over = self.outcome is not None
        out = self._endpoint.handler.put_out.get(name, "")
        seat = None if self.federation is None else self.federation.attendance.seats.get(name)
        return {
            "state": "over" if over else "refused" if out else "gone",
            "reason": "" if over else out or (events[-1][4] if events else ""),
            "step": None,
            "steps": None,
            "seen_s": None,
            **self._figures(name, seat),
        }

    def _figures(self, name: str, dealt: Any) -> dict[str, Any]:
        """Tell what a client holds, and what its last round was like."""
        row, traffic = self._last_row(name), self._endpoint.traffic[name]
        seat = None
        if dealt is not None and dealt.size in self._manifest.cuts:
            seat = self._manifest.cuts[dealt.size].seats[dealt.seat]
        return {
            "seat": None if dealt is None else dealt.seat,
            "train": None if seat is None else seat.train,
            "valid": None if seat is None else seat.valid,
            "labels": None if seat is None else list(seat.labels),
            "round": None if row is None else row.round,
            "train_s": None if row is None else row.train_s,
            "eval_s": None if row is None else row.eval_s,
            "loss": None if row is None else row.loss,
            "accuracy": None if row is None else row.accuracy,
            "epsilon": None if row is None else row.epsilon,
            "bytes_sent": traffic.sent,
            "bytes_received": traffic.received,
        }

    def _last_row(self, name: str) -> ClientRound | None:
        return next((row for row in reversed(self._folder.clients) if row.client == name), None)
