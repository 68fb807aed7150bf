"""DP-SGD: local training whose every step is noised by this client itself, within a budget that it keeps to.

declearn's `DPTrainingManager` imports Opacus, and so PyTorch; this stands in its place and answers the same request.
Two things differ. An image's gradient is clipped by its norm over all weights; declearn's TensorFlow model clips each
weight by itself, which lets one image change more than the noise is made for. And each image has the same chance to be
in a batch, by randomness that the server can't know, as the accounting assumes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf
from declearn import messaging
from declearn.model.tensorflow import TensorflowModel, TensorflowVector

from services import randomness
from services.accounting import Budget, Steps, merged, obstacle
from services.client.dataset import SCALE, ImageDataset
from services.client.gradients import ClippedGradients
from services.client.training import LocalTraining
from services.errors import DistrustError, TrainingError
from services.experiment.privacy import Accountant

CHUNK = 128
"""Most images whose gradients are computed at once; more take memory, not less time."""

MOST_RISE = 4.0
"""After a new deal, noise may rise by this factor at most; what is left of the budget after that is not worth a round
that teaches the model nothing."""

MOST_STEPS = 10**6
"""Steps that are accounted for; a million take `pld` half a minute, a hundred times as many no end."""

SPENT = "the privacy budget is spent"


class PrivateTraining(LocalTraining):
    """`LocalTraining` by DP-SGD.

    Overrides `train_under_constraints`: the steps are those that `spend` announced for the round, and no others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request: messaging.PrivacyRequest | None = None
        self._announced: Steps | None = None
        self._taken: list[Steps] = []
        self._gradients: ClippedGradients | None = None

    def make_private(self, request: messaging.PrivacyRequest) -> None:
        """Take up a budget and a plan of training; what was spent before stays spent.

        Raises:
            TrainingError: this network can't be trained so.
        """
        reason = obstacle(self.model.get_wrapped_model())
        if reason is not None:
            raise TrainingError(f"DP-SGD can't train this network: {reason}")
        if request.accountant not in ("rdp", "pld"):
            raise TrainingError(f"DP-SGD can't be accounted by {request.accountant!r}, wanted rdp or pld")
        self._request, self._announced = request, None

    def spend(self, number: int, before: Sequence[Steps], since: Sequence[Steps]) -> Steps:
        """Decide on the steps of a round; takes seconds, and is meant to be called in a thread.

        In one deal noise stays as it is. A new deal is given the least noise with which all rounds left keep to what is
        left of the budget.

        Args:
            number: of the round.
            before: steps taken on this client's data in earlier deals.
            since: steps taken on it in this deal, in order.

        Returns:
            The steps; their count is 0 when the budget allows for none.

        Raises:
            DistrustError: there are so many that to account for them takes hours.
        """
        request = self._private()
        accountant = cast("Accountant", request.accountant)
        budget = Budget(request.budget[0], request.budget[1], accountant)
        images = len(cast("ImageDataset", self.train_data).feats)
        rate = min(1.0, request.batches["batch_size"] / images)
        count = (request.n_epoch or 1) * max(1, images // int(request.batches["batch_size"]))
        if request.n_steps is not None:
            count = min(count, request.n_steps) if request.n_epoch else request.n_steps
        planned = count * max(1, request.rounds - number + 1)
        if planned + sum(steps.count for steps in (*before, *since)) > MOST_STEPS:
            raise DistrustError(
                f"the server asks for {planned:,} steps of DP-SGD",
                f"at most {MOST_STEPS:,} in all",
                "ask for fewer rounds or passes",
            )
        # a server that forgot what this process knows of is not believed
        spent = max(merged([*before, *since]), merged(self._taken), key=budget.spent)
        if since and since[-1].rate == rate:
            noise: float | None = since[-1].noise
        else:
            noise = budget.noise(spent, rate, planned)
            most = MOST_RISE * max((steps.noise for steps in spent), default=math.inf)
            noise = None if noise is not None and noise > most else noise
        if noise is None:
            steps = Steps(rate, 0.0, 0)
        else:
            steps = Steps(rate, noise, budget.affordable(spent, Steps(rate, noise, count)))
        self._announced = steps
        return steps

    def train_under_constraints(
        self,
        batch_cfg: dict[str, Any],
        n_epoch: int | None = 1,
        n_steps: int | None = None,
        timeout: int | None = None,
    ) -> dict[str, float]:
        del batch_cfg, n_epoch, n_steps, timeout  # what counts was announced, and is accounted for
        request, steps = self._private(), self._announced
        if steps is None or steps.count == 0:
            raise TrainingError(SPENT if steps is not None else "a round of DP-SGD was asked for unannounced")
        self._announced = None
        self._taken.append(steps)
        start = time.monotonic()
        taken = 0
        self.progress = (0, steps.count)
        while taken < steps.count and not self._interrupted.is_set():
            self.take_step(steps)
            taken += 1
            self.advance()
        return {"n_epoch": request.n_epoch or 1, "n_steps": taken, "t_spent": time.monotonic() - start}

    def _private(self) -> messaging.PrivacyRequest:
        if self._request is None:
            raise TrainingError("the server asked for DP-SGD before it sent a budget")
        return self._request

    def take_step(self, steps: Steps) -> None:
        """Take one of `steps`: a batch drawn in secret, clipped gradients, noise, and the optimizer.

        The sum is divided by the expected size of a batch, since the actual one tells whether an image is there.
        """
        request, data = self._private(), cast("ImageDataset", self.train_data)
        batch = randomness.chosen(len(data.feats), steps.rate)
        total = self._sum(data, batch, request)
        deviation = steps.noise * request.sclip_norm
        expected = steps.rate * len(data.feats)
        noised = [
            (part + tf.constant(randomness.normal(tuple(part.shape), deviation))) / np.float32(expected)
            for part in total
        ]
        model = cast("TensorflowModel", self.model)
        names = [weight.name for weight in model._get_weight_variables(trainable=True)]  # noqa: SLF001 - no getter
        self.optim.apply_gradients(model, TensorflowVector(dict(zip(names, noised, strict=True))))

    def _sum(self, data: ImageDataset, batch: Any, request: messaging.PrivacyRequest) -> list[tf.Tensor]:
        """Sum the clipped gradients of a batch, in chunks of one size."""
        network = self.model.get_wrapped_model()
        size = chunk(int(request.batches["batch_size"]))
        if self._gradients is None or self._gradients.size != size:
            self._gradients = ClippedGradients(network, size)
        total: list[tf.Tensor] | None = None
        for start in range(0, max(1, len(batch)), size):
            part = batch[start : start + size]
            images = np.zeros((size, *network.input_shape[1:]), np.float32)
            labels, there = np.zeros(size, np.uint8), np.zeros(size, np.float32)
            chosen = data.feats[part]
            images[: len(part)] = (SCALE[chosen] if chosen.dtype == np.uint8 else chosen).reshape(-1, *images.shape[1:])
            labels[: len(part)], there[: len(part)] = data.target[part], 1.0
            sums = self._gradients(images, labels, there, request.sclip_norm)
            total = sums if total is None else [one + other for one, other in zip(total, sums, strict=True)]
        assert total is not None  # noqa: S101 - the loop runs once at least
        return total


def chunk(batch_size: int) -> int:
    """Choose the images computed at once, so that nearly all batches fill whole chunks with little padding.

    A batch drawn by chance has `batch_size` images on average, and more than two deviations above it once in forty.
    """
    likely = batch_size + 2 * math.sqrt(batch_size)
    chunks = math.ceil(likely / CHUNK)
    return 8 * math.ceil(likely / chunks / 8)
