"""A client's side of fairness between groups of images: declearn's controllers, off the event loop.

declearn's controllers compute in the midst of their coroutines. Here an exchange runs in a thread, on an event loop of
its own, and what it sends and receives goes through the client's; a message that is no part of it ends it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from declearn.fairness.api import FairnessControllerClient, FairnessMetricsComputer
from declearn.fairness.core import FairnessInMemoryDataset
from declearn.messaging import Error, FairnessGroups, FairnessSetupQuery, Message, SerializedMessage
from declearn.metrics import MeanMetric
from numpy.typing import NDArray

from services.client.dataset import SCALE, ImageDataset
from services.client.secagg import SetUpInterruptedError
from services.client.training import LocalTraining
from services.errors import DataError
from services.transport.client import ClientEndpoint
from services.transport.messages import Grouping
from services.transport.refusals import one_line

logger = logging.getLogger("fed.client")

GROUP_FILE = "train_group.npy"
"""In a site's own folder: a whole number for each of its training images, in their order; shape (n,)."""


class GroupedImages(FairnessInMemoryDataset, ImageDataset, register=False):
    """Images, each in the group (label, attribute).

    Overrides `get_sensitive_group_subset` (upstream's batches of a group would be unscaled) and
    `set_sensitive_group_weights` (upstream's weights are no array).

    Args:
        images: a client's own.
        grouping: what label and attribute are.
        folder: of a site's own data, or None.

    Raises:
        DataError: the site's groups are missing, or are none of its images'.
    """

    def __init__(self, images: ImageDataset, grouping: Grouping, folder: Path | None = None) -> None:
        labels = np.asarray(images.target)
        super().__init__(
            images.feats,
            s_attr=np.stack([_binary(labels, grouping.positive), _attribute(images, grouping, folder)], axis=1),
            target=labels,
            sensitive_target=False,
            seed=images.seed,
        )
        self._rng = images._rng  # noqa: SLF001 - the order of images goes on
        self._draws = images.seed

    def reseed(self, seed: int) -> None:
        super().reseed(seed)
        self._draws = seed

    def get_sensitive_group_subset(self, group: tuple[Any, ...]) -> ImageDataset:
        mask = np.fromiter((member == group for member in self.sensitive), bool, len(self.sensitive))
        seed = None if self._draws is None else [self._draws, *map(int, group)]
        weights = None if self.weights is None else np.asarray(self.weights)[mask]
        subset = ImageDataset(self.feats[mask], np.asarray(self.target)[mask], s_wght=weights, expose_classes=False)
        subset._rng = np.random.default_rng(seed)  # noqa: SLF001 - upstream takes a single number
        return subset

    def set_sensitive_group_weights(self, weights: Any, adjust_by_counts: bool = False) -> None:  # noqa: FBT001, FBT002
        super().set_sensitive_group_weights(weights, adjust_by_counts)
        self.weights = np.asarray(self.weights, np.float32)


def _binary(labels: NDArray[Any], positive: list[int] | None) -> NDArray[np.int64]:
    """Tell which labels are positive, or give the labels themselves where none are."""
    return labels.astype(np.int64) if positive is None else np.isin(labels, positive).astype(np.int64)


def _attribute(images: ImageDataset, grouping: Grouping, folder: Path | None) -> NDArray[np.int64]:
    """Tell the attribute of each image: its class, whether it has much ink, or what its site says."""
    if grouping.groups == "own":
        return _own_groups(folder, len(images.feats))
    if grouping.groups == "class":
        return np.asarray(images.target).astype(np.int64)
    axes = tuple(range(1, images.feats.ndim))
    means = images.feats.mean(axis=axes) * (SCALE[1] if images.feats.dtype == np.uint8 else 1)
    found: NDArray[np.int64] = (means >= grouping.ink).astype(np.int64)
    return found


