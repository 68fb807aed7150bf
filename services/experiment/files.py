"""Experiment files: YAML read into a checked plan, and a plan written as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from services.errors import ExperimentError
from services.experiment.data import PARAMETERS, READING
from services.experiment.mistakes import explain, kind
from services.experiment.notation import parse, write
from services.experiment.overrides import Override, apply
from services.experiment.plan import Plan


def load(path: Path, overrides: Sequence[Override] = ()) -> Plan:
    """Read and check the experiment file at `path`.

    Args:
        path: a YAML file; an empty one is the default experiment.
        overrides: values in place of the file's, the weakest first.

    Raises:
        ExperimentError: the file is missing, no YAML, or has a key or value that can't be used; or an override has.
    """
    content = _read(path)
    changed, misplaced = apply(content, overrides)
    try:
        plan = Plan.model_validate(changed)
    except ValidationError as exc:
        raise explain(path, exc, content, overrides) from None
    if misplaced:
        raise misplaced[0]
    return plan


def dump(plan: Plan) -> str:
    """Write `plan` as YAML that `load` reads back into an equal plan; what does not count in it is left out."""
    idle = {key for key, scheme in PARAMETERS.items() if plan.data.scheme != scheme}
    idle |= set() if plan.data.dataset == "own" else set(READING)
    content = plan.model_dump(mode="json", exclude={"data": idle})
    return write(content)


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


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise ExperimentError(
            f"{path}: can't be read ({reason})", "an experiment file in YAML", "set EXPERIMENT to the path of one"
        ) from exc
    try:
        content = parse(text)
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
