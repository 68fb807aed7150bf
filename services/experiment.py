"""An experiment file as a checked plan: what a researcher changes, in one YAML file.

The schema is a tree of pydantic models that refuse unknown keys; what they find is worded as one line that names
the file, the key, the value and what would have been right. Plug-ins go by the names under which declearn registers
them; they are listed here so that checking a file needs no import of declearn (a test holds the lists to its registry).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from services.errors import ExperimentError

Scheme = Literal["iid", "labels", "biased", "dirichlet", "shards"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
Preset = Literal["cnn", "cnn-strided"]
Aggregator = Literal["averaging", "gradient-masked-averaging", "sum"]
Module = Literal[
    "adagrad",
    "adam",
    "ewma",
    "gaussian-noise",
    "l2-clipping",
    "l2-global-clipping",
    "momentum",
    "rmsprop",
    "scaffold-client",
    "scaffold-server",
    "yogi",
    "yogi-momentum",
]
Regularizer = Literal["fedprox", "lasso", "ridge"]


def _no_truth(value: Any) -> Any:
    """Refuse `yes` and `no` where a number is due: YAML reads truth values, and Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a number")  # noqa: TRY004 - pydantic gathers ValueError alone
    return value


Secagg = Literal["masking", "joye-libert"]

Positive = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Truth = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _plugin(value: Any) -> Any:
    """Read a plug-in written as `name` or as `{name: {parameter: value}}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        ((name, parameters),) = value.items()
        return {"name": name, "parameters": {} if parameters is None else parameters}
    return value


class ModulePlugin(Section):
    """One optimizer module of declearn, with its parameters."""

    name: Module
    parameters: dict[str, Any] = {}


class RegularizerPlugin(Section):
    """One loss regularizer of declearn, with its parameters."""

    name: Regularizer
    parameters: dict[str, Any] = {}


class AggregatorPlugin(Section):
    """An aggregator of declearn, with its parameters."""

    name: Aggregator = "averaging"
    parameters: dict[str, Any] = {}


class Data(Section):
    """What is trained on, and how it is dealt to the clients.

    Attributes:
        dataset: name of the data set.
        scheme: how training images are split; `iid`, `labels` and `biased` as in declearn's MNIST example,
            `dirichlet` draws label proportions from a symmetric Dirichlet(alpha) (Hsu et al. 2019), `shards` deals
            pieces of the images in the order of their labels (McMahan et al. 2017).
        alpha: concentration of the Dirichlet distribution; smaller is more uneven.
        classes_per_client: pieces that scheme `shards` deals to each client.
        valid_fraction: share of each client's images kept for validation, in ]0, 1[.
        seed: of the split; None takes the plan's.
    """

    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    scheme: Scheme = "iid"
    alpha: Annotated[Number, Field(gt=0)] = 0.5
    classes_per_client: Positive = 2
    valid_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] | None = None


class Model(Section):
    """The network that is trained.

    Attributes:
        preset: `cnn` is that of declearn's MNIST example; `cnn-strided` learns more in the same time.
    """

    preset: Preset = "cnn-strided"


class Train(Section):
    """One client's work in one round.

    Attributes:
        batch_size: images a local step.
        epochs: passes over the client's training images a round.
        steps: most local steps a round, or null for as many as the epochs hold.
        shuffle: draw a new order of images for each pass.
    """

    batch_size: Positive = 64
    epochs: Positive = 1
    steps: Positive | None = None
    shuffle: Truth = True


class Evaluate(Section):
    """Evaluation on each client's validation images, after every round.

    Attributes:
        batch_size: images a step; changes speed and memory, not the figures.
    """

    batch_size: Positive = 500


class OptimizerSpec(Section):
    """A declearn optimizer: `weights -= lrate * modules(gradients + regularizers) + w_decay * weights`.

    Attributes:
        lrate: learning rate.
        w_decay: decoupled weight decay.
        regularizers: loss regularizers, in order.
        modules: gradient-altering modules, in order.
    """

    lrate: Annotated[Number, Field(gt=0)]
    w_decay: Annotated[Number, Field(ge=0)] = 0.0
    regularizers: tuple[Annotated[RegularizerPlugin, BeforeValidator(_plugin)], ...] = ()
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(_plugin)], ...] = ()


class ClientOptimizer(OptimizerSpec):
    """The optimizer of local steps."""

    lrate: Annotated[Number, Field(gt=0)] = 0.002
    modules: tuple[Annotated[ModulePlugin, BeforeValidator(_plugin)], ...] = (ModulePlugin(name="adam"),)


class ServerOptimizer(OptimizerSpec):
    """The optimizer that applies the averaged updates; `lrate: 1` and no module is plain FedAvg."""

    lrate: Annotated[Number, Field(gt=0)] = 1.0


class Optimizer(Section):
    """Both optimizers."""

    client: ClientOptimizer = ClientOptimizer()
    server: ServerOptimizer = ServerOptimizer()


class Federation(Section):
    """Who takes part, and how long they are waited for.

    Attributes:
        min_clients: fewest clients a round counts with (quorum).
        join_timeout: seconds the server waits for the first CLIENTS clients.
        join_grace: seconds without a newcomer after which the federation starts, once CLIENTS are there.
        round_timeout: seconds a round may take; who has not answered by then is left out of it (straggler).
        quorum_timeout: seconds the server waits for clients to return when fewer than `min_clients` are left.
        rejoin_grace: seconds that the seat of a client whose connection was lost is kept for it.
    """

    min_clients: Positive = 1
    join_timeout: Annotated[Number, Field(gt=0)] = 300.0
    join_grace: Annotated[Number, Field(ge=0)] = 3.0
    round_timeout: Annotated[Number, Field(gt=0)] = 600.0
    quorum_timeout: Annotated[Number, Field(ge=0)] = 120.0
    rejoin_grace: Annotated[Number, Field(ge=0)] = 30.0


class Plan(Section):
    """A whole experiment.

    Attributes:
        rounds: rounds of training.
        seed: of the split, the initial weights and the order of images.
        deterministic: make a run that is stopped and resumed equal one that is not, at the price of sending the
            clients' optimizer states to the server after each round.
        secagg: method of secure aggregation, by which the server reads only the sum of what clients send, or null.
    """

    rounds: Positive = 5
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    deterministic: Truth = False
    data: Data = Data()
    model: Annotated[Model, BeforeValidator(lambda value: {"preset": value} if isinstance(value, str) else value)] = (
        Model()
    )
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    optimizer: Optimizer = Optimizer()
    aggregator: Annotated[AggregatorPlugin, BeforeValidator(_plugin)] = AggregatorPlugin()
    secagg: Secagg | None = None
    federation: Federation = Federation()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse sections that contradict each other."""
        if self.secagg is not None and self.deterministic:
            raise ValueError(
                "secagg and deterministic contradict each other: the clients' optimizer states, which a deterministic "
                "run keeps on the server, tell what secure aggregation hides"
            )
        return self


