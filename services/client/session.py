"""One client's part in a federation: it does what the server asks, message by message, until it is told to stop.

Overrides of `declearn.main.FederatedClient` live here. Upstream runs one fixed sequence (register, initialise, rounds),
trains inside its event loop, and ends with any lost connection. Ours answers each message whenever it comes, trains in
a thread, so that pings are answered and a signal or a lost connection ends a round at once, and connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from declearn import messaging
from declearn.communication.utils import MessageTypeException
from declearn.main import FederatedClient
from declearn.messaging import Message, SerializedMessage
from declearn.secagg import messaging as secagg_messaging
from declearn.secagg.api import SecaggSetupQuery
from declearn.secagg.utils import IdentityKeys
from declearn.utils.serialize import msgpack_serialize

from services import engine, logs
from services.accounting import Steps
from services.client import secagg
from services.client.dataset import check_fit, datasets, nothing
from services.client.guard import Guard
from services.errors import DataError, DistrustError, FedError, LostError, NetworkError, TrainingError, told
from services.settings import Settings
from services.shards import Shard
from services.transport.client import ClientEndpoint, ConnectionLostError, DismissedError
from services.transport.messages import (
    ClientState,
    Compression,
    Deal,
    DealReply,
    Grouping,
    SpendingQuery,
    SpendingReply,
    StandBy,
    StateQuery,
)
from services.transport.precision import narrowed
from services.transport.refusals import one_line

if TYPE_CHECKING:
    from declearn.communication.api import NetworkClient

    from services.client.dataset import ImageDataset
    from services.client.privacy import PrivateTraining
    from services.client.training import LocalTraining

T = TypeVar("T")

PROGRESS_PERIOD = 1.0
"""Seconds between two tellings of how far a round is."""

logger = logging.getLogger("fed.client")


class Session(FederatedClient):
    """`FederatedClient` that can be dealt data, trains off the event loop and survives a lost connection.

    Args:
        netwk: where the server is and who we are.
        shard: this client's own data, or None where the server deals it.
        deal: loads the index set of (size, seat); used where `shard` is None.
        server_grace: seconds to keep trying to reach a server that was lost.
        keys: for secure aggregation, or None where this client does not take part in any.
        folder: of this client's own data, where fairness finds the groups of its images; or None.
        max_parameters: numbers that a model may have in its weights.
        share_metrics: tell the server what metrics say of this client's images, beside the loss.
    """

    netwk: ClientEndpoint
    trainmanager: LocalTraining | None

    def __init__(
        self,
        netwk: ClientEndpoint,
        *,
        shard: Shard | None,
        deal: Callable[[int, int], Shard] | None,
        server_grace: float = 120.0,
        keys: IdentityKeys | None = None,
        folder: Path | None = None,
        max_parameters: int = Settings.max_parameters,
        share_metrics: bool = Settings.share_metrics,
    ) -> None:
        # upstream wants its training set now; ours may only be known once the server has dealt it
        train, valid = (nothing(), None) if shard is None else datasets(shard, None)
        super().__init__(netwk=netwk, train_data=train, valid_data=valid, share_metrics=share_metrics, verbose=False)
        self.logger = logger
        self._guard = Guard(max_parameters)
        netwk.read = self._guard.read
        self._deal = deal
        self._classes = None if shard is None else shard.classes
        self._server_grace = server_grace
        self._preloaded: asyncio.Task[None] | None = None
        self._seed: int | None = None
        self._keys = keys
        self._folder = folder
        self._secagg: str | None = None
        self._halves = False
        self._grouping: Grouping | None = None
        self._init_request = b""
        self._round_start: tuple[int, dict[str, Any]] = (0, {})
        self._at: tuple[str, int] = ("looking for the server", 0)

    def look(self) -> tuple[str, int, tuple[int, int]]:
        """Tell what this client is at, in which round (0 before the first), and its steps, taken and in all.

        May be called from any thread.
        """
        return (*self._at, (0, 0) if self.trainmanager is None else self.trainmanager.progress)

    async def async_run(self) -> None:
        """Take part until the server says that training is over.

        Raises:
            FedError: the federation ended otherwise; see `ClientEndpoint.start` and `_attend`.
        """
        self._preloaded = asyncio.create_task(asyncio.to_thread(_preload))
        joined = False
        try:
            while True:
                try:
                    await self.netwk.start()
                except NetworkError as exc:
                    if joined:
                        raise LostError(exc.found, "the server back", "start the server again") from exc
                    raise
                joined = True
                self.netwk.timeout = self._server_grace
                self._at = ("waiting for the server", self._at[1])
                logger.info("joined the federation as %s", self.netwk.name)
                try:
                    await self._attend()
                except ConnectionLostError as exc:
                    self._at = ("looking for the server", self._at[1])
                    logger.warning("%s; connecting again", exc.found)
                    await self.netwk.stop()
                except DismissedError as exc:
                    logger.info("%s", exc.found)
                    return
                else:
                    return
        finally:
            if self.trainmanager is not None:
                self.trainmanager.interrupt()
            await self.netwk.stop()

    async def _attend(self) -> None:
        """Do what the server asks, until it says that training is over.

        Raises:
            DistrustError: it asks for what this client does not do; it is told so.
        """
        try:
            while not await self.handle_message(await self.netwk.recv_message()):
                pass
        except DistrustError as exc:
            with contextlib.suppress(FedError):  # it may be gone, or have sent what is none
                await self.netwk.send_message(messaging.Error(str(exc)))
            raise

    async def handle_message(self, ser_msg: SerializedMessage[Any]) -> bool:
        """Replace upstream's dispatch: initialisation and dealing may come at any time, not only first."""
        kind = ser_msg.message_cls
        answers: dict[type[Message], Callable[[Any], Awaitable[None]]] = {
            ClientState: self._see_to_state,
            Compression: self._take_compression,
            Deal: self._take_deal,
            SpendingQuery: self._tell_spending,
            StateQuery: self._see_to_state,
            messaging.MetadataQuery: self._collect_and_send_metadata,
            messaging.PrivacyRequest: self._make_private,
        }
        if kind in answers:
            await answers[kind](ser_msg.deserialize())
        elif issubclass(kind, StandBy):
            logger.warning("standing by: %s", one_line(ser_msg.deserialize().reason, 400))
        elif issubclass(kind, Grouping | messaging.FairnessSetupQuery | messaging.FairnessQuery):
            return await self._see_to_fairness(ser_msg.deserialize())
        elif issubclass(kind, messaging.InitRequest):
            await self._initialise(ser_msg)
        elif issubclass(kind, SecaggSetupQuery):
            return await self._agree_on_secrets(ser_msg)
        elif issubclass(kind, messaging.Error):
            # what declearn's protocols send when a peer failed; the server goes on with something else
            logger.info("the server says: %s", one_line(ser_msg.deserialize().message, 400))
        elif issubclass(kind, messaging.CancelTraining):
            raise TrainingError(f"the server cancelled training ({one_line(ser_msg.deserialize().reason, 400)})")
        elif issubclass(kind, messaging.TrainRequest | messaging.EvaluationRequest | messaging.StopTraining):
            over: bool = await super().handle_message(ser_msg)
            return over
        else:
            raise DistrustError(f"the server sent {kind.typekey!r}", "a request that a client takes")
        return False

    async def _take_deal(self, message: Deal) -> None:
        """Load the index set of a seat, and train on it from now on."""
        try:
            if self._deal is None:
                raise TrainingError(f"{self.netwk.name} trains on its own data and can't be dealt any")
            shard = await asyncio.to_thread(self._deal, message.size, message.seat)
        except FedError as exc:
            logger.error("%s", exc)
            await self.netwk.send_message(messaging.Error(told(exc)))
            return
        self.train_data, self.valid_data = datasets(shard, message.seed)
        self._seed = message.seed
        if self.trainmanager is not None:
            self.trainmanager.train_data, self.trainmanager.valid_data = self.train_data, self.valid_data
        logger.info(
            "seat %d of %d: %d training images, %d for validation",
            message.seat,
            message.size,
            len(shard.train_labels),
            0 if shard.valid_labels is None else len(shard.valid_labels),
        )
        valid = 0 if shard.valid_labels is None else len(shard.valid_labels)
        await self.netwk.send_message(DealReply(train=len(shard.train_labels), valid=valid))

    async def _initialise(self, ser_msg: SerializedMessage[Any]) -> None:
        """Replace upstream's `initialize`: the same answers, with a trainer that runs in a thread."""
        await self._ready()
        from services.client.privacy import PrivateTraining  # noqa: PLC0415 - imports TensorFlow
        from services.client.training import LocalTraining, local  # noqa: PLC0415

        self._halves = False  # until the server says otherwise, after this
        if self.trainmanager is not None and ser_msg.bin_data == self._init_request:
            # the same run after a lost connection: the optimizer's state is worth keeping
            await self.netwk.send_message(messaging.InitReply())
            return
        try:
            message: messaging.InitRequest = await asyncio.to_thread(ser_msg.deserialize)
            if message.fairness:
                raise TrainingError("the server asks for declearn's set-up of fairness, which this client lacks")
            self._secagg = message.secagg
            if self._secagg is not None and self._keys is None:
                raise TrainingError("the server asks for secure aggregation, for which this client has no keys")
            model = local(message.model)
            if self._deal is None:
                for part in (self.train_data, self.valid_data):
                    if part is not None:
                        check_fit(cast("ImageDataset", part), model.image_shape, model.classes, self._classes)
            self.trainmanager = (PrivateTraining if message.dpsgd else LocalTraining)(
                model=model,
                optim=message.optim,
                aggrg=message.aggrg,
                train_data=self.train_data,
                valid_data=self.valid_data,
                metrics=message.metrics,
                logger="declearn.client",
                verbose=False,
            )
        except DistrustError:
            raise
        except DataError as exc:
            await self.netwk.send_message(messaging.Error(told(exc)))
            raise
        except Exception as exc:
            await self.netwk.send_message(messaging.Error(told(exc)))
            raise TrainingError(f"the server's model can't be set up ({one_line(exc, 400)})") from exc
        self.netwk.largest = self._guard.accept(model)
        self._init_request, self._round_start = ser_msg.bin_data, (0, {})
        await self.netwk.send_message(messaging.InitReply())

    async def _take_compression(self, message: Compression) -> None:
        """Let updates travel as the server asks, until it sets this client up anew.

        Raises:
            DistrustError: they are to be encrypted.
        """
        if self._secagg is not None:
            raise DistrustError(
                f"the server asks for updates as {message.kind} under secure aggregation, which encrypts whole numbers",
                "one of the two",
            )
        self._halves = True
        await self.netwk.send_message(message)

    async def _make_private(self, message: messaging.PrivacyRequest) -> None:
        """Replace upstream's, which needs Opacus."""
        try:
            self._private().make_private(message)
        except TrainingError as exc:
            await self.netwk.send_message(messaging.Error(str(exc)))
            raise
        logger.info("trains by DP-SGD: at most epsilon %g, delta %g", *message.budget)
        await self.netwk.send_message(messaging.PrivacyReply())

    async def _tell_spending(self, message: SpendingQuery) -> None:
        """Decide on the steps of the coming round, and tell the server, which keeps account."""
        manager = self._private()
        self._guard.check_work(1, _images(self.train_data))
        before, since = (
            [Steps(rate, noise, int(count)) for rate, noise, count in part] for part in (message.before, message.since)
        )
        steps = await asyncio.to_thread(manager.spend, message.round_i, before, since)
        await self.netwk.send_message(SpendingReply(rate=steps.rate, noise=steps.noise, steps=steps.count))

    def _private(self) -> PrivateTraining:
        from services.client.privacy import PrivateTraining  # noqa: PLC0415 - imports TensorFlow

        if not isinstance(self.trainmanager, PrivateTraining):
            raise TrainingError("the server asked for DP-SGD of a client that it did not set up for it")
        return self.trainmanager

    async def training_round(self, message: messaging.TrainRequest) -> None:
        """Replace upstream's, which trains inside the event loop."""
        manager = self._manager()
        self._guard.check_work(message.batches["batch_size"], _images(self.train_data))
        manager.check_pace(message)
        logger.info("round %d: training", message.round_i, extra={"round": message.round_i})
        if message.round_i == self._round_start[0]:
            # that round is run again, since it did not count: so does what this client's optimizer learned in it
            manager.optim.set_state(self._round_start[1])
        self._round_start = (message.round_i, manager.optim.get_state())
        if self._seed is not None:
            manager.reseed(zlib.crc32(f"{self._seed} {message.round_i}".encode()))
        with self._busy("training", message.round_i):
            reply = await self._work(
                lambda: self._protected(
                    self._compressed(manager.training_round(message)), secagg_messaging.SecaggTrainReply
                )
            )
        manager.model.collect_training_losses()  # reading empties the list, which would grow by one entry a step
        await self.netwk.send_message(reply)

    async def evaluation_round(self, message: messaging.EvaluationRequest) -> None:
        """Replace upstream's, which evaluates inside the event loop, and takes all metrics away that are not shared.

        Without them a server takes the mean loss for the sum of it; and under secure aggregation nobody's can be added.
        """
        manager = self._manager()
        self._guard.check_work(message.batches["batch_size"], _images(self.valid_data or self.train_data))

        def work() -> Message:
            reply = manager.evaluation_round(message)
            if isinstance(reply, messaging.EvaluationReply):
                logger.info("round %d: validation loss %.4f", message.round_i, reply.loss)
                if not self.share_metrics:
                    reply.metrics = manager.loss_alone(reply.metrics)
            return self._protected(reply, secagg_messaging.SecaggEvaluationReply)

        with self._busy("evaluating", message.round_i):
            reply = await self._work(work)
        await self.netwk.send_message(reply)

    async def stop_training(self, message: messaging.StopTraining) -> None:
        """Replace upstream's, which checkpoints."""
        logger.info("training is over after %d rounds", message.rounds)

    def _compressed(self, reply: messaging.TrainReply | messaging.Error) -> messaging.TrainReply | messaging.Error:
        """Let the update in a reply travel as the server has asked."""
        if self._halves and isinstance(reply, messaging.TrainReply):
            reply.updates.updates = narrowed(reply.updates.updates)
        return reply

    def _protected(self, reply: Message, kind: type[secagg_messaging.SecaggMessage[Any]]) -> Message:
        """Encrypt a reply, where secure aggregation is agreed on; an error is sent in clear."""
        if self._secagg is None or isinstance(reply, messaging.Error):
            return reply
        if self._encrypter is None:
            return messaging.Error("secure aggregation is not set up")
        try:
            encrypted: Message = kind.from_cleartext_message(cleartext=reply, encrypter=self._encrypter)
        except Exception as exc:  # noqa: BLE001 - declearn's raise of many kinds where a figure is not finite
            logger.error("encryption failed: %s", one_line(exc, 400))
            return messaging.Error(f"encryption failed ({told(exc)})")
        return encrypted

    async def _agree_on_secrets(self, query: SerializedMessage[SecaggSetupQuery]) -> bool:
        """Take part in a set-up of secure aggregation; tells whether it was broken off by the end of all."""
        self._encrypter = None
        try:
            if self._secagg is None or self._keys is None:
                raise RuntimeError("this client did not agree to secure aggregation")
            self._encrypter = await secagg.set_up(self.netwk, self._secagg, self._keys, query)
        except secagg.SetUpInterruptedError as exc:
            return await self.handle_message(exc.message)
        except (KeyError, RuntimeError, ValueError) as exc:
            logger.warning("secure aggregation was not set up: %s", exc)
            await self.netwk.send_message(messaging.Error(f"secure aggregation was not set up ({told(exc)})"))
        return False

    async def _see_to_fairness(self, message: Message) -> bool:
        """Answer what is asked about groups of images; tells whether it was broken off by the end of all.

        Raises:
            DistrustError: this client keeps to itself what groups its images are in, and how the model does on them.
        """
        if not self.share_metrics:
            raise DistrustError(
                "the server asks for figures of groups of images, and this client shares the loss alone",
                "a federation without fairness",
                "set SHARE_METRICS=1 to take part in this one",
            )
        if isinstance(message, messaging.FairnessSetupQuery):
            return await self._exchange(self._set_up_fairness, message)
        if isinstance(message, messaging.FairnessQuery):
            return await self._exchange(self._measure_fairness, message)
        self._grouping = cast("Grouping", message)
        await self.netwk.send_message(message)
        return False

    async def _set_up_fairness(self, relay: NetworkClient, query: messaging.FairnessSetupQuery) -> None:
        from services.client.fairness import controller  # noqa: PLC0415 - imports TensorFlow

        if self._grouping is None:
            raise ValueError("the server did not tell what a group is")
        images = cast("ImageDataset", self.train_data)
        self._guard.check_work(1, len(images.feats))
        self.fairness = controller(query, self._manager(), images, self._grouping, self._folder)
        await self.fairness.setup_fairness(relay, None)

    async def _measure_fairness(self, relay: NetworkClient, query: messaging.FairnessQuery) -> None:
        if self.fairness is None:
            raise ValueError("fairness is not set up")
        self._guard.check_work(query.batch_size, _images(self.train_data))
        await self.fairness.run_fairness_round(relay, query, None)

    async def _exchange(self, part: Callable[[NetworkClient, Any], Coroutine[Any, Any, None]], query: Message) -> bool:
        """Take part in an exchange about fairness, in a thread; tells whether it was broken off by the end of all."""
        from services.client.fairness import Relay  # noqa: PLC0415 - imports TensorFlow

        relay = Relay(self.netwk, asyncio.get_running_loop())
        try:
            await self._work(lambda: asyncio.run(part(cast("NetworkClient", relay), query)), relay.close)
        except secagg.SetUpInterruptedError as exc:
            return await self.handle_message(exc.message)
        except (RuntimeError, MessageTypeException) as exc:  # which declearn has told the server of
            logger.warning("fairness: %s", exc)
        except (AssertionError, DataError, LookupError, TypeError, ValueError) as exc:
            logger.warning("fairness: %s", exc)
            await self.netwk.send_message(messaging.Error(f"fairness: {told(exc)}"))
        return False

    async def _see_to_state(self, message: StateQuery | ClientState) -> None:
        """Tell the state of this client's optimizer, or take up the one that an earlier process of it had."""
        optim = self._manager().optim
        if isinstance(message, ClientState):
            state = self._guard.state(message.state)
            try:
                optim.set_state(state)
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as exc:
                raise DistrustError(
                    f"the server's state of the optimizer does not fit ({one_line(repr(exc))})", "one that it was given"
                ) from exc
            self._round_start = (0, {})
            await self.netwk.send_message(message)
        elif self._secagg is not None:
            raise DistrustError(
                "the server asks for the state of this client's optimizer, which is made of its updates alone",
                "sums over all clients, under secure aggregation",
            )
        else:
            await self.netwk.send_message(ClientState(msgpack_serialize(optim.get_state())))

    def _manager(self) -> LocalTraining:
        if self.trainmanager is None:
            raise TrainingError("the server asked for a round before it sent a model")
        return self.trainmanager

    @contextlib.contextmanager
    def _busy(self, doing: str, round_: int) -> Iterator[None]:
        """Let those who look on know what goes on meanwhile, and the log's lines what they are about."""
        logs.about(round=round_)
        self._at = (doing, round_)
        try:
            yield
        finally:
            self._at = ("waiting for the server", round_)

    async def _work(self, call: Callable[[], T], end: Callable[[], None] | None = None) -> T:
        """Run `call` in a thread; when the connection goes, or this client is told to stop, end it within a step.

        Args:
            call: what to run.
            end: ends what `call` may wait for.
        """
        manager = self._manager()
        manager.resume()
        work = asyncio.create_task(asyncio.to_thread(call))
        lost = asyncio.create_task(self.netwk.lost())
        telling = asyncio.create_task(self._tell_progress(manager))
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise self.netwk.loss()
            return work.result()
        finally:
            lost.cancel()
            telling.cancel()
            if not work.done():
                manager.interrupt()
                if end is not None:
                    end()
                await asyncio.wait({work})

    async def _tell_progress(self, manager: LocalTraining) -> None:
        """Tell the server now and then how far this client is, as long as there is news. Never returns."""
        told = manager.progress
        while True:
            await asyncio.sleep(PROGRESS_PERIOD)
            if manager.progress != told:
                told = manager.progress
                await self.netwk.tell_progress(*told)

    async def _ready(self) -> None:
        if self._preloaded is not None:
            await self._preloaded


def _images(data: Any) -> int:
    """Tell how many images there are to work on."""
    return data.get_data_specs().n_samples or 0


def _preload() -> None:
    """Import TensorFlow, which takes seconds, while this client waits to be let in."""
    engine.load()
