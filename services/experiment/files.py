"""Experiment files: YAML read into a checked plan, and a plan written as YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from services.errors import ExperimentError
from services.experiment.data import PARAMETERS, READING
from services.experiment.mistakes import explain, kind
from services.experiment.plan import Plan


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
        if isinstance(data, dict):
            others = [key for key, owner in PARAMETERS.items() if owner != scheme]  # of the file's scheme, if of any
            content["data"] = {key: value for key, value in data.items() if key not in others} | {"scheme": scheme}
    try:
        return Plan.model_validate(content)
    except ValidationError as exc:
        raise explain(path, exc, overridden) from None


def dump(plan: Plan) -> str:
    """Write `plan` as YAML that `load` reads back into an equal plan; what does not count in it is left out."""
    idle = {key for key, scheme in PARAMETERS.items() if plan.data.scheme != scheme}
    idle |= set() if plan.data.dataset == "own" else set(READING)
    content = plan.model_dump(mode="json", exclude={"data": idle})
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
            f"{path}: the file holds {kind(content)}",
            "a mapping of sections",
            f"begin with one of {', '.join(Plan.model_fields)}",
        )
    return content
