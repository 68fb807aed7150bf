"""What a server may set a client up with: a model, an optimizer, an aggregator and metrics.

All of it comes in one message, `InitRequest`. A plan may name no more than what stands here, so that what `fed check`
accepts a client accepts too; a stock declearn server may name the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sklearn.linear_model import SGDClassifier

from services import architecture
from services.architecture import Size
from services.client.metrics import MOST_THRESHOLDS
from services.client.requests import verify
from services.errors import DistrustError
from services.experiment.methods import MetricPlugin
from services.experiment.model import SklearnModel
from services.experiment.plugins import AGGREGATORS, MODULES, REGULARIZERS, SCHEDULERS, Table

MOST_PLUGINS = 16
"""Modules, regularizers or metrics; a module may keep several times the model's size."""

VALUES_A_PARAMETER = 100
"""How many times `max_parameters` a model may make of one batch of images, all tensors on the way counted; ResNet-50
makes three times its parameters of each image."""

KEYS = ("__type__", "dump")
"""Of a map that stands for an object of declearn's: its type, and what that is made of."""

AGGREGATORS_BY_TYPE = {
    "AveragingAggregator": "averaging",
    "GradientMaskedAveraging": "gradient-masked-averaging",
    "SumAggregator": "sum",
}

REMEDY = "ask who operates the federation"


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Request(_Form):
    model: dict[str, Any]
    optim: dict[str, Any]
    aggrg: dict[str, Any]
    metrics: Annotated[list[str | list[Any]], Field(max_length=MOST_PLUGINS)]
    dpsgd: bool
    secagg: Literal["masking", "joye-libert"] | None
    fairness: bool


class _Optimizer(_Form):
    lrate: Any
    w_decay: Any
    regularizers: Annotated[list[Any], Field(max_length=MOST_PLUGINS)]
    modules: Annotated[list[Any], Field(max_length=MOST_PLUGINS)]


class _Network(_Form):
    typekey: Literal["tensorflow"] = "tensorflow"
    model: dict[str, Any]
    loss: dict[str, Any] | str
    kwargs: dict[str, Any]


class _Shape(_Form):
    features_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=1)]
    classes: Annotated[list[int | str], Field(min_length=2)]


class _Linear(_Form):
    typekey: Literal["sklearn_sgd"] = "sklearn_sgd"
    kind: Literal["classifier"]
    params: dict[str, bool | int | float | str | None]
    data_info: _Shape
    dtype: Literal["float32", "float64"]


NEUTRAL = {"class_weight": None, "early_stopping": False, "n_jobs": None, "verbose": 0}
"""Parameters of scikit-learn that a client leaves alone: they start threads, print, or change nothing here."""


@dataclass(frozen=True)
class Limits:
    """What a client gives a model.

    Attributes:
        parameters: numbers in its weights.
    """

    parameters: int

    @property
    def values(self) -> int:
        """Numbers that it may make of one batch of images."""
        return VALUES_A_PARAMETER * self.parameters


def checked(fields: Mapping[str, Any], limits: Limits) -> tuple[dict[str, Any], Size]:
    """Look at all that an `InitRequest` names, as plain data.

    Args:
        fields: of the message.
        limits: what a model may take.

    Returns:
        The fields, without how a network was compiled; and what the model takes.

    Raises:
        DistrustError: a part of it is code, is not known, or is too large.
    """
    verify(_Request, fields, "set-up")
    _check_optimizer(_object(fields["optim"], {"Optimizer"})[1])
    _check_aggregator(*_object(fields["aggrg"], AGGREGATORS_BY_TYPE))
    for metric in fields["metrics"]:
        _check_metric(metric, limits)
    kind, dump = _object(fields["model"], {"TensorflowModel", "SklearnSGDModel"})
    made, size = _network(dump) if kind == "TensorflowModel" else (dump, _linear(dump))
    _check_size(size, limits)
    return {**fields, "model": {"__type__": kind, "dump": made}}, size


def _object(value: Mapping[str, Any], kinds: Mapping[str, Any] | set[str]) -> tuple[str, dict[str, Any]]:
    """Take apart what stands for an object of one of `kinds`."""
    kind, dump = value.get(KEYS[0]), value.get(KEYS[1])
    if not isinstance(kind, str) or kind not in kinds or not isinstance(dump, dict) or len(value) != len(KEYS):
        raise DistrustError(f"the server names {_shown(kind)}", f"one of {', '.join(sorted(kinds))}", REMEDY)
    return kind, dump


# -- the model --------------------------------------------------------------------------------------------------------


def _network(dump: dict[str, Any]) -> tuple[dict[str, Any], Size]:
    """Look at a network of Keras and its loss; give what it is built of, and its size."""
    verify(_Network, dump, "model")
    options = sorted(key for key, value in dump["kwargs"].items() if value)
    if options:
        raise _refused(f"it is compiled with {_shown(options[0])}")
    config, loss = architecture.without_compilation(dump["model"]), dump["loss"]
    fault = architecture.fault(config)
    if fault is None and (config.get("module"), config.get("class_name")) not in architecture.NETWORKS:
        fault = f"{_shown(config.get('class_name'))} is no network"
    if fault is None:
        fault = architecture.fault_in_loss(loss)
    if fault is not None:
        raise _refused(fault)
    try:
        size = architecture.measured(config)
    except ValueError as exc:
        raise _refused(f"Keras can't build it ({exc})") from exc
    return {**dump, "model": config, "kwargs": {}}, size


