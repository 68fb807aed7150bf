"""What is wrong with an experiment file, in one line: what was found, what was wanted, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from services.errors import ExperimentError
from services.experiment.contradictions import CONTRADICTION
from services.experiment.overrides import Override, origin
from services.experiment.plan import Plan
from services.experiment.plugins import NUMBER, PARAMETERS, SCHEDULER, Plugin


def explain(
    path: Path, error: ValidationError, content: Mapping[str, Any], overrides: Sequence[Override]
) -> ExperimentError:
    """Word the first thing pydantic found, in the order of the file's sections; an override's mistake names that.

    Args:
        path: of the file.
        error: what pydantic found.
        content: of the file.
        overrides: values in place of the file's, the weakest first.
    """
    first = _first(error.errors())
    if first["type"] == CONTRADICTION:
        contradiction = first["ctx"]["contradiction"]
        keys = [key.split(".") for key in contradiction.keys]
        sources = dict.fromkeys(o.source for key in keys if (o := origin(key, content, overrides)) is not None)
        source = " with ".join([str(path), *sources])
        return ExperimentError(f"{source}: {contradiction.found}", "", contradiction.remedy)
    override = origin([str(part) for part in first["place"]], content, overrides)
    source = str(path) if override is None else override.source
    location = [str(part) for part in first["loc"]]
    where = ".".join(location)
    if first["type"] in {"extra_forbidden", "invalid_key"}:
        section = ".".join(location[:-1])
        known = known_keys(location[:-1])
        near = _nearest(location[-1], known)
        return ExperimentError(
            f"{source}: unknown key {location[-1]!r}" + (f" in {section}" if section else ""),
            f"one of {', '.join(known)}" if known else "none",
            f"did you mean {near!r}?" if near else "remove it or correct it",
        )
    value = first["input"]
    if first["type"] == "missing":
        return ExperimentError(f"{source}: {where} is missing", _MISSING.get(where, ""), f"add {location[-1]}")
    found = f"{source}: {where} is {kind(value) if isinstance(value, dict | list | None) else repr(value)}"
    remedy = f"correct {where}"
    wanted = _wanted(first, location)
    if first["type"] == "literal_error" and isinstance(value, str):
        names = [part.strip(" '") for part in wanted.replace(" or ", ", ").split(",")]
        near = _nearest(value, names)
        remedy = f"did you mean {near!r}?" if near else remedy
    return ExperimentError(found, wanted, remedy)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the known word that is most like `word`, whatever its case, if one is like it at all."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)), None)


def _first(errors: Iterable[Any]) -> dict[str, Any]:
    """Choose an unknown key, or what comes first; of a plug-in's parameters what is wrong in them.

    Returns:
        pydantic's error, with `place` added; `loc` has the plug-in's name where `place` has `parameters`.
    """
    found: list[dict[str, Any]] = []
    for error in errors:
        where = tuple(part for part in error["loc"] if part not in {NUMBER, SCHEDULER})
        if error["type"] == PARAMETERS:
            inner = _first(error["ctx"]["errors"])
            loc, place = (*where[:-1], error["ctx"]["name"], *inner["loc"]), (*where, *inner["place"])
            found.append(inner | {"loc": loc, "place": place})
        else:
            found.append(dict(error) | {"loc": where, "place": where})
    return next((each for each in found if each["type"] == "extra_forbidden"), found[0])


_MISSING = {
    "privacy.epsilon": "a privacy budget",
    "privacy.max_grad_norm": "a norm to clip to: no noise hides what has no bound",
}
"""What was wanted, by the key that is missing."""

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
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_long": "no more than {max_length} of them",
    "too_short": "no fewer than {min_length} of them",
    "tuple_type": "a list",
    "value_error": "{error}",
}
"""What was wanted, by pydantic's type of error, filled in from the error's context."""


def _wanted(error: Any, location: list[str]) -> str:
    if error["type"] == "model_type":
        return f"a mapping of {', '.join(known_keys(location))}"
    text = _WANTED.get(error["type"], str(error["msg"]))
    return text.format(**error.get("ctx", {}))


def kind(value: Any) -> str:
    """Word what was found where something else was due."""
    return {dict: "a mapping", list: "a list", str: "a text", type(None): "empty"}.get(type(value), repr(value))


def known_keys(location: list[str]) -> list[str]:
    """List the keys of the section at `location`, walking down from the plan; a plug-in has its parameters."""
    model: type[BaseModel] = Plan
    for part in location:
        if issubclass(model, Plugin) and part in model.table:
            model = model.table[part]
            continue
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