def load(
    path: Path,
    *,
    scheme: str | None = None,
    seed: int | None = None,
    rounds: int | None = None,
) -> Plan:
    """Read and check the experiment file at `path`.

    Args:
        path: a YAML file; an empty one is the default experiment.
        scheme: in place of `data.scheme`.
        seed: in place of `seed`.
        rounds: in place of `rounds`.

    Raises:
        ExperimentError: the file is missing, no YAML, or has a key or value that can't be used.
    """
    content = _read(path)
    overridden: dict[str, Any] = {"seed": seed, "rounds": rounds}
    overridden = {key: value for key, value in overridden.items() if value is not None}
    content |= overridden
    if scheme is not None:
        overridden["data.scheme"] = scheme
        data = content.get("data", {})
        content["data"] = {**data, "scheme": scheme} if isinstance(data, dict) else data
    try:
        return Plan.model_validate(content)
    except ValidationError as exc:
        raise _explain(path, exc, overridden) from None


def dump(plan: Plan) -> str:
    """Write `plan` as YAML that `load` reads back into an equal plan."""
    content = plan.model_dump(mode="json")
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


_SCIENTIFIC = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
"""`1e-3`, `1.5e3`: numbers to people and to YAML 1.2, texts to pyyaml, which follows YAML 1.1."""


