"""Local training and evaluation, made to be run in a thread and to be interrupted between two steps."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import numpy as np
import tensorflow as tf
from declearn import messaging
from declearn.metrics import MetricState
from declearn.model.api import Model
from declearn.model.sklearn import SklearnSGDModel
from declearn.model.tensorflow import TensorflowModel
from declearn.training import TrainingManager
from declearn.typing import Batch

from services.client.dataset import ImageDataset
from services.client.metrics import ClassMetrics
from services.errors import DistrustError, told
from services.linear import LinearModel
from services.schedules import ScheduledOptimizer
from services.transport.refusals import one_line

LOSS = "loss"
"""Name of the metric that declearn adds to those that a server asks for."""

MOST_STEPS = 10**8
"""Steps up to a round, over all rounds; a schedule that begins anew is taken through them, a million a second."""

logger = logging.getLogger("fed.client")


class CompiledModel(TensorflowModel, register=False):
    """`TensorflowModel` whose predictions and losses run as compiled graphs.

    Overrides `compute_batch_predictions` and `loss_function`, which upstream runs eagerly, layer by layer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        network = self.get_wrapped_model()
        self._predict = tf.function(lambda images: network(images, training=False), reduce_retracing=True)
        self._loss = tf.function(
            lambda labels, outputs: network.compute_loss(y=labels, y_pred=outputs), reduce_retracing=True
        )

    @classmethod
    def of(cls, model: TensorflowModel) -> CompiledModel:
        """Wrap the network of a model received from the server; its weights are shared, not copied."""
        return cls(model.get_wrapped_model(), **model._kwargs, _from_config=True)  # noqa: SLF001 - upstream has no getter

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image that the network takes."""
        shape: tuple[int, ...] = self.get_wrapped_model().input_shape[1:]
        return shape

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return int(self.get_wrapped_model().output_shape[-1])

    def reseed(self, seed: int) -> None:
        """Let the units that are dropped from now on depend on `seed` alone."""
        for number, layer in enumerate(self.get_wrapped_model()._flatten_layers()):  # noqa: SLF001 - no getter
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                generator.state.assign([seed, number])

    def compute_batch_predictions(self, batch: Batch) -> tuple[Any, Any, Any]:
        images, labels, weights = cast("tuple[Any, Any, Any]", self._unpack_batch(batch))
        outputs = self._predict(images).numpy()
        return labels.numpy(), outputs, None if weights is None else weights.numpy()

    def loss_function(self, y_true: np.ndarray[Any, Any], y_pred: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        losses: np.ndarray[Any, Any] = self._loss(tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)).numpy()
        return losses.squeeze()


def local(model: Model[Any]) -> CompiledModel | LinearModel:
    """Wrap a model received from the server so that it is trained fast; its weights are shared, not copied."""
    if isinstance(model, SklearnSGDModel):
        return LinearModel.of(model)
    return CompiledModel.of(cast("TensorflowModel", model))


class LocalTraining(TrainingManager):
    """`TrainingManager` that ends within one step when told to, and whose rates follow the federation's rounds.

    Overrides `run_train_step`, which raises `StopIteration` (upstream's own way to end a round early) once interrupted;
    `training_round`: upstream's schedules begin anew with each process, and stand still while a client is away; and,
    with it, `evaluation_round`: upstream tells the server all that an error says, and TensorFlow's quote labels.
    """

    model: CompiledModel | LinearModel
    optim: ScheduledOptimizer
    progress: tuple[int, int]
    """Steps taken in this round, and steps that it has; read by another thread than writes them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.optim = ScheduledOptimizer.of(self.optim)
        self._interrupted = threading.Event()
        self.progress = (0, 0)

    def _prepare_metrics(self, metrics: Any) -> ClassMetrics:
        return ClassMetrics(super()._prepare_metrics(metrics).metrics)

    def interrupt(self) -> None:
        """End a round that runs in another thread; its result is of no use to anybody."""
        self._interrupted.set()

    def resume(self) -> None:
        """Take rounds again."""
        self._interrupted.clear()

    def reseed(self, seed: int) -> None:
        """Let the order of images and the dropped units of the next round depend on `seed` alone."""
        images = getattr(self.train_data, "base", self.train_data)  # FairBatch wraps them
        if isinstance(images, ImageDataset):
            images.reseed(seed)
        self.model.reseed(seed)

    def loss_alone(self, states: dict[str, MetricState]) -> dict[str, MetricState]:
        """Replace the states of all metrics but the loss by those of no image at all, which add nothing to others'."""
        self.metrics.reset()
        return {**self.metrics.get_states(), LOSS: states[LOSS]}

    def check_pace(self, message: messaging.TrainRequest) -> None:
        """Refuse a round so far on that its schedule takes hours to reach.

        Raises:
            DistrustError: names the round and its steps.
        """
        if message.round_i * self._steps(message) > MOST_STEPS:
            raise DistrustError(
                f"the server asks for round {message.round_i} of {self._steps(message)} steps each",
                f"at most {MOST_STEPS:,} steps in all",
            )

    def _steps(self, message: messaging.TrainRequest) -> int:
        images = self.train_data.get_data_specs().n_samples or 0
        steps: int = max(1, images // message.batches["batch_size"]) * (message.n_epoch or 1)
        return min(steps, message.n_steps or steps)

    def training_round(self, message: messaging.TrainRequest) -> messaging.TrainReply | messaging.Error:
        steps = self._steps(message)
        self.progress = (0, steps)
        try:
            self.optim.reach_round(message.round_i, steps)
            return self._training_round(message)
        except Exception as exc:  # noqa: BLE001 - whatever a step raises is told by its kind
            return _failed("training", exc)

    def evaluation_round(self, message: messaging.EvaluationRequest) -> messaging.EvaluationReply | messaging.Error:
        try:
            return self._evaluation_round(message)
        except Exception as exc:  # noqa: BLE001 - as above
            return _failed("evaluation", exc)

    def run_train_step(self, batch: Batch) -> None:
        if self._interrupted.is_set():
            raise StopIteration("interrupted")
        super().run_train_step(batch)
        self.advance()

    def advance(self) -> None:
        """Count a step; what was foretold is a floor where a part of a batch is left over."""
        step, steps = self.progress
        self.progress = (step + 1, max(step + 1, steps))


def _failed(what: str, error: Exception) -> messaging.Error:
    """Tell the server that something failed; of what is not our own its kind alone, since it may quote labels."""
    logger.error("%s failed: %s", what, one_line(error, 4000))
    return messaging.Error(f"{what} failed ({told(error)})")
