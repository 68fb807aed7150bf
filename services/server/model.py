"""The model a plan names, and everything declearn needs to train it."""

from __future__ import annotations

from collections.abc import Callable

import keras
from declearn.aggregator import list_aggregators
from declearn.main.config import FLOptimConfig
from declearn.model.tensorflow import TensorflowModel
from declearn.optimizer import Optimizer
from keras import layers

from services.errors import ExperimentError
from services.experiment import OptimizerSpec, Plan

CLASSES = 10
INPUT_SHAPE = (28, 28, 1)


def _cnn() -> list[keras.layers.Layer]:
    """Build the layers of declearn's own MNIST example: 54,410 parameters."""
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPool2D(2),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(CLASSES, activation="softmax"),
    ]


def _cnn_strided() -> list[keras.layers.Layer]:
    """Build layers that see the whole digit after a strided convolution: 106,122 parameters, no more time a step."""
    return [
        layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPool2D(2),
        layers.Flatten(),
        layers.Dropout(0.25),
        layers.Dense(64, activation="relu"),
        layers.Dense(CLASSES, activation="softmax"),
    ]


PRESETS: dict[str, Callable[[], list[keras.layers.Layer]]] = {"cnn": _cnn, "cnn-strided": _cnn_strided}


def build_model(plan: Plan) -> TensorflowModel:
    """Build the plan's network, its initial weights drawn from the plan's seed.

    Returns:
        A built declearn model: images of shape (n, 28, 28[, 1]) in [0, 1] to class probabilities of shape (n, 10).
    """
    keras.utils.set_random_seed(plan.seed)
    network = keras.Sequential([layers.Input(INPUT_SHAPE), *PRESETS[plan.model.preset]()], name=plan.model.preset)
    return TensorflowModel(network, loss="sparse_categorical_crossentropy")


def build_optim(plan: Plan) -> FLOptimConfig:
    """Build the plan's optimizers and aggregator.

    Raises:
        ExperimentError: declearn refuses a parameter of a plug-in.
    """
    aggregator = list_aggregators()[plan.aggregator.name]
    try:
        return FLOptimConfig.from_params(
            aggregator=aggregator(**plan.aggregator.parameters),
            client_opt=_optimizer(plan.optimizer.client),
            server_opt=_optimizer(plan.optimizer.server),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ExperimentError(
            f"a plug-in of the optimizer or the aggregator can't be made ({exc})",
            "parameters that declearn's plug-in takes",
            "correct them in the experiment file",
        ) from exc


def _optimizer(spec: OptimizerSpec) -> Optimizer:
    return Optimizer(
        lrate=spec.lrate,
        w_decay=spec.w_decay,
        regularizers=[(plugin.name, plugin.parameters) for plugin in spec.regularizers],
        modules=[(plugin.name, plugin.parameters) for plugin in spec.modules],
    )
