"""Local training and evaluation, made to be run in a thread and to be interrupted between two steps."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import tensorflow as tf
from declearn import messaging
from declearn.model.api import Model
from declearn.model.sklearn import SklearnSGDModel
from declearn.model.tensorflow import TensorflowModel
from declearn.training import TrainingManager
from declearn.typing import Batch

from services.client.dataset import ImageDataset
from services.client.metrics import ClassMetrics
from services.linear import LinearModel
from services.schedules import ScheduledOptimizer


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

    Overrides `run_train_step`, which raises `StopIteration` (upstream's own way to end a round early) once interrupted,
    and `training_round`: upstream's schedules begin anew with each process, and stand still while a client is away.
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

    def training_round(self, message: messaging.TrainRequest) -> messaging.TrainReply | messaging.Error:
        images = self.train_data.get_data_specs().n_samples or 0
        steps = max(1, images // message.batches["batch_size"]) * (message.n_epoch or 1)
        steps = min(steps, message.n_steps or steps)
        self.optim.reach_round(message.round_i, steps)
        self.progress = (0, steps)
        return super().training_round(message)

    def run_train_step(self, batch: Batch) -> None:
        if self._interrupted.is_set():
            raise StopIteration("interrupted")
        super().run_train_step(batch)
        self.advance()

    def advance(self) -> None:
        """Count a step; what was foretold is a floor where a part of a batch is left over."""
        step, steps = self.progress
        self.progress = (step + 1, max(step + 1, steps))
