"""The server's side of fairness between groups of images: declearn's controllers, for whoever takes part.

declearn sets clients up once, and then measures before each round of training. Here the exchange is among the round's
participants, with a deadline; whenever these change, or what they hold does, they are set up anew, and what the
controller has learned so far is carried over.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from declearn.aggregator import Aggregator
from declearn.communication.api import NetworkServer
from declearn.communication.utils import ErrorMessageException, MessageTypeException
from declearn.fairness.api import FairnessControllerServer
from declearn.fairness.fairbatch import FairbatchControllerServer
from declearn.fairness.fairgrad import FairgradControllerServer
from declearn.messaging import Error, FairnessQuery, Message, SerializedMessage
from declearn.utils import access_registered

from services.experiment.methods import Fairness
from services.tables import ALL, Measure
from services.transport.hub import ClientGoneError
from services.transport.messages import PROBES, Grouping
from services.transport.server import REFUSED, ServerEndpoint

SET_UP_TIMEOUT = 120.0
"""Seconds all participants have to sort their images into groups and agree on these."""

_BLAMED = ("error", REFUSED)
"""Kinds of a loss that leave a client out, where others are asked again."""

_REPORTED = (ErrorMessageException, MessageTypeException)
"""What declearn raises where a client sends an error, or what is not due."""

logger = logging.getLogger("fed.server")


class Exchange:
    """What declearn's controllers see of the network: the participants alone.

    Attributes:
        names: of the participants.
        owing: those whose answer to the last message is yet to come.
        errors: by name, what a participant reported as an error.
    """

    def __init__(self, netwk: ServerEndpoint, names: Iterable[str]) -> None:
        self.names = list(names)
        self.owing: set[str] = set()
        self.errors: dict[str, str] = {}
        self.logger = logging.getLogger("declearn.server")
        self._netwk = netwk

    @property
    def client_names(self) -> set[str]:
        return set(self.names)

    async def broadcast_message(
        self, message: Message, clients: set[str] | None = None, timeout: float | None = None
    ) -> None:
        await self.send_messages(dict.fromkeys(self.names if clients is None else clients, message), timeout)

    async def send_messages(self, messages: Mapping[str, Message], timeout: float | None = None) -> None:
        if not any(isinstance(message, Error) for message in messages.values()):  # which asks for no answer
            self.owing |= messages.keys()
        await self._netwk.send_messages(messages, timeout)

    async def wait_for_messages(self, clients: set[str] | None = None) -> dict[str, SerializedMessage[Any]]:
        received: dict[str, SerializedMessage[Any]] = {}
        for name in self.names if clients is None else sorted(clients):
            received |= await self._netwk.wait_for_messages({name})
            self.owing.discard(name)
            if issubclass(received[name].message_cls, Error):
                self.errors[name] = str(received[name].deserialize().message)
        return received

    def write_off(self) -> None:
        """Discard the answers that nobody reads any more: those that have come, and late ones when they come."""
        hub = self._netwk.handler
        for name in self.owing & hub.mailboxes.keys():
            if hub.check_message(name) is None:
                hub.mailboxes[name].owed += 1


class GroupFairness:
    """Keeps a controller in step with those who take part.

    Args:
        spec: section `fairness` of the plan.
        netwk: where the clients are.
        aggregator: the plan's, in place of which most algorithms put their own.

    Attributes:
        aggregator: how updates become one under the algorithm.
        errors: by name, why a participant could not be set up the last time.
    """

    def __init__(self, spec: Fairness, netwk: ServerEndpoint, aggregator: Aggregator[Any]) -> None:
        self._spec = spec
        self._netwk = netwk
        self._plain = self.aggregator = aggregator
        self._controller = _controller(spec)
        self._counts: dict[tuple[Any, ...], int] = {}
        self._agreed: Hashable = None
        self._kept: dict[str, Any] = {}
        self.errors: dict[str, str] = {}

    def forget(self) -> None:
        """Require a new set-up."""
        self._kept = self.state()
        self._agreed = None

    async def set_up(self, held: Mapping[str, Hashable]) -> str | None:
        """Let participants agree on groups, unless these very ones have, with what they hold now.

        Args:
            held: by name of the participants, what each one holds, as far as the server knows.

        Returns:
            None when they have agreed, else why not; `errors` then tells who is to blame.
        """
        key = tuple(sorted(held.items(), key=str))
        if key == self._agreed:
            return None
        self.forget()
        self.errors = {}
        for name in held:
            self._netwk.handler.flush(name)
        exchange = Exchange(self._netwk, held)
        with self._failures(exchange) as failed:
            async with asyncio.timeout(SET_UP_TIMEOUT):
                await self._agree(exchange)
        if failed:
            self.errors = exchange.errors
            return failed[0]
        self._agreed = key
        self._take_up(self._kept)
        logger.info("fairness (%s) set up among %d clients", self._controller.algorithm, len(held))
        return None

    async def _agree(self, exchange: Exchange) -> None:
        """Replace upstream's `setup_fairness`: the same messages, after one that tells our clients what a group is."""
        spec = self._spec
        grouping = Grouping(spec.groups, spec.ink, None if spec.positive is None else list(spec.positive))
        ours = {name: grouping for name in exchange.names if PROBES in self._netwk.traits(name)}
        answers = await self._netwk.ask(ours, Grouping, SET_UP_TIMEOUT)
        if answers.losses:
            exchange.errors |= {
                name: loss.reason for name, loss in answers.losses.items() if loss.kind in {"error", REFUSED}
            }
            raise RuntimeError(next(iter(answers.losses.values())).reason)
        controller, netwk = self._controller, cast("NetworkServer", exchange)
        await exchange.broadcast_message(controller.prepare_fairness_setup_query())
        counts = await controller.exchange_sensitive_groups_list_and_counts(netwk, None)
        self._counts = dict(zip(controller.groups, counts, strict=True))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Overriding Aggregator", RuntimeWarning)  # the docs say so
            self.aggregator = await controller.finalize_fairness_setup(netwk, None, counts, self._plain)

    async def measure(
        self, number: int, query: FairnessQuery, weights: Mapping[str, Any], timeout: float
    ) -> list[Measure] | str:
        """Measure the model that the next round begins with, and let the controller act on it.

        Args:
            number: of the round that begins.
            query: what is asked of the participants.
            weights: by name of the participants, the global weights where they are to be sent, or None.
            timeout: seconds that the exchange may take.

        Returns:
            The measures, of the round before; or why there are none.
        """
        exchange = Exchange(self._netwk, weights)
        requests = {}
        for name, heavy in weights.items():
            requests[name] = copy.copy(query)
            requests[name].weights = heavy
        with self._failures(exchange) as failed:
            async with asyncio.timeout(timeout):
                await exchange.send_messages(requests)
                found = await self._controller.run_fairness_round(cast("NetworkServer", exchange), None)
                return list(self._measures(number - 1, found))
        self.forget()
        return str(failed[0])

    @contextlib.contextmanager
    def _failures(self, exchange: Exchange) -> Iterator[list[str]]:
        """Gather why an exchange failed, in one line."""
        failed: list[str] = []
        try:
            yield failed
        except TimeoutError:
            failed.append(f"no answer in time from {', '.join(sorted(exchange.owing)) or 'a client'}")
        except ClientGoneError as exc:
            failed.append(str(exc))
        except (*_REPORTED, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as exc:
            failed.append(next(iter(exchange.errors.values()), " ".join(str(exc).split()) or type(exc).__name__))
        if failed:
            exchange.write_off()

    def _measures(self, number: int, found: Mapping[str, Any]) -> Iterator[Measure]:
        """Name measures `fairness.<measure>.<label>.<attribute>`; sums over a group's images become means."""
        for key, value in found.items():
            kind, _, group = key.partition("_(")
            name = f"fairness.{kind}"
            total = 1
            if group:
                members = tuple(int(part) for part in group.rstrip(")").split(",") if part.strip())
                name += "".join(f".{part}" for part in members)
                total = self._counts[members] if kind in {"accuracy", "loss"} else 1
            yield Measure(number, ALL, name, float(np.asarray(value)) / total)

    # -- what a controller has learned ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Tell what the controller has learned; what it was told at the last set-up is left out."""
        if self._agreed is None:
            return self._kept
        controller = self._controller
        learned: dict[str, Any] = {}
        if isinstance(controller, FairgradControllerServer):
            weights = controller.weights_controller
            learned = {"upper": weights._upper.tolist(), "lower": weights._lower.tolist()}  # noqa: SLF001 - no getter
        elif isinstance(controller, FairbatchControllerServer):
            states = controller.sampling_controller.states
            learned = {key: float(value) for key, value in states.items() if key.startswith("lambda")}
        return {"groups": [list(group) for group in controller.groups], "learned": learned}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` told, at the next set-up."""
        self._kept = dict(state)

    def _take_up(self, kept: Mapping[str, Any]) -> None:
        controller = self._controller
        if not kept or kept["groups"] != [list(group) for group in controller.groups]:
            return
        learned = kept["learned"]
        if isinstance(controller, FairgradControllerServer):
            weights = controller.weights_controller
            weights._upper, weights._lower = np.array(learned["upper"]), np.array(learned["lower"])  # noqa: SLF001
        elif isinstance(controller, FairbatchControllerServer):
            controller.sampling_controller.states.update(learned)


def _controller(spec: Fairness) -> FairnessControllerServer:
    """Make declearn's controller of its name and parameters."""
    assert spec.algorithm is not None  # noqa: S101 - there is no controller of none
    kind = access_registered(spec.algorithm.name, group="FairnessControllerServer")
    args = {"target": spec.target} if spec.function == "equality_of_opportunity" else {}
    made: FairnessControllerServer = kind(f_type=spec.function, f_args=args, **spec.algorithm.parameters)
    return made
