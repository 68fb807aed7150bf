"""The rounds: overrides of `declearn.main.FederatedServer`.

Upstream asks a fixed set of clients and fails with the first that fails. Ours asks whoever is there: newcomers are set
up while a round goes on, membership changes at the boundary between two rounds, a round ends when every participant has
answered, left or run out of time, and what was learned is kept after each. The messages exchanged are upstream's.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from declearn import messaging
from declearn.main import FederatedServer
from declearn.main.config import EvaluateConfig, FLOptimConfig, TrainingConfig
from declearn.metrics import MulticlassAccuracyPrecisionRecall
from declearn.model.tensorflow import TensorflowModel, TensorflowVector
from declearn.secagg import messaging as secagg_messaging

from services.errors import QuorumError, TrainingError
from services.experiment import Plan
from services.schedules import ScheduledOptimizer
from services.server.attendance import Attendance
from services.server.checkpoint import Checkpoint
from services.server.evaluation import HeldOut, Score
from services.server.membership import Seat
from services.server.results import ClientRound, Round, RunFolder
from services.server.secagg import FEWEST, SecureAggregation
from services.transport.server import FAREWELL_TIMEOUT, Loss, ServerEndpoint, Traffic

MOST_VOID_ROUNDS = 3
"""Rounds in a row that may fail for want of answers from clients that are there."""

LARGEST_MESSAGE = 2**20
"""Bytes of a client's message beside what grows with the model."""

CLEAR, HIDDEN = 8, 256
"""How many times the model's weights a message may weigh: with auxiliary variables or an optimizer's state; as the
integers of secure aggregation, of which Joye-Libert's have 512 bytes for each of a weight's four."""

logger = logging.getLogger("fed.server")


