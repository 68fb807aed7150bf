"""Plug-ins of declearn: the names that a file may use, and the parameters that each of them takes.

They are listed here so that a file is checked without importing declearn; a test holds the tables to its constructors.
Left out is what declearn loses on the way to the clients, where it would have no effect: `round_reset` of modules, and
`steps_weighted` of `gradient-masked-averaging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from services.experiment.base import Number, Positive, Section, Seed, Truth

Table = Mapping[str, type[Section]]
"""The parameters of each plug-in of one kind, as a section of their own."""

_Above = Annotated[Number, Field(gt=0)]
_NotBelow = Annotated[Number, Field(ge=0)]
_Decay = Annotated[Number, Field(ge=0, lt=1)]
_Share = Annotated[Number, Field(ge=0, le=1)]


def table(plugins: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> Table:
    """Make a table of plug-ins.

    Args:
        plugins: for each name its parameters, and for each of these its kind and its default (`...`: there is none).
    """
    models: dict[str, type[Section]] = {}
    for name, parameters in plugins.items():
        fields: dict[str, Any] = dict(parameters)
        models[name] = create_model(name, __base__=Section, **fields)
    return models


AGGREGATORS = table(
    {
        "averaging": {"steps_weighted": (Truth, True)},
        "gradient-masked-averaging": {"threshold": (_Share, 1.0)},
        "sum": {},
    }
)

MODULES = table(
    {
        "adagrad": {"eps": (_Above, 1e-7)},
        "adam": {
            "beta_1": (_Decay, 0.9),
            "beta_2": (_Decay, 0.99),
            "amsgrad": (Truth, False),
            "eps": (_Above, 1e-7),
        },
        "ewma": {"beta": (_Decay, 0.9)},
        "gaussian-noise": {"std": (_Above, 1.0), "safe_mode": (Truth, True), "seed": (Seed | None, None)},
        "l2-clipping": {"max_norm": (_Above, 1.0)},
        "l2-global-clipping": {"max_norm": (_Above, 1.0)},
        "momentum": {"beta": (_Decay, 0.9), "nesterov": (Truth, False)},
        "rmsprop": {"beta": (_Decay, 0.9), "eps": (_Above, 1e-7)},
        "scaffold-client": {},
        "scaffold-server": {},
        "yogi": {
            "beta_1": (_Decay, 0.9),
            "beta_2": (_Decay, 0.99),
            "amsgrad": (Truth, False),
            "eps": (_Above, 1e-7),
        },
        "yogi-momentum": {"beta": (_Decay, 0.9)},
    }
)

REGULARIZERS = table(
    {
        "fedprox": {"alpha": (_NotBelow, 0.01)},
        "lasso": {"alpha": (_NotBelow, 0.01)},
        "ridge": {"alpha": (_NotBelow, 0.01)},
    }
)


class Plugin(Section):
    """One plug-in of declearn, with its parameters; a kind of plug-in is a subclass with a `table` and its `name`s.

    Attributes:
        name: under which declearn registers it.
        parameters: those that the file gives; the others have the defaults of `table`, which are declearn's.
    """

    table: ClassVar[Table] = {}

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @field_validator("parameters", mode="before")
    @classmethod
    def _taken(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse what the plug-in does not take."""
        parameters = cls.table.get(info.data.get("name", ""))
        if parameters is None or not isinstance(given, dict):  # another mistake, and told as such
            return given
        try:
            return parameters.model_validate(given).model_dump(exclude_unset=True)
        except ValidationError as exc:
            raise PydanticCustomError(
                PARAMETERS, "a parameter of a plug-in is wrong", {"name": info.data["name"], "errors": exc.errors()}
            ) from exc


PARAMETERS = "parameters"
"""Pydantic's type of the error that holds those of a plug-in's parameters."""


def plugin(value: Any) -> Any:
    """Read a plug-in written as `name` or as `{name: {parameter: value}}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and not value.keys() & {"name", "parameters"}:
        ((name, parameters),) = value.items()
        return {"name": name, "parameters": {} if parameters is None else parameters}
    return value


class SchedulerPlugin(Plugin):
    """A scheduler of a rate, with its parameters; `base` of `warmup` and `warmup-rounds` may be another one."""

    name: Literal[
        "cosine-annealing",
        "cosine-annealing-warm-restarts",
        "cyclic-exp-range",
        "cyclic-triangular",
        "exponential-decay",
        "inverse-scaling",
        "linear-decay",
        "piecewise-decay",
        "polynomial-decay",
        "warmup",
        "warmup-rounds",
    ]


def _kind_of_rate(value: Any) -> str:
    """Tell a scheduler from a number; a text is a number where it can be read as one."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return SCHEDULER
        return NUMBER
    return SCHEDULER if isinstance(value, dict | SchedulerPlugin) else NUMBER


NUMBER, SCHEDULER = "number", "scheduler"
"""Tags of the two kinds of rate; pydantic adds them to the location of an error."""

_Scheduled = Annotated[SchedulerPlugin, BeforeValidator(plugin), Tag(SCHEDULER)]
PositiveRate = Annotated[Annotated[Number, Field(gt=0), Tag(NUMBER)] | _Scheduled, Discriminator(_kind_of_rate)]
Rate = Annotated[Annotated[Number, Field(ge=0), Tag(NUMBER)] | _Scheduled, Discriminator(_kind_of_rate)]

_BASE = {"base": (_NotBelow, ...)}
_PEAK = {**_BASE, "max_lr": (_Above, ...)}
_BY_STEP = {"step_level": (Truth, True)}

SCHEDULERS = table(
    {
        "cosine-annealing": {**_PEAK, "duration": (Positive, ...), **_BY_STEP},
        "cosine-annealing-warm-restarts": {**_PEAK, "period": (Positive, ...), "t_mult": (_Above, 1.0), **_BY_STEP},
        "cyclic-exp-range": {**_PEAK, "stepsize": (Positive, ...), "decay": (_Above, ...)},
        "cyclic-triangular": {**_PEAK, "stepsize": (Positive, ...), "decay": (Truth, False)},
        "exponential-decay": {**_BASE, "rate": (_NotBelow, ...), **_BY_STEP},
        "inverse-scaling": {**_BASE, "rate": (_NotBelow, ...), **_BY_STEP},
        "linear-decay": {**_BASE, "rate": (_NotBelow, ...), **_BY_STEP},
        "piecewise-decay": {**_BASE, "rate": (_NotBelow, ...), "step_size": (Positive, ...), **_BY_STEP},
        "polynomial-decay": {**_BASE, "power": (Positive, ...), "limit": (Positive, ...), **_BY_STEP},
        "warmup": {"base": (Rate, ...), "warmup": (Positive, ...)},
        "warmup-rounds": {"base": (Rate, ...), "warmup": (Positive, ...)},
    }
)
SchedulerPlugin.table = SCHEDULERS
