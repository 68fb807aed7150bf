"""The rounds: overrides of `declearn.main.FederatedServer`.

Upstream asks a fixed set of clients and fails with the first that fails. Ours asks whoever is there: newcomers are set
up while a round goes on, membership changes at the boundary between two rounds, a round ends when every participant has
answered, left or run out of time, and what was learned is kept after each. The messages exchanged are upstream's.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from declearn import messaging
from declearn.main import FederatedServer
from declearn.main.config import EvaluateConfig, FLOptimConfig, TrainingConfig
from declearn.metrics import MeanMetric, MetricSet
from declearn.model.api import Model, Vector
from declearn.optimizer.modules import ScaffoldAuxVar
from declearn.secagg import messaging as secagg_messaging
from declearn.secagg.api import Decrypter

from services import logs
from services.errors import TrainingError
from services.experiment import Plan
from services.schedules import ScheduledOptimizer
from services.server.attendance import Attendance
from services.server.boundary import MOST_VOID_ROUNDS, Boundary
from services.server.checkpoint import Checkpoint
from services.server.early_stop import reason_to_stop
from services.server.evaluation import HeldOut, Score
from services.server.fairness import GroupFairness
from services.server.inspection import LOSS, MEAN, Inspection, Repeats, most_steps
from services.server.membership import Seat
from services.server.model import build_metrics
from services.server.privacy import SPENT, CentralPrivacy, SamplePrivacy
from services.server.record import Recorder
from services.server.results import RunFolder
from services.server.robust import Defence
from services.server.sampling import Draw
from services.server.sealed import SealedForm
from services.server.secagg import FEWEST, SecureAggregation
from services.server.tensorboard import Board
from services.shards import Manifest
from services.tables import Measure, Round
from services.transport.messages import HALVES
from services.transport.precision import FLOAT16, narrowed, types_of, widened
from services.transport.refusals import one_line
from services.transport.server import FAREWELL_TIMEOUT, REFUSED, Loss, ServerEndpoint, Traffic

LARGEST_MESSAGE = 2**20
"""Bytes of a client's message beside what grows with the model."""

HEAVIER = {None: 8, "masking": 16, "joye-libert": 256}
"""By secure aggregation, how many times the model's weights a message may weigh: with auxiliary variables or an
optimizer's state; as integers of up to 9 bytes, or of some 280, for each of a weight's four."""

MOST_PARTS = 10_000
"""Items that the lists and maps of a client's message may have beside what grows with the model."""

PARTS_OF_ARRAY, PARTS_OF_NUMBER = 64, 16
"""The same for each array of weights in clear, of which a message may hold several; for each weight as an integer."""

logger = logging.getLogger("fed.server")