def _own_groups(folder: Path | None, count: int) -> NDArray[np.int64]:
    """Read the groups of `count` images from a site's own folder."""
    wanted = f"a whole number for each training image of this site, in {GROUP_FILE}"
    if folder is None:
        raise DataError("images that the server deals have no groups of their own", wanted)
    try:
        groups: NDArray[Any] = np.load(folder / GROUP_FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise DataError(f"{folder / GROUP_FILE} can't be read ({exc})", wanted) from exc
    if groups.shape != (count,) or groups.dtype.kind not in "biu":
        raise DataError(
            f"{folder / GROUP_FILE} holds {groups.dtype} of shape {groups.shape}, not whole numbers of"
            f" shape ({count},)",
            wanted,
        )
    return groups.astype(np.int64)


class _Right(MeanMetric, register=False):
    """Whether the most probable class is right, or, with positive classes, on the right side.

    Stands for declearn's `Accuracy`, which compares the highest probability itself with the label.
    """

    name = "accuracy"

    def __init__(self, positive: list[int] | None) -> None:
        super().__init__()
        self._positive = positive

    def metric_func(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> NDArray[Any]:
        predicted = y_pred.argmax(axis=1)
        right: NDArray[Any] = _binary(predicted, self._positive) == _binary(y_true, self._positive)
        return right


class _Computer(FairnessMetricsComputer):
    """`FairnessMetricsComputer` of another one's groups. Overrides `setup_accuracy_metric`; see `_Right`."""

    def __init__(self, made: FairnessMetricsComputer, positive: list[int] | None) -> None:
        self.counts, self.g_data = made.counts, made.g_data
        self._positive = positive

    def setup_accuracy_metric(self, model: Any, thresh: float | None = None) -> MeanMetric:
        del model, thresh  # of binary classifiers
        return _Right(self._positive)


def controller(
    query: FairnessSetupQuery,
    manager: LocalTraining,
    images: ImageDataset,
    grouping: Grouping,
    folder: Path | None = None,
) -> FairnessControllerClient:
    """Make the controller that the server asks for; it puts a dataset of its own kind into `manager`.

    Args:
        query: the server's request.
        manager: trains on the images.
        images: this client's own.
        grouping: what a group is.
        folder: of this client's own data, or None where it is dealt.

    Raises:
        DataError, KeyError, RuntimeError, TypeError, ValueError: it does not work with such groups.
    """
    manager.train_data = GroupedImages(images, grouping, folder)
    made = FairnessControllerClient.from_setup_query(query, manager)
    made.computer = _Computer(made.computer, grouping.positive)
    return made


class Relay:
    """What declearn's protocols see of the network from a thread.

    Args:
        netwk: the connection, which belongs to `loop`.
        loop: the client's event loop.
    """

    def __init__(self, netwk: ClientEndpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._netwk = netwk
        self._loop = loop
        self._closed = False
        self._under_way: concurrent.futures.Future[Any] | None = None

    def close(self) -> None:
        """End what is under way, and whatever would come after."""
        self._closed = True
        if self._under_way is not None:
            self._under_way.cancel()

    async def send_message(self, message: Message) -> None:
        if isinstance(message, Error):  # declearn's quote what they failed on
            logger.warning("fairness: %s", one_line(message.message, 400))
            message = Error("fairness failed; its own log says more")
        await self._there(self._netwk.send_message(message))

    async def recv_message(self, timeout: float | None = None) -> SerializedMessage[Any]:
        message: SerializedMessage[Any] = await self._there(self._netwk.recv_message(timeout))
        kind = message.message_cls
        if kind is not FairnessGroups and not kind.__module__.startswith("declearn.fairness."):
            raise SetUpInterruptedError(message)
        return message

    async def _there(self, call: Coroutine[Any, Any, Any]) -> Any:
        self._under_way = asyncio.run_coroutine_threadsafe(call, self._loop)
        if self._closed:
            self._under_way.cancel()
        return await asyncio.wrap_future(self._under_way)
