"""The model a plan names, and everything declearn needs to train it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from declearn.aggregator import list_aggregators
from declearn.main.config import FLOptimConfig
from declearn.metrics import Metric, MulticlassAccuracyPrecisionRecall
from declearn.model.tensorflow import TensorflowModel
from declearn.optimizer import Optimizer
from keras import layers

from services.errors import ExperimentError
from services.experiment import Plan
from services.experiment.algorithm import OptimizerSpec
from services.experiment.plugins import SchedulerPlugin
from services.schedules import ScheduledOptimizer
from services.server import own_model
from services.source import Source


def _cnn(classes: int) -> list[keras.layers.Layer]:
    """Build the layers of declearn's own MNIST example: 54,410 parameters."""
    return [
        layers.Conv2D(32, 3, activation="relu", name="conv"),
        layers.MaxPool2D(2, name="pool"),
        layers.Dropout(0.25, name="dropout"),
        layers.Flatten(name="flatten"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _cnn_strided(classes: int) -> list[keras.layers.Layer]:
    """Build layers that see the whole digit after a strided convolution: 106,122 parameters, no more time a step."""
    return [
        layers.Conv2D(16, 5, strides=2, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPool2D(2, name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dropout(0.25, name="dropout"),
        layers.Dense(64, activation="relu", name="hidden"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _cnn_large(classes: int) -> list[keras.layers.Layer]:
    """Build layers that come above 99.2 % on MNIST: two pairs of convolutions: 218,490 parameters."""
    return [
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPool2D(2, name="pool1"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv3"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv4"),
        layers.MaxPool2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dropout(0.4, name="dropout1"),
        layers.Dense(128, activation="relu", name="hidden"),
        layers.Dropout(0.4, name="dropout2"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _mlp(classes: int) -> list[keras.layers.Layer]:
    """Build the layers of the 2NN of McMahan et al. (2017): 199,210 parameters."""
    return [
        layers.Flatten(name="flatten"),
        layers.Dense(200, activation="relu", name="hidden1"),
        layers.Dense(200, activation="relu", name="hidden2"),
        layers.Dense(classes, activation="softmax", name="classes"),
    ]


def _logistic(classes: int) -> list[keras.layers.Layer]:
    """Build multinomial logistic regression, whose loss is convex: 7,850 parameters."""
    return [layers.Flatten(name="flatten"), layers.Dense(classes, activation="softmax", name="classes")]


LOSS = "sparse_categorical_crossentropy"
"""Of probabilities and labels."""

GRAY = 2
"""Axes of one image without channels; a network takes it with a third, and a vector of features as it is."""

# layers have names of their own: those that Keras makes up count on within a process, and a checkpoint goes by them
PRESETS: dict[str, Callable[[int], list[keras.layers.Layer]]] = {
    "cnn": _cnn,
    "cnn-strided": _cnn_strided,
    "cnn-large": _cnn_large,
    "mlp": _mlp,
    "logistic": _logistic,
}


def build_model(
    plan: Plan, image_shape: tuple[int, ...] = (28, 28), classes: int = 10, source: Source | None = None
) -> TensorflowModel:
    """Build the plan's network, its initial weights drawn from the plan's seed.

    Args:
        plan: of it `model` and `seed` count here.
        image_shape: of one image: (height, width), or (height, width, channels); or (features,).
        classes: number of classes.
        source: the file that `model.module` names, where it names one.

    Returns:
        A built declearn model: images of shape (n, *image_shape) in [0, 1], the axis of a single channel optional, to
        class probabilities of shape (n, classes).

    Raises:
        ExperimentError: the network can't take such images, or is none that a federation can train.
    """
    input_shape = (*image_shape, 1) if len(image_shape) == GRAY else image_shape
    if source is not None:
        return own_model.build(source, input_shape, classes, plan.seed, LOSS)
    keras.utils.set_random_seed(plan.seed)
    name = plan.model.preset
    assert name is not None  # noqa: S101 - the schema leaves a plan without a module its preset
    try:
        network = keras.Sequential([layers.Input(input_shape), *PRESETS[name](classes)], name=name)
    except ValueError as exc:
        raise ExperimentError(
            f"model {name} can't take images of shape {image_shape} ({str(exc).splitlines()[0]})",
            "larger images, or another model" if len(input_shape) > 1 else "model mlp or logistic, which take vectors",
            "correct model in the experiment file",
        ) from exc
    return TensorflowModel(network, loss=LOSS)


def build_optim(plan: Plan) -> FLOptimConfig:
    """Build the plan's optimizers and aggregator."""
    aggregator = list_aggregators()[plan.aggregator.name]
    return FLOptimConfig.from_params(
        aggregator=aggregator(**plan.aggregator.parameters),
        client_opt=_optimizer(plan.optimizer.client),
        server_opt=ScheduledOptimizer.of(_optimizer(plan.optimizer.server)),
    )


def build_metrics(plan: Plan, classes: int) -> list[Metric[Any]]:
    """Build what the clients compute on their validation images: the accuracy, and what the plan adds.

    Raises:
        ExperimentError: a metric is about a class that the model does not tell.
    """
    metrics: list[Metric[Any]] = [MulticlassAccuracyPrecisionRecall(labels=list(range(classes)))]
    for metric in plan.metrics:
        label = metric.parameters.get("label", 1)
        if metric.name in {"binary-classif", "binary-roc"} and label >= classes:
            raise ExperimentError(
                f"label of {metric.name} is {label}", f"one of the classes 0 to {classes - 1}", "correct metrics"
            )
        if metric.name != metrics[0].name:
            metrics.append(Metric.from_specs(metric.name, metric.parameters))
    return metrics


def _optimizer(spec: OptimizerSpec) -> Optimizer:
    return Optimizer(
        lrate=_rate(spec.lrate),
        w_decay=_rate(spec.w_decay),
        regularizers=[(plugin.name, plugin.parameters) for plugin in spec.regularizers],
        modules=[(plugin.name, plugin.parameters) for plugin in spec.modules],
    )


def _rate(rate: float | SchedulerPlugin) -> Any:
    """Turn a rate into what declearn's optimizer takes; `base` of a warm-up may be a rate of its own."""
    if not isinstance(rate, SchedulerPlugin):
        return float(rate)
    given = dict(rate.parameters)
    if isinstance(given["base"], dict):
        given["base"] = _rate(SchedulerPlugin.model_validate(given["base"]))
    return rate.name, given