class Federation(FederatedServer):
    """`FederatedServer` with elastic membership.

    Args:
        plan: what to train, and how long.
        endpoint: where the clients are; it listens already.
        model: the initial global model.
        optim: optimizers and aggregator.
        held_out: the test images, on which only the server scores the model.
        sizes: the numbers of clients the data set can be dealt to; empty where there is nothing to deal.
        folder: where results are written.
    """

    netwk: ServerEndpoint
    model: TensorflowModel
    optim: ScheduledOptimizer

    def __init__(
        self,
        plan: Plan,
        endpoint: ServerEndpoint,
        model: TensorflowModel,
        optim: FLOptimConfig,
        held_out: HeldOut,
        sizes: tuple[int, ...],
        folder: RunFolder,
    ) -> None:
        metric = MulticlassAccuracyPrecisionRecall(labels=list(range(held_out.classes)))
        super().__init__(model=model, netwk=endpoint, optim=optim, metrics=[metric])
        self.logger = logging.getLogger("declearn.server")
        self.plan = plan
        self.held_out = held_out
        self.folder = folder
        self.round = 0
        self.phase = "gathering"
        self.best_round = 0
        endpoint.door.largest = LARGEST_MESSAGE + model_bytes(model) * (HIDDEN if plan.secagg else CLEAR)
        self.attendance = Attendance(
            plan,
            endpoint,
            folder,
            sizes,
            request=self._init_request,
            on_join=self._clients_holding_latest_model.discard,
            now=lambda: self.round,
        )
        self.secure = SecureAggregation(plan.secagg, endpoint) if plan.secagg else None
        self._keeping: asyncio.Task[None] | None = None
        self._train = TrainingConfig(
            batch_size=plan.train.batch_size,
            shuffle=plan.train.shuffle,
            n_epoch=plan.train.epochs,
            n_steps=plan.train.steps,
        )
        self._evaluate = EvaluateConfig(batch_size=plan.evaluate.batch_size)

    def attend(self) -> None:
        """Set up those who are there, and from now on everybody who comes."""
        self.attendance.open()

    def _init_request(self) -> messaging.InitRequest:
        return messaging.InitRequest(
            model=self.model,
            optim=self.c_opt,
            aggrg=self.aggrg,
            metrics=self.metrics.get_config()["metrics"],
            secagg=self.plan.secagg,
        )

    async def train(self) -> None:
        """Run all rounds of the plan that are yet to be run; `attend` comes first.

        Raises:
            QuorumError: too few clients are left, and they did not return in time.
            TrainingError: the model is no longer finite, or clients that are there can't train it.
            StorageError: the results can't be written.
        """
        await self.attendance.settled()
        void = 0
        before: list[str] = []
        while self.round < self.plan.rounds:
            participants = await self._boundary()
            counts = await self._run_round(participants)
            # a round that lost somebody is no sign that the next one, without, will fail too
            void = 0 if counts else void + 1 if participants == before else 1
            before = participants
            if void == MOST_VOID_ROUNDS:
                raise TrainingError(
                    f"round {self.round + 1} failed {void} times in a row, though clients were there",
                    "clients that can train",
                    "see their reasons above and in events.csv",
                )
        self.phase = "completed"

    async def retire(self) -> None:
        """Take no more note of who comes and goes, and wait until the last round is kept.

        Raises:
            StorageError: it can't be written.
        """
        self.attendance.close()
        if self._keeping is not None:
            await self._keeping

    async def farewell(self) -> None:
        """Tell every client that training is over, and what its outcome is."""
        message = messaging.StopTraining(
            weights=self._best or self.model.get_weights(trainable=True),
            loss=min(self._losses, default=float("nan")),
            rounds=self.round,
        )
        await self.netwk.tell(message, FAREWELL_TIMEOUT)

    def restore_best(self) -> None:
        """Put the weights of the lowest validation loss back into the model, as upstream does at the end."""
        if self._best is not None:
            self.model.set_weights(cast("TensorflowVector", self._best), trainable=True)

    # -- state that outlives this process -------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Take down all that the next round depends on."""
        return Checkpoint(
            round=self.round,
            weights=self.model.get_weights(),
            best=self._best,
            best_round=self.best_round,
            losses=tuple(self._losses),
            optimizer=self.optim.get_state(),
            client_states=dict(self.attendance.client_states),
            seats={name: (seat.size, seat.seat) for name, seat in self.attendance.seats.items()},
            elapsed=self.folder.elapsed(),
            rounds=tuple(self.folder.rounds),
            clients=tuple(self.folder.clients),
        )

    def resume(self, state: Checkpoint) -> None:
        """Go on from a checkpoint instead of from the beginning."""
        self.round = state.round
        self.model.set_weights(cast("TensorflowVector", state.weights))
        self._best, self.best_round = state.best, state.best_round
        self._losses = list(state.losses)
        self.optim.set_state(state.optimizer)
        self.attendance.client_states = dict(state.client_states)
        self.attendance.seats = {name: Seat(*seat) for name, seat in state.seats.items()}
        self.folder.restore(state.rounds, state.clients, state.elapsed)

    async def _keep(self) -> None:
        """Write the checkpoint and the tables of the round that has just ended, while the next one begins."""
        if self._keeping is not None:
            await self._keeping
        state = self.checkpoint()
        self._keeping = asyncio.create_task(asyncio.to_thread(self.folder.keep, state))

    # -- between two rounds ---------------------------------------------------------------------------------------

    async def _boundary(self) -> list[str]:
        """Settle who takes part in the next round; wait for a quorum where there is none.

        Raises:
            QuorumError: fewer than `min_clients` are there, for longer than `quorum_timeout`.
        """
        self.phase = "preparing"
        limits = self.plan.federation
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        failures = 0
        while True:
            self.attendance.changed.clear()
            participants = await self.attendance.call_the_roll()
            if len(participants) >= self._quorum():
                reason = await self._agree_on_secrets(participants)
                if reason is None:
                    return participants
                failures += 1
                if failures == MOST_VOID_ROUNDS:
                    raise TrainingError(
                        f"secure aggregation can't be set up ({reason})",
                        "clients that trust each other's keys",
                        "run `fed init` again",
                    )
                continue
            if deadline is None:
                deadline = loop.time() + limits.quorum_timeout
                logger.warning(
                    "%d clients are there, %d are needed; waiting for at most %g s",
                    len(participants),
                    self._quorum(),
                    limits.quorum_timeout,
                )
                self.phase = "waiting"
            if loop.time() >= deadline:
                why = "federation.min_clients"
                if self._quorum() > limits.min_clients:
                    why = "deterministic" if self.plan.deterministic else "secagg"
                raise QuorumError(
                    f"{len(participants)} clients were there for {limits.quorum_timeout:g} s",
                    f"at least {self._quorum()} ({why})",
                    "start clients and the server again: the run goes on where it stopped",
                )
            wait = min(deadline - loop.time(), self.attendance.membership.next_expiry() or math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, wait)):
                    await self.attendance.changed.wait()

    async def _agree_on_secrets(self, participants: list[str]) -> str | None:
        """Set up secure aggregation among the participants, where the plan asks for it; tells why it failed."""
        if self.secure is None:
            return None
        reason = await self.secure.set_up(participants)
        if reason is not None:
            logger.warning("secure aggregation was not set up: %s", reason)
            self.folder.add_event(self.round, "unagreed", "", reason)
        return reason

    # -- one round ------------------------------------------------------------------------------------------------

    async def _run_round(self, members: list[str]) -> bool:
        """Train and evaluate once; tells whether the round counts.

        Raises:
            TrainingError: the model is no longer finite.
        """
        start = time.monotonic()
        number = self.round + 1
        before = {client: dataclasses.replace(self.netwk.traffic[client]) for client in members}
        limits = self.plan.federation
        self.phase = "training"
        if not self.netwk.authenticates:
            logger.warning("round %d: client authentication is off, anybody may have joined", number)
        request = messaging.TrainRequest(
            round_i=number, weights=None, aux_var=self.optim.collect_aux_var(), **self._train.message_params
        )
        expected = messaging.TrainReply if self.secure is None else secagg_messaging.SecaggTrainReply
        trained, losses = await self._ask(request, members, expected, limits.round_timeout)
        states = await self.attendance.collect_states(list(trained)) if self.plan.deterministic else {}
        missing = self.plan.deterministic and any(name not in trained or name not in states for name in members)
        if self.secure is not None and len(trained) < len(members):
            missing = True
            self.secure.forget()
        if missing or len(trained) < limits.min_clients:
            logger.warning("round %d does not count: %d of %d clients finished it", number, len(trained), len(members))
            self.folder.add_event(number, "void", "", f"{len(trained)} of {len(members)} clients finished it")
            return False
        updates = trained if self.secure is None else {"aggregated": self.secure.aggregate(trained)}
        self.client_sampler.update(updates, self.model)
        self.optim.start_step()
        await asyncio.to_thread(self._conduct_global_update, updates)
        self.round = number
        self.attendance.client_states |= states
        self.phase = "evaluating"
        scoring = asyncio.create_task(asyncio.to_thread(self.held_out.score, self.model))
        left = max(1.0, limits.round_timeout - (time.monotonic() - start))
        evaluated = await self._evaluate_round(number, [client for client in members if client in trained], left)
        score = await scoring
        self._record(members, trained, evaluated, losses, score, before, start)
        await self._keep()
        if not math.isfinite(score.loss):
            raise TrainingError(
                f"the model's test loss is {score.loss} after round {number}", "a finite one", "lower the learning rate"
            )
        return True

    async def _evaluate_round(self, number: int, members: list[str], timeout: float) -> dict[str, Any]:
        """Evaluate on the clients' validation images; under secure aggregation again, while one of them is lost."""
        request = messaging.EvaluationRequest(round_i=number, weights=None, **self._evaluate.message_params)
        while True:
            members = [client for client in members if self.attendance.membership.is_ready(client)]
            if self.secure is None:
                replies, _ = await self._ask(request, members, messaging.EvaluationReply, timeout)
                return replies
            if len(members) < FEWEST or await self._agree_on_secrets(members) is not None:
                return {}
            replies, losses = await self._ask(request, members, secagg_messaging.SecaggEvaluationReply, timeout)
            if not losses:
                return replies
            self.secure.forget()
            members = list(replies)

    async def _ask(
        self, request: Any, members: list[str], expected: type[Any], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Loss]]:
        """Ask members, joining the global weights for those who do not hold them, and go on with those that answer.

        Upstream does the first part in `_send_request_with_optional_weights`.
        """
        needing = set(members) - self._clients_holding_latest_model
        heavy = copy.copy(request)
        if needing:
            heavy.weights = self.model.get_weights(trainable=True)
        requests = {client: heavy if client in needing else request for client in members}
        answers = await self.netwk.ask(requests, expected, timeout)
        self._clients_holding_latest_model |= needing & answers.replies.keys()
        self._clients_holding_latest_model -= answers.losses.keys()
        for client, loss in answers.losses.items():
            logger.warning("%s dropped out of round %d: %s", client, request.round_i, loss.reason)
            self.folder.add_event(request.round_i, "dropped", client, loss.reason)
        return {client: answers.replies[client] for client in members if client in answers.replies}, answers.losses

    def _quorum(self) -> int:
        """Tell how many clients a round needs: in a deterministic run as many as the last one had, in a sum two."""
        before = sum(row.round == self.round for row in self.folder.clients) if self.plan.deterministic else 0
        return max(self.plan.federation.min_clients, before, FEWEST if self.secure is not None else 1)

    def _record(
        self,
        members: list[str],
        trained: Mapping[str, messaging.TrainReply],
        evaluated: dict[str, Any],
        losses: Mapping[str, Loss],
        score: Score,
        before: Mapping[str, Traffic],
        start: float,
    ) -> None:
        """Add the round to the tables and tell of it."""
        in_clear = evaluated
        if self.secure is not None and evaluated:
            in_clear = {"aggregated": self.secure.aggregate(evaluated)}
        loss, accuracy = self._summarise(in_clear)
        clients = [
            self._client_round(client, trained.get(client), evaluated.get(client), losses.get(client), before[client])
            for client in members
        ]
        round_ = Round(
            round=self.round,
            seconds=time.monotonic() - start,
            train_s=max(reply.t_spent for reply in trained.values()),
            eval_s=max((reply.t_spent for reply in evaluated.values()), default=0.0),
            clients=len(trained),
            dropped=len(members) - len(trained),
            size=len(self.attendance.seats),
            loss=loss,
            accuracy=accuracy,
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            bytes_sent=sum(client.bytes_sent for client in clients),
            bytes_received=sum(client.bytes_received for client in clients),
        )
        self.folder.add_round(round_, clients)
        logger.info(
            "round %d/%d: %.1f s, %d clients, loss %.4f, accuracy %.4f, test accuracy %.4f",
            round_.round,
            self.plan.rounds,
            round_.seconds,
            round_.clients,
            loss,
            accuracy,
            score.accuracy,
        )

    def _summarise(self, evaluated: dict[str, messaging.EvaluationReply]) -> tuple[float, float]:
        """Average the clients' validation figures, and keep the weights with the lowest loss."""
        if not evaluated:
            return float("nan"), float("nan")
        loss, metrics = self._aggregate_evaluation_results(evaluated)
        self._losses.append(loss)
        if loss == min(self._losses):
            self._best = self.model.get_weights(trainable=True)
            self.best_round = self.round
        return float(loss), _accuracy(metrics)

    def _client_round(
        self,
        client: str,
        trained: messaging.TrainReply | None,
        evaluated: messaging.EvaluationReply | None,
        loss: Loss | None,
        before: Traffic,
    ) -> ClientRound:
        seat = self.attendance.seats.get(client)
        traffic = self.netwk.traffic[client]
        accuracy = None
        hidden = self.secure is not None
        if evaluated is not None and evaluated.metrics and not hidden:
            self.metrics.reset()
            states = {key: state for key, state in evaluated.metrics.items() if key != "loss"}
            self.metrics.set_states(states)
            accuracy = _accuracy(self.metrics.get_result())
        return ClientRound(
            round=self.round,
            client=client,
            size=None if seat is None else seat.size,
            seat=None if seat is None else seat.seat,
            state="trained" if loss is None else loss.kind,
            reason="" if loss is None else loss.reason,
            steps=None if trained is None or hidden else trained.n_steps,
            train_s=None if trained is None else trained.t_spent,
            eval_s=None if evaluated is None else evaluated.t_spent,
            loss=None if evaluated is None or hidden else evaluated.loss,
            accuracy=accuracy,
            bytes_sent=traffic.sent - before.sent,
            bytes_received=traffic.received - before.received,
        )


def model_bytes(model: TensorflowModel) -> int:
    """Tell how many bytes a model's weights have."""
    return sum(np.asarray(weight).nbytes for weight in model.get_weights().coefs.values())


def _accuracy(metrics: dict[str, Any]) -> float:
    return float(np.asarray(metrics.get("accuracy", np.nan)))
