"""Between two rounds: who is there, whether they are enough, who of them is drawn, and what they agree on first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from services.errors import QuorumError, TrainingError
from services.experiment import Plan
from services.server.attendance import Attendance
from services.server.fairness import GroupFairness
from services.server.privacy import CentralPrivacy, SamplePrivacy
from services.server.results import RunFolder
from services.server.sampling import Draw
from services.server.secagg import FEWEST, SecureAggregation

MOST_VOID_ROUNDS = 3
"""Rounds, or agreements, in a row that may fail for want of answers from clients that are there."""

logger = logging.getLogger("fed.server")


class Boundary:
    """Settles who takes part in the next round.

    Args:
        plan: of it `federation`, `deterministic` and `secagg` count here.
        attendance: who is there.
        folder: where events are told.
        draw: draws from those who are there.
        secure: secure aggregation, or None for none.
        groups: fairness between groups, or None for none.
        private: accounts of privacy, or None for none.
        on_phase: is told when the server begins to wait.

    Attributes:
        idle: those who are there and were not drawn.
    """

    def __init__(
        self,
        plan: Plan,
        attendance: Attendance,
        folder: RunFolder,
        draw: Draw,
        secure: SecureAggregation | None,
        groups: GroupFairness | None,
        private: SamplePrivacy | CentralPrivacy | None,
        *,
        on_phase: Callable[[str], None],
    ) -> None:
        self.idle: list[str] = []
        self._plan = plan
        self._attendance = attendance
        self._folder = folder
        self._draw = draw
        self._secure = secure
        self._groups = groups
        self._private = private
        self._enter = on_phase

    async def cross(self, number: int, attempt: int) -> list[str]:
        """Settle who takes part in a round; wait for a quorum where there is none.

        Args:
            number: of the round.
            attempt: how often it has failed.

        Returns:
            Their names; none where nobody's privacy budget allows for another round.

        Raises:
            QuorumError: fewer than `min_clients` are there, for longer than `quorum_timeout`.
            TrainingError: those who are there can't agree.
        """
        limits = self._plan.federation
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        failures = 0
        while True:
            self._attendance.changed.clear()
            there = await self._attendance.call_the_roll()
            if self._private is not None and len(there) >= self._quorum(number):
                there = await self._private.within_budget(there, self._attendance.seats, number)
                if not there and self._private.all_spent():
                    return []
            if len(there) >= self._quorum(number):
                participants = self._draw.draw(there, number, attempt)
                self.idle = [name for name in there if name not in participants]
                failed = await self.agree(participants)
                if failed is None:
                    return participants
                failures += 1
                if failures == MOST_VOID_ROUNDS:
                    raise failed
                continue
            if deadline is None:
                deadline = loop.time() + limits.quorum_timeout
                logger.warning(
                    "%d clients are there, %d are needed; waiting for at most %g s",
                    len(there),
                    self._quorum(number),
                    limits.quorum_timeout,
                )
                self._enter("waiting")
            if loop.time() >= deadline:
                raise QuorumError(
                    f"{len(there)} clients were there for {limits.quorum_timeout:g} s",
                    f"at least {self._quorum(number)} ({self._why(number)})",
                    "start clients and the server again: the run goes on where it stopped",
                )
            wait = min(deadline - loop.time(), self._attendance.membership.next_expiry() or math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, wait)):
                    await self._attendance.changed.wait()

    async def agree_on_secrets(self, participants: list[str]) -> str | None:
        """Set up secure aggregation among the participants, where the plan asks for it; tells why it failed."""
        if self._secure is None:
            return None
        reason = await self._secure.set_up(participants)
        if reason is not None:
            self._tell("unagreed", reason, f"secure aggregation was not set up: {reason}")
            for name, fault in self._secure.blamed.items():
                self._attendance.exclude(name, fault)
        return reason

    async def agree(self, participants: list[str]) -> TrainingError | None:
        """Let participants agree on what the plan asks for; tells why they can't."""
        reason = await self.agree_on_secrets(participants)
        if reason is not None:
            return TrainingError(
                f"secure aggregation can't be set up ({reason})",
                "clients that trust each other's keys",
                "run `fed init` again",
            )
        if self._groups is None:
            return None
        reason = await self._groups.set_up({name: self._attendance.held(name) for name in participants})
        if reason is None:
            return None
        self._tell("unagreed", reason, f"fairness was not set up: {reason}")
        for name, error in self._groups.errors.items():
            self._attendance.exclude(name, error)
        return TrainingError(
            f"fairness can't be set up ({reason})",
            "clients whose images fall into the groups of fairness",
            "see events.csv, and correct fairness in the experiment file",
        )

    def _quorum(self, number: int) -> int:
        """Tell how many clients a round needs: in a deterministic run as many as the last one had, in a sum two."""
        before = 0
        if self._plan.deterministic:
            out = self._attendance.put_out
            before = sum(row.round == number - 1 and row.client not in out for row in self._folder.clients)
        return max(self._plan.federation.min_clients, before, FEWEST if self._secure is not None else 1)

    def _why(self, number: int) -> str:
        if self._quorum(number) <= self._plan.federation.min_clients:
            return "federation.min_clients"
        return "deterministic" if self._plan.deterministic else "secagg"

    def _tell(self, event: str, detail: str, line: str) -> None:
        self._folder.add_event(len(self._folder.rounds), event, "", detail, line=line)