def _linear(dump: dict[str, Any]) -> Size:
    """Look at a linear model of scikit-learn, and give its size."""
    verify(_Linear, dump, "model")
    params = dump["params"]
    strange = sorted(params.keys() - SGDClassifier().get_params().keys())
    changed = sorted(key for key, value in NEUTRAL.items() if params.get(key, value) != value)
    if strange or changed:
        raise _refused(f"it has {(strange or changed)[0]} {_shown(params[(strange or changed)[0]])}")
    ours = {key: params[key] for key in SklearnModel.model_fields if key in params}
    verify(SklearnModel, {**ours, "penalty": ours.get("penalty") or "none"}, "model")
    (features,), classes = dump["data_info"]["features_shape"], len(dump["data_info"]["classes"])
    return Size(classes * (features + 1), features + classes, (features,), classes)


def _check_size(size: Size, limits: Limits) -> None:
    if size.parameters > limits.parameters:
        raise _too_large(f"the server's model has {size.parameters:,} parameters", f"{limits.parameters:,}")
    if size.values > limits.values:
        raise _too_large(f"the server's model makes {size.values:,} numbers of an image", f"{limits.values:,}")


def _too_large(found: str, most: str) -> DistrustError:
    return DistrustError(
        found, f"at most {most}", "raise MAX_PARAMETERS (`fed client --max-parameters`) if this machine is to train it"
    )


def check_batch(size: Size, images: int, limits: Limits) -> None:
    """Refuse a batch of so many images that the model makes too much of it.

    Raises:
        DistrustError: names the numbers.
    """
    if size.values * images > limits.values:
        raise _too_large(
            f"the server's model makes {size.values * images:,} numbers of a batch of {images}", f"{limits.values:,}"
        )


# -- what trains it ---------------------------------------------------------------------------------------------------


def _check_optimizer(config: dict[str, Any]) -> None:
    verify(_Optimizer, config, "optimizer")
    for key in ("lrate", "w_decay"):
        _check_rate(config[key])
    for key, table in (("regularizers", REGULARIZERS), ("modules", MODULES)):
        for plugin in config[key]:
            _check_plugin(plugin, table)


def _check_rate(rate: Any) -> None:
    """Look at a number, or a schedule: `[name, parameters]`, of which `base` may be another one."""
    if not isinstance(rate, list):
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate):
            raise DistrustError(
                f"the server's optimizer has a rate of {_shown(rate)}", "a number, or a schedule", REMEDY
            )
        return
    name, parameters = _named(rate)
    if isinstance(parameters.get("base"), list):
        _check_rate(parameters["base"])
        parameters = {**parameters, "base": 0.0}
    _check_plugin([name, parameters], SCHEDULERS)


def _named(plugin: Any) -> tuple[str, dict[str, Any]]:
    """Read `name`, or `[name, parameters]`."""
    name, parameters = plugin if isinstance(plugin, list) and len(plugin) == len(KEYS) else (plugin, {})
    if not isinstance(name, str) or not isinstance(parameters, dict):
        raise DistrustError(f"the server names {_shown(plugin)}", "a name and parameters", REMEDY)
    return name, parameters


def _check_plugin(plugin: Any, table: Table) -> None:
    name, parameters = _named(plugin)
    if name not in table:
        raise DistrustError(f"the server names {_shown(name)}", f"one of {', '.join(sorted(table))}", REMEDY)
    verify(table[name], parameters, name)


def _check_aggregator(kind: str, config: dict[str, Any]) -> None:
    name = AGGREGATORS_BY_TYPE[kind]
    verify(AGGREGATORS[name], {key: value for key, value in config.items() if key != "name"}, name)


def _check_metric(metric: Any, limits: Limits) -> None:
    name, parameters = _named(metric)
    labels = parameters.get("labels", []) if name == "multi-classif" else []
    if not isinstance(labels, list) or not all(isinstance(label, int | str) for label in labels):
        raise DistrustError(f"the server's {name} has labels {_shown(labels)}", "numbers or names", REMEDY)
    _check_plugin([name, {key: value for key, value in parameters.items() if key != "labels"}], MetricPlugin.table)
    if len(labels) ** 2 > limits.parameters:
        raise _too_large(
            f"the server's {name} counts {len(labels):,} classes by classes", f"{limits.parameters:,} pairs"
        )
    if name == "binary-roc":
        low, high = parameters.get("bound") or (0.0, 1.0)
        if not 0 < (high - low) / parameters.get("scale", 0.1) < MOST_THRESHOLDS:
            raise _too_large(f"the server's {name} has too fine a scale", f"{MOST_THRESHOLDS:,} points")


def _refused(fault: str) -> DistrustError:
    return DistrustError(
        f"the server's model is refused: {fault}", "a network of Keras' own parts, without code", REMEDY
    )


def _shown(value: object) -> str:
    return repr(value)[:60]