class _Dumper(yaml.SafeDumper):
    """`SafeDumper` that quotes a text that `_Loader` would take for a number."""


def differences(kept: Plan, asked: Plan) -> list[tuple[str, str]]:
    """List the keys in which two plans differ, each as `key value` of the one and of the other."""
    first, second = _flat(kept.model_dump(mode="json")), _flat(asked.model_dump(mode="json"))
    keys = [*first, *(key for key in second if key not in first)]
    return [
        (f"{key} {first.get(key)}", f"{key} {second.get(key)}") for key in keys if first.get(key) != second.get(key)
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


class _Loader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key written twice, of which YAML would keep the last without a word.

    What looks like a date or a number and is none (`2026-13-45`, `0x_`) is an error of the file's, not of ours.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - pyyaml's signature
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} can't be read as {node.tag.rpartition(':')[2]}", node.start_mark
            ) from exc

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - pyyaml's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int | float) else str(key))
        return super().construct_mapping(node, deep)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, list("-+.0123456789"))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise ExperimentError(
            f"{path}: can't be read ({reason})", "an experiment file in YAML", "set EXPERIMENT to the path of one"
        ) from exc
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except RecursionError:
        raise ExperimentError(f"{path}: nested too deeply", "well-formed YAML", "mend that file") from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
        raise ExperimentError(f"{path}{where}: {problem}", "well-formed YAML", "mend that line") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ExperimentError(
            f"{path}: the file holds {_kind(content)}", "a mapping of sections", f"begin with one of {_keys(Plan)}"
        )
    return content


def _explain(path: Path, error: ValidationError, overridden: Mapping[str, Any]) -> ExperimentError:
    """Word the first thing pydantic found, in the order of the file's sections.

    Args:
        path: of the file.
        error: what pydantic found.
        overridden: values that came from elsewhere than the file, by key.
    """
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    location = [str(part) for part in first["loc"]]
    where = ".".join(location)
    if first["type"] in {"extra_forbidden", "invalid_key"}:
        section = ".".join(location[:-1])
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        return ExperimentError(
            f"{path}: unknown key {location[-1]!r}" + (f" in {section}" if section else ""),
            f"one of {', '.join(known)}",
            f"did you mean {near[0]!r}?" if near else "remove it or correct it",
        )
    value = first["input"]
    if first["type"] == "missing":
        return ExperimentError(f"{path}: {where} is missing", "", f"add {location[-1]}")
    if where in overridden:
        name = location[-1]
        found, remedy = f"{name.upper()} or --{name} is {value!r}", f"correct {name.upper()} or --{name}"
    else:
        found = f"{path}: {where} is {_kind(value) if isinstance(value, dict | list | None) else repr(value)}"
        remedy = f"correct {where}"
    wanted = _wanted(first, location)
    if first["type"] == "literal_error" and isinstance(value, str):
        names = [part.strip(" '") for part in wanted.replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else remedy
    return ExperimentError(found, wanted, remedy)


_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping of parameters",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "a whole number",
    "less_than": "a number below {lt:.10g}",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "value_error": "{error}",
}
"""What was wanted, by pydantic's type of error, filled in from the error's context."""


def _wanted(error: Any, location: list[str]) -> str:
    if error["type"] == "model_type":
        return f"a mapping of {', '.join(_known_keys(location))}"
    text = _WANTED.get(error["type"], str(error["msg"]))
    return text.format(**error.get("ctx", {}))


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "a text", type(None): "empty"}.get(type(value), repr(value))


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _known_keys(location: list[str]) -> list[str]:
    """List the keys of the section at `location`, walking the schema from the plan."""
    model: type[BaseModel] = Plan
    for part in location:
        field = model.model_fields.get(part)
        if field is None:  # an index in a list of plug-ins
            continue
        inner = [field.annotation, *get_args(field.annotation)]
        sections = [a for a in _flatten(inner) if isinstance(a, type) and issubclass(a, BaseModel)]
        if sections:
            model = sections[0]
    return list(model.model_fields)


def _flatten(annotations: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for annotation in annotations:
        flat.append(annotation)
        flat.extend(_flatten(list(get_args(annotation))))
    return flat
