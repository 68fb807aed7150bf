"""The rounds: overrides of `declearn.main.FederatedServer`.

Upstream asks a fixed set of clients and fails with the first that fails. Ours deals each member its seat, asks whoever
is there, goes on with those that answer, and records each round. The messages exchanged are upstream's.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import math
import time
import zlib
from typing import Any, cast

import numpy as np
from declearn import messaging
from declearn.main import FederatedServer
from declearn.main.config import EvaluateConfig, FLOptimConfig, TrainingConfig
from declearn.messaging import Message
from declearn.metrics import MulticlassAccuracyPrecisionRecall
from declearn.model.tensorflow import TensorflowModel, TensorflowVector

from services.errors import QuorumError, TrainingError
from services.experiment import Plan
from services.server.evaluation import HeldOut, Score
from services.server.model import CLASSES
from services.server.results import ClientRound, Round, RunFolder
from services.transport.messages import DEALABLE, Deal, DealReply
from services.transport.server import ServerEndpoint

FAREWELL_TIMEOUT = 5.0
"""Seconds that clients have to collect the last message."""

logger = logging.getLogger("fed.server")


@dataclasses.dataclass(frozen=True)
class Seat:
    """A member's place in the current deal: index set `seat` of `size`."""

    size: int
    seat: int


class Federation(FederatedServer):
    """`FederatedServer` whose members are dealt seats and asked one by one.

    Args:
        plan: what to train, and how long.
        endpoint: where the clients are; it listens already.
        model: the initial global model.
        optim: optimizers and aggregator.
        held_out: the test images, on which only the server scores the model.
        largest: greatest number of clients the data set can be dealt to.
        folder: where results are written.
    """

    netwk: ServerEndpoint
    model: TensorflowModel

    def __init__(
        self,
        plan: Plan,
        endpoint: ServerEndpoint,
        model: TensorflowModel,
        optim: FLOptimConfig,
        held_out: HeldOut,
        largest: int,
        folder: RunFolder,
    ) -> None:
        metric = MulticlassAccuracyPrecisionRecall(labels=list(range(CLASSES)))
        super().__init__(model=model, netwk=endpoint, optim=optim, metrics=[metric])
        self.logger = logging.getLogger("fed.server.declearn")
        self.plan = plan
        self.held_out = held_out
        self.largest = largest
        self.folder = folder
        self.round = 0
        self.phase = "waiting"
        self.seats: dict[str, Seat] = {}
        self.ready: set[str] = set()
        self.best_round = 0
        self._train = TrainingConfig(
            batch_size=plan.train.batch_size,
            shuffle=plan.train.shuffle,
            n_epoch=plan.train.epochs,
            n_steps=plan.train.steps,
        )
        self._evaluate = EvaluateConfig(batch_size=plan.evaluate.batch_size)

    async def train(self) -> None:
        """Run all rounds of the plan.

        Raises:
            QuorumError: nobody is left to train with.
            TrainingError: the model is no longer finite, or a client could not be set up.
        """
        while self.round < self.plan.rounds:
            await self._prepare(sorted(self.netwk.client_names))
            self.round += 1
            await self._run_round()
        self.phase = "completed"

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

    # -- members --------------------------------------------------------------------------------------------------

    async def _prepare(self, present: list[str]) -> None:
        """Deal seats to those who take one, and set up those who have no model yet."""
        self.phase = "preparing"
        self.ready &= set(present)
        await self._deal([client for client in present if DEALABLE in self.netwk.traits(client)])
        newcomers = [client for client in present if client not in self.ready]
        if not newcomers:
            return
        message = messaging.InitRequest(
            model=self.model,
            optim=self.c_opt,
            aggrg=self.aggrg,
            metrics=self.metrics.get_config()["metrics"],
        )
        set_up = await self._ask(dict.fromkeys(newcomers, message), messaging.InitReply, "set-up")
        self.ready |= set_up.keys()
        self._clients_holding_latest_model -= set(newcomers)

    async def _deal(self, dealable: list[str]) -> None:
        """Give each dealable member its rank among their names as its seat, if that changes anything."""
        if dealable and not self.largest:
            raise TrainingError(
                f"{', '.join(dealable)} brought no data, and there is none to deal",
                "clients with data of their own",
                "start them as `fed client NAME FOLDER`, or run `fed init` before the server",
            )
        if len(dealable) > self.largest:
            raise TrainingError(
                f"{len(dealable)} clients are there, the data set is dealt to at most {self.largest}",
                "no more clients than that",
                "raise MAX_CLIENTS, or scale down",
            )
        seats = {client: Seat(len(dealable), rank) for rank, client in enumerate(sorted(dealable, key=natural))}
        changed = {
            client: seat for client, seat in seats.items() if self.seats.get(client) != seat or client not in self.ready
        }
        if changed:
            logger.info("dealing the data set to %d clients", len(dealable))
        requests: dict[str, Message] = {
            client: Deal(size=seat.size, seat=seat.seat, seed=derived_seed(self.plan.seed, seat.size, seat.seat))
            for client, seat in changed.items()
        }
        await self._ask(requests, DealReply, "dealing")
        self.seats = seats

    # -- one round ------------------------------------------------------------------------------------------------

    async def _run_round(self) -> None:
        start = time.monotonic()
        members = sorted(self.ready, key=natural)
        if not members:
            raise QuorumError("no client is left to train with", "at least one", "start clients and the server again")
        before = {client: dataclasses.replace(self.netwk.traffic[client]) for client in members}
        self.phase = "training"
        trained = await self._train_round(members)
        self.phase = "evaluating"
        scoring = asyncio.create_task(asyncio.to_thread(self.held_out.score, self.model))
        evaluated = await self._evaluate_round([client for client in members if client in trained])
        score = await scoring
        loss, accuracy = self._summarise(evaluated)
        clients = [
            self._client_round(client, trained.get(client), evaluated.get(client), before[client]) for client in members
        ]
        round_ = Round(
            round=self.round,
            seconds=time.monotonic() - start,
            train_s=max(reply.t_spent for reply in trained.values()),
            eval_s=max((reply.t_spent for reply in evaluated.values()), default=0.0),
            clients=len(trained),
            dropped=len(members) - len(trained),
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
        if not math.isfinite(score.loss):
            raise TrainingError(
                f"the model's test loss is {score.loss} after round {self.round}", "a finite one", "lower lrate"
            )

    async def _train_round(self, members: list[str]) -> dict[str, messaging.TrainReply]:
        request = messaging.TrainRequest(
            round_i=self.round, weights=None, aux_var=self.optim.collect_aux_var(), **self._train.message_params
        )
        replies: dict[str, messaging.TrainReply] = await self._ask(
            self._with_weights(request, members), messaging.TrainReply, "training"
        )
        if not replies:
            raise QuorumError("no client finished the round", "at least one", "start clients and the server again")
        self.client_sampler.update(replies, self.model)
        await asyncio.to_thread(self._conduct_global_update, replies)
        return replies

    async def _evaluate_round(self, members: list[str]) -> dict[str, messaging.EvaluationReply]:
        request = messaging.EvaluationRequest(round_i=self.round, weights=None, **self._evaluate.message_params)
        replies: dict[str, messaging.EvaluationReply] = await self._ask(
            self._with_weights(request, members), messaging.EvaluationReply, "evaluation"
        )
        return replies

    def _with_weights(self, request: Any, members: list[str]) -> dict[str, Message]:
        """Join the global weights for those who do not hold them (upstream: `_send_request_with_optional_weights`)."""
        needing = set(members) - self._clients_holding_latest_model
        heavy = copy.copy(request)
        if needing:
            heavy.weights = self.model.get_weights(trainable=True)
        self._clients_holding_latest_model |= needing
        return {client: heavy if client in needing else request for client in members}

    async def _ask(self, requests: dict[str, Message], expected: type[Any], context: str) -> dict[str, Any]:
        """Ask clients, in the order of their names, and go on with those that answer."""
        answers = await self.netwk.ask(requests, expected)
        for client, reason in answers.losses.items():
            logger.warning("%s dropped out of %s: %s", client, context, reason)
            self.ready.discard(client)
            self.seats.pop(client, None)
        return {client: answers.replies[client].deserialize() for client in requests if client in answers.replies}

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
        before: Any,
    ) -> ClientRound:
        seat = self.seats.get(client)
        traffic = self.netwk.traffic[client]
        accuracy = None
        if evaluated is not None and evaluated.metrics:
            self.metrics.reset()
            states = {key: state for key, state in evaluated.metrics.items() if key != "loss"}
            self.metrics.set_states(states)
            accuracy = _accuracy(self.metrics.get_result())
        return ClientRound(
            round=self.round,
            client=client,
            size=None if seat is None else seat.size,
            seat=None if seat is None else seat.seat,
            state="trained" if trained is not None else "dropped",
            steps=None if trained is None else trained.n_steps,
            train_s=None if trained is None else trained.t_spent,
            eval_s=None if evaluated is None else evaluated.t_spent,
            loss=None if evaluated is None else evaluated.loss,
            accuracy=accuracy,
            bytes_sent=traffic.sent - before.sent,
            bytes_received=traffic.received - before.received,
        )


def natural(name: str) -> tuple[str, int]:
    """Order names so that `client_2` stands before `client_10`."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -1)


def derived_seed(seed: int, *parts: int) -> int:
    """Derive a seed in [0, 2**32[ for one use from a run's seed; the same on every machine."""
    return zlib.crc32(repr((seed, *parts)).encode())


def _accuracy(metrics: dict[str, Any]) -> float:
    return float(np.asarray(metrics.get("accuracy", np.nan)))


__all__ = ["Federation", "Score", "Seat", "derived_seed", "natural"]
