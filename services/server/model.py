"""The model a plan names, and everything declearn needs to train it."""

from __future__ import annotations

from typing import Any

from declearn.aggregator import list_aggregators
from declearn.main.config import FLOptimConfig
from declearn.metrics import Metric, MulticlassAccuracyPrecisionRecall
from declearn.model.api import Model
from declearn.optimizer import Optimizer

from services.errors import ExperimentError
from services.experiment import Plan
from services.experiment.algorithm import OptimizerSpec
from services.experiment.plugins import SchedulerPlugin
from services.schedules import ScheduledOptimizer
from services.server import engines
from services.source import Source


def build_model(
    plan: Plan, image_shape: tuple[int, ...] = (28, 28), classes: int = 10, source: Source | None = None
) -> Model[Any]:
    """Build the plan's model by the engine it is of; see `services.server.engines.Engine`."""
    return engines.of(plan).build(plan, image_shape, classes, source)


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