class Federation(FederatedServer):
    """`FederatedServer` with elastic membership.

    Args:
        plan: what to train, and how long.
        endpoint: where the clients are; it listens already.
        model: the initial global model.
        optim: optimizers and aggregator.
        held_out: the test images, on which only the server scores the model.
        manifest: of the data set: to how many clients it can be dealt, and how much each then holds.
        folder: where results are written.
    """

    netwk: ServerEndpoint
    model: Model[Any]
    optim: ScheduledOptimizer

    def __init__(
        self,
        plan: Plan,
        endpoint: ServerEndpoint,
        model: Model[Any],
        optim: FLOptimConfig,
        held_out: HeldOut,
        manifest: Manifest,
        folder: RunFolder,
    ) -> None:
        super().__init__(
            model=model,
            netwk=endpoint,
            optim=optim,
            metrics=MetricSet(build_metrics(plan, held_out.classes)),
        )
        self.logger = logging.getLogger("declearn.server")
        self.recorder = Recorder(self.metrics, {metric.name for metric in plan.metrics}, hidden=plan.secagg is not None)
        self.defence = Defence(plan.robust)
        self._shared_rule = self.aggrg
        self.aggrg = self.defence.aggregator or self.aggrg
        self.plan = plan
        self.held_out = held_out
        self.folder = folder
        self.round = 0
        self.phase = "gathering"
        self.best_round = 0
        endpoint.door.largest = LARGEST_MESSAGE + model_bytes(model) * HEAVIER[plan.secagg]
        weights = model.get_weights(trainable=True)
        endpoint.door.most_parts = MOST_PARTS + PARTS_OF_ARRAY * len(weights.coefs)
        if plan.secagg is not None:
            endpoint.door.most_parts += PARTS_OF_NUMBER * sum(np.size(value) for value in weights.coefs.values())
        self._types = types_of(weights)
        self._half: Vector[Any] | None = None
        self.repeats = Repeats()
        exchanged = [module.aux_name for module in self.optim.modules if module.aux_name is not None]
        self.inspection = Inspection(
            weights,
            optim.aggregator.updates_cls,
            self.metrics,
            exchanged,
            # fairness weighs updates by what it finds, some with less than nothing
            bounds_weight=plan.fairness.algorithm is None,
        )
        self.sealed = SealedForm(
            optim.aggregator.prepare_for_sharing(weights, 1),
            {LOSS: MEAN(), **self.metrics.get_states()},
            {name: ScaffoldAuxVar(delta=weights, clients={"client"}) for name in exchanged},
        )
        self._cuts = manifest.cuts
        self.reason = ""
        self.private: SamplePrivacy | CentralPrivacy | None = None
        if plan.privacy is not None:
            sample = plan.privacy.kind == "sample"
            self.private = SamplePrivacy(plan, endpoint, folder) if sample else CentralPrivacy(plan, folder)
        self.attendance = Attendance(
            plan,
            endpoint,
            folder,
            manifest.sizes,
            request=self._init_request,
            privacy=self.private.request if isinstance(self.private, SamplePrivacy) else None,
            on_join=self._clients_holding_latest_model.discard,
            now=lambda: self.round,
        )
        self.secure = SecureAggregation(plan.secagg, endpoint) if plan.secagg else None
        self.groups = GroupFairness(plan.fairness, endpoint, optim.aggregator) if plan.fairness.algorithm else None
        self.draw = Draw(plan)
        self._last: list[str] = []
        self.boundary = Boundary(
            plan, self.attendance, folder, self.draw, self.secure, self.groups, self.private, on_phase=self._enter
        )
        self.board = Board(folder.path, plan)
        self._keeping: asyncio.Task[None] | None = None
        self._train = TrainingConfig(
            batch_size=plan.train.batch_size,
            shuffle=plan.train.shuffle,
            n_epoch=plan.train.epochs,
            n_steps=plan.train.steps,
        )
        self._evaluate = EvaluateConfig(batch_size=plan.evaluate.batch_size)

    def _enter(self, phase: str) -> None:
        self.phase = phase

    def attend(self) -> None:
        """Set up those who are there, and from now on everybody who comes."""
        self.attendance.open()

    def _init_request(self) -> messaging.InitRequest:
        return messaging.InitRequest(
            model=self.model,
            optim=self.c_opt,
            aggrg=self._shared_rule,
            metrics=self.metrics.get_config()["metrics"],
            secagg=self.plan.secagg,
            dpsgd=isinstance(self.private, SamplePrivacy),
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
        before: set[str] = set()
        while self.round < self.plan.rounds and not self._is_enough():
            self.phase = "preparing"
            logs.about(round=self.round + 1)
            participants = await self.boundary.cross(self.round + 1, void)
            if not participants:
                self.reason = f"{SPENT} after round {self.round} of {self.plan.rounds}"
                logger.warning("%s", self.reason)
                break
            if self.private is not None:
                await self.private.begin(participants, self.attendance.seats)
            counts = await self._run_round(participants)
            self._last = participants
            # a round that lost somebody is no sign that the next one, without, will fail too
            there = {*participants, *self.boundary.idle} - self.attendance.put_out.keys()
            void = 0 if counts else void + 1 if there == before else 1
            before = there
            if void == MOST_VOID_ROUNDS:
                raise TrainingError(
                    f"round {self.round + 1} failed {void} times in a row, though clients were there",
                    "clients that can train",
                    "see their reasons above and in events.csv",
                )
        logs.about(round=self.round)
        await self._measure_last()

    def _is_enough(self) -> bool:
        """Tell whether the run ends before its last round, as the plan says; `reason` then tells why."""
        self.reason = reason_to_stop(self.plan.early_stop, self.folder.rounds) or ""
        if self.reason:
            logger.info("%s", self.reason)
        return bool(self.reason)

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
            self.model.set_weights(self._best, trainable=True)

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
            seats={
                name: (seat.size, seat.seat)
                for name, seat in self.attendance.seats.items()
                if name not in self.attendance.put_out
            },
            elapsed=self.folder.elapsed(),
            rounds=tuple(self.folder.rounds),
            clients=tuple(self.folder.clients),
            measures=tuple(self.folder.measures),
            put_out=dict(self.attendance.put_out),
            methods={"draw": self.draw.state(), "groups": self.groups.state() if self.groups else {}},
        )

    def resume(self, state: Checkpoint) -> None:
        """Go on from a checkpoint instead of from the beginning."""
        self.round = state.round
        self.model.set_weights(state.weights)
        self._half = None
        self._best, self.best_round = state.best, state.best_round
        self._losses = list(state.losses)
        self.optim.set_state(state.optimizer)
        self.attendance.client_states = dict(state.client_states)
        for name, reason in state.put_out.items():
            self.attendance.put_out_of_run(name, reason)
        self.attendance.seats = {name: Seat(*seat) for name, seat in state.seats.items()}
        self.draw.restore(state.methods["draw"])
        if self.groups is not None:
            self.groups.restore(state.methods["groups"])
        self.folder.restore(state.rounds, state.clients, state.elapsed, state.measures)
        self.board.write(state)

    async def _keep(self) -> None:
        """Write checkpoint, tables and curves of the round that has just ended, while the next one begins."""
        if self._keeping is not None:
            await self._keeping
        state = self.checkpoint()
        self._keeping = asyncio.create_task(asyncio.to_thread(self._write, state))

    def _write(self, state: Checkpoint) -> None:
        # in this order event files never run ahead of the state that a resumed run begins with
        self.folder.keep(state)
        self.board.write(state)

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
        measured = await self._measure_fairness(number, members)
        if measured is None:
            return False
        self.phase = "training"
        if not self.netwk.authenticates:
            logger.warning("round %d: client authentication is off, anybody may have joined", number)
        request = messaging.TrainRequest(
            round_i=number, weights=None, aux_var=self.optim.collect_aux_var(), **self._train.message_params
        )
        expected = messaging.TrainReply if self.secure is None else secagg_messaging.SecaggTrainReply
        trained, losses = await self._ask(request, members, expected, limits.round_timeout)
        if self.plan.compression == FLOAT16:
            await asyncio.to_thread(self._widen, trained)
        trained, losses = self._sift(number, trained, losses)
        self.attendance.judge(trained, losses)
        states = await self.attendance.collect_states(list(trained)) if self.plan.deterministic else {}
        missing = self.plan.deterministic and any(name not in trained or name not in states for name in members)
        if self.secure is not None and len(trained) < len(members):
            missing = True
            self.secure.forget()
        if missing or len(trained) < limits.min_clients:
            why = f"{len(trained)} of {len(members)} clients finished it"
            self.folder.add_event(number, "void", "", why, line=f"round {number} does not count: {why}")
            return False
        gathered = self._gathered(number, trained)
        if gathered is None:
            return False
        updates: dict[str, Any] = gathered
        if isinstance(self.private, CentralPrivacy):
            updates = await asyncio.to_thread(self.private.noised, updates)
        self.optim.start_step()
        await asyncio.to_thread(self._learn, updates)
        self.round = number
        self.attendance.client_states |= states
        self.phase = "evaluating"
        scoring = asyncio.create_task(asyncio.to_thread(self.held_out.score, self.model))
        left = max(1.0, limits.round_timeout - (time.monotonic() - start))
        evaluated = await self._evaluate_round(number, [client for client in members if client in trained], left)
        score = await scoring
        if self.private is not None:
            await self.private.counted()
        self._record(members, trained, evaluated, losses, score, before, start, measured)
        await self._keep()
        if not math.isfinite(score.loss):
            raise TrainingError(
                f"the model's test loss is {score.loss} after round {number}", "a finite one", "lower the learning rate"
            )
        return True

    def _learn(self, updates: Mapping[str, Any]) -> None:
        """Take one step of the global model, and make what of it is sent; takes a while, and is run in a thread."""
        self._conduct_global_update(dict(updates))
        self._half = self._narrowed() if self.plan.compression == FLOAT16 else None

    def _narrowed(self) -> Vector[Any]:
        return narrowed(self.model.get_weights(trainable=True))

    def _weights_for(self, clients: set[str]) -> dict[str, Vector[Any]]:
        """Give the global weights as each of some clients takes them, in no more than two copies."""
        halving = {name for name in clients if self.plan.compression == FLOAT16 and HALVES in self.netwk.traits(name)}
        found: dict[str, Vector[Any]] = {}
        if halving:
            if self._half is None:
                self._half = self._narrowed()
            found |= dict.fromkeys(halving, self._half)
        if clients - halving:
            found |= dict.fromkeys(clients - halving, self.model.get_weights(trainable=True))
        return found

    def _gathered(self, number: int, trained: Mapping[str, Any]) -> dict[str, Any] | None:
        """Turn the replies of a round that counts into what is averaged, and learn of them what the plan asks for.

        None where the sum of encrypted ones makes no sense, for which nobody can be blamed.
        """
        if self.secure is None:
            self.repeats.remember(number, trained)
            self.draw.learn(trained, self.model)
            return self.defence.bound(trained)
        try:
            opened = self.secure.aggregate(trained)
            fault = self.inspection.fault_in_sum(opened)
        except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
            fault = one_line(exc)
        if fault is None:
            return {"aggregated": opened}
        self.secure.forget()
        why = f"the sum of all updates can't be used: {fault}"
        self.folder.add_event(number, "void", "", why, line=f"round {number} does not count: {why}")
        return None

    async def _measure_fairness(self, number: int, members: list[str]) -> list[Measure] | None:
        """Measure the model by groups, and let clients weigh them, where the plan asks for it; None where it failed."""
        if self.groups is None:
            return []
        needing = set(members) - self._clients_holding_latest_model
        heavy = self._weights_for(needing)
        found = await self.groups.measure(
            number,
            messaging.FairnessQuery(round_i=number - 1, batch_size=self.plan.evaluate.batch_size),
            {name: heavy.get(name) for name in members},
            self.plan.federation.round_timeout,
        )
        if isinstance(found, str):
            self._clients_holding_latest_model -= needing
            line = f"fairness was not measured before round {number}: {found}"
            self.folder.add_event(number, "void", "", f"fairness was not measured: {found}", line=line)
            return None
        self._clients_holding_latest_model |= needing
        self.aggrg = self.groups.aggregator
        return found

    async def _measure_last(self) -> None:
        """Measure the model of the last round too, among those who are left of it."""
        there = [name for name in self._last if self.attendance.membership.is_ready(name)]
        if self.groups is not None and there and await self.boundary.agree(there) is None:
            self.folder.measures += await self._measure_fairness(self.round + 1, there) or []
            await self._keep()

    async def _evaluate_round(self, number: int, members: list[str], timeout: float) -> dict[str, Any]:
        """Evaluate on the clients' validation images; under secure aggregation again, while one of them is lost."""
        request = messaging.EvaluationRequest(round_i=number, weights=None, **self._evaluate.message_params)
        while True:
            members = [client for client in members if self.attendance.membership.is_ready(client)]
            if self.secure is None:
                replies, losses = await self._ask(request, members, messaging.EvaluationReply, timeout)
                sound, _ = self._inspect(
                    number,
                    replies,
                    losses,
                    lambda name, reply: self.inspection.fault_in_evaluation(reply, self._most_images(name)),
                )
                return sound
            if len(members) < FEWEST or await self.boundary.agree_on_secrets(members) is not None:
                return {}
            replies, losses = await self._ask(request, members, secagg_messaging.SecaggEvaluationReply, timeout)
            replies, losses = self._inspect_sealed(number, replies, losses, self.sealed.fault_in_evaluation)
            if not losses:
                return replies
            self.secure.forget()
            members = list(replies)

    def _widen(self, trained: Mapping[str, Any]) -> None:
        """Make updates that travelled as float16 of the model's type again; takes a while, and is run in a thread."""
        for reply in trained.values():
            if isinstance(getattr(reply.updates, "updates", None), Vector):  # else it is refused for that
                reply.updates.updates = widened(reply.updates.updates, self._types)

    def _sift(
        self, number: int, trained: Mapping[str, Any], losses: Mapping[str, Loss]
    ) -> tuple[dict[str, Any], dict[str, Loss]]:
        """Leave out updates that no honest client sends.

        Raises:
            TrainingError: there are no others, and all who are there were asked.
        """
        if self.secure is not None:
            return self._inspect_sealed(number, trained, losses, self.sealed.fault_in_training)
        sound, lost = self._inspect(
            number,
            trained,
            losses,
            lambda name, reply: (
                self.inspection.fault_in_training(reply, self._most_steps(name)) or self.repeats.fault(name, reply)
            ),
        )
        if not sound and lost and not self.boundary.idle and all(loss.kind == REFUSED for loss in lost.values()):
            raise TrainingError(
                f"round {number}: no client's reply can be used ({next(iter(lost.values())).reason})",
                "finite updates",
                "lower the learning rate",
            )
        return sound, lost

    def _inspect_sealed(
        self,
        number: int,
        replies: Mapping[str, Any],
        losses: Mapping[str, Loss],
        fault_in: Callable[[Any, Decrypter], str | None],
    ) -> tuple[dict[str, Any], dict[str, Loss]]:
        """Leave out encrypted replies of another form than agreed; each has cost all others their round."""
        assert self.secure is not None  # noqa: S101 - the caller looked
        decrypter = self.secure.decrypter
        sound, lost = self._inspect(number, replies, losses, lambda _, reply: fault_in(reply, decrypter))
        for name, loss in lost.items():
            if loss.kind == REFUSED:
                self.attendance.exclude(name, f"its reply is refused: {loss.reason}")
        return sound, lost

    def _inspect(
        self,
        number: int,
        replies: Mapping[str, Any],
        losses: Mapping[str, Loss],
        fault_in: Callable[[str, Any], str | None],
    ) -> tuple[dict[str, Any], dict[str, Loss]]:
        """Move replies that no honest client sends to the losses, each with its reason."""

        def look(name: str) -> str | None:
            try:
                return fault_in(name, replies[name])
            except Exception as exc:  # noqa: BLE001 - no reply may end a run, whatever is in it
                return f"it can't be looked at ({type(exc).__name__})"

        faults = {name: fault for name in replies if (fault := look(name)) is not None}
        for name, fault in faults.items():
            why = f"its reply is refused: {fault}"
            self.folder.add_event(number, "dropped", name, why, line=f"{name} dropped out of round {number}: {why}")
        return (
            {name: reply for name, reply in replies.items() if name not in faults},
            {**losses, **{name: Loss(REFUSED, fault) for name, fault in faults.items()}},
        )

    def _most_steps(self, name: str) -> int | None:
        """Tell how many local steps a client may have taken in a round; None where fairness draws its batches."""
        seat, work = self.attendance.seats.get(name), self.plan.train
        images = self.attendance.own_images(name) if seat is None else self._cuts[seat.size].seats[seat.seat].train
        if images is None or self.groups is not None:
            return None
        return most_steps(images, work.batch_size, work.epochs, work.steps)

    def _most_images(self, name: str) -> int | None:
        """Tell how many validation images a client holds; None for a site with its own."""
        seat = self.attendance.seats.get(name)
        return None if seat is None else self._cuts[seat.size].seats[seat.seat].valid

    async def _ask(
        self, request: Any, members: list[str], expected: type[Any], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Loss]]:
        """Ask members, joining the global weights for those who do not hold them, and go on with those that answer.

        Upstream does the first part in `_send_request_with_optional_weights`.
        """
        needing = set(members) - self._clients_holding_latest_model
        sent = self._weights_for(needing)
        # one message for all who are sent the same, which is then serialised once
        heavy = {id(weights): copy.copy(request) for weights in sent.values()}
        for weights in sent.values():
            heavy[id(weights)].weights = weights
        requests = {client: heavy[id(sent[client])] if client in needing else request for client in members}
        answers = await self.netwk.ask(requests, expected, timeout)
        self._clients_holding_latest_model |= needing & answers.replies.keys()
        self._clients_holding_latest_model -= answers.losses.keys()
        for client, loss in answers.losses.items():
            line = f"{client} dropped out of round {request.round_i}: {loss.reason}"
            self.folder.add_event(request.round_i, "dropped", client, loss.reason, line=line)
        return {client: answers.replies[client] for client in members if client in answers.replies}, answers.losses

    def _record(
        self,
        members: list[str],
        trained: Mapping[str, messaging.TrainReply],
        evaluated: dict[str, Any],
        losses: Mapping[str, Loss],
        score: Score,
        before: Mapping[str, Traffic],
        start: float,
        measured: list[Measure],
    ) -> None:
        """Add the round to the tables and tell of it."""
        in_clear = evaluated
        if self.secure is not None and evaluated:
            in_clear = {"aggregated": self.secure.aggregate(evaluated)}
        loss, accuracy = self._summarise(in_clear)
        measures = measured + (self.recorder.measures(self.round) if in_clear else [])
        clients = []
        for name in members:
            row, own = self.recorder.client(
                self.round,
                name,
                self.attendance.seats.get(name),
                trained.get(name),
                evaluated.get(name),
                losses.get(name),
                self.netwk.traffic[name] - before[name],
            )
            epsilon = None if self.private is None else self.private.epsilons.get(name)
            clients.append(dataclasses.replace(row, epsilon=epsilon))
            measures += own
        clients += [
            self.recorder.idle(self.round, name, self.attendance.seats.get(name)) for name in self.boundary.idle
        ]
        round_ = Round(
            round=self.round,
            seconds=time.monotonic() - start,
            train_s=max(reply.t_spent for reply in trained.values()),
            eval_s=max((reply.t_spent for reply in evaluated.values()), default=0.0),
            clients=len(trained),
            dropped=len(members) - len(trained),
            size=len(self.attendance.seats),
            epsilon=None if self.private is None else self.private.epsilon,
            loss=loss,
            accuracy=accuracy,
            test_loss=score.loss,
            test_accuracy=score.accuracy,
            bytes_sent=sum(client.bytes_sent for client in clients),
            bytes_received=sum(client.bytes_received for client in clients),
        )
        self.folder.add_round(round_, clients, measures)
        logger.info(
            "round %d/%d: %.1f s, %d clients, loss %.4f, %stest accuracy %.4f%s",
            round_.round,
            self.plan.rounds,
            round_.seconds,
            round_.clients,
            loss,
            "" if accuracy is None else f"accuracy {accuracy:.4f}, ",
            score.accuracy,
            "" if round_.epsilon is None else f", epsilon {round_.epsilon:.2f}",
            extra={"round": round_.round, "event": "round"},
        )

    def _summarise(self, evaluated: dict[str, messaging.EvaluationReply]) -> tuple[float, float | None]:
        """Average the clients' validation figures, and keep the weights with the lowest loss."""
        if not evaluated:
            return float("nan"), None
        mean, _ = self._aggregate_evaluation_results({name: _weighted(reply) for name, reply in evaluated.items()})
        loss = self.defence.loss(evaluated, mean)
        self._losses.append(loss)
        # with central privacy the last one: to choose by the clients' own losses would tell of them
        if loss == min(self._losses) or isinstance(self.private, CentralPrivacy):
            self._best = self.model.get_weights(trainable=True)
            self.best_round = self.round
        return float(loss), self.recorder.accuracy()


def _weighted(reply: messaging.EvaluationReply) -> messaging.EvaluationReply:
    """Give a stock client's loss without metrics its weight; upstream adds it up as if it were a sum over steps."""
    if reply.metrics:
        return reply
    state = MeanMetric.state_cls(reply.loss * reply.n_steps, reply.n_steps)
    return dataclasses.replace(reply, metrics={"loss": state})


def model_bytes(model: Model[Any]) -> int:
    """Tell how many bytes a model's weights have."""
    return sum(np.asarray(weight).nbytes for weight in model.get_weights().coefs.values())
