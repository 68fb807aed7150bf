"""The schema of experiment files as JSON Schema (draft 2020-12), by which editors complete and check them."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from services.experiment.algorithm import SHORT, AggregatorPlugin
from services.experiment.base import Section
from services.experiment.plan import Plan
from services.experiment.plugins import Plugin

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""Bounds that pydantic leaves as they are where a validator of ours comes before the number."""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, without titles: a key's name in capitals tells nobody more."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - upstream's signature
        return False


def json_schema() -> dict[str, Any]:
    """Give the schema of a file, short spellings included; what contradicts what is left to `fed check`."""
    kinds = Plugin.__subclasses__()
    models: set[type[BaseModel]] = {Plan, *kinds, *(model for kind in kinds for model in kind.table.values())}
    ordered = sorted(models, key=lambda model: (model.__module__, model.__qualname__, str(model.model_fields)))
    references, content = models_json_schema(
        [(model, "validation") for model in ordered], schema_generator=_Generator, ref_template="#/$defs/{model}"
    )
    sections: dict[str, Any] = content["$defs"]
    refs: dict[Any, Any] = {model: reference for (model, _), reference in references.items()}
    for model in _sections(Plan):
        _describe(sections[model.__name__], model)
    for kind in kinds:
        sections[refs[kind]["$ref"].rpartition("/")[2]] = _spellings(kind, refs)
    schema: dict[str, Any] = _bounded({"$schema": DRAFT, "title": "An experiment", **sections.pop("Plan")})
    return {**schema, "$defs": _bounded(_reachable(schema, sections))}


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """List a section and those below it, those that may be null included."""
    annotations = [field.annotation for field in model.model_fields.values()]
    below = [part for annotation in annotations for part in (annotation, *get_args(annotation))]
    found = [kind for kind in below if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [model, *(each for kind in found if not issubclass(kind, Plugin) for each in _sections(kind))]


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Move what the docstring of `model` says of each key to that key."""
    for kind in reversed(model.__mro__[: model.__mro__.index(Section)]):
        about, _, attributes = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
        schema["description"] = " ".join(about.split())
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            schema["properties"][name]["description"] = " ".join(text.split())
    for key in schema["properties"].values():
        if "$ref" in key:  # of a section, whose keys have their own
            key.pop("default", None)


def _spellings(kind: type[Plugin], refs: dict[Any, Any]) -> dict[str, Any]:
    """Give the spellings of a plug-in: its name, the name over the parameters, and both as keys."""
    short = SHORT if kind is AggregatorPlugin else {}
    table = {**kind.table, **{alias: kind.table[name] for alias, name in short.items()}}
    bare = [
        name for name, model in table.items() if not any(field.is_required() for field in model.model_fields.values())
    ]
    default = kind.model_fields["name"].get_default()
    pairs = []
    for name, model in table.items():
        required = ["name"] if name != default else []
        required += [] if name in bare else ["parameters"]
        properties = {"name": {"const": name}, "parameters": refs[model]}
        pairs.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    named = {
        name: {"anyOf": [refs[model], {"type": "null"}]} if name in bare else refs[model]
        for name, model in table.items()
    }
    names: list[dict[str, Any]] = [{"enum": bare}] if bare else []
    return {
        "description": " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()),
        "anyOf": [
            *names,
            {
                "type": "object",
                "properties": named,
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            },
            *pairs,
        ],
    }


def _bounded(schema: Any) -> Any:
    """Name bounds as JSON Schema does; in the properties of a section, a key of that name is left alone."""
    if isinstance(schema, list):
        return [_bounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {
        _BOUNDS[key] if key in _BOUNDS and isinstance(each, int | float) else key: each for key, each in schema.items()
    }
    return {key: _bounded(each) for key, each in bare.items()}


def _reachable(schema: Any, sections: dict[str, Any]) -> dict[str, Any]:
    """Keep the definitions that are referred to, from `schema` on."""
    kept: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        for name in re.findall(r"'\$ref': '#/\$defs/([^']+)'", str(waiting.pop())):
            if name not in kept:
                kept[name] = sections[name]
                waiting.append(sections[name])
    return dict(sorted(kept.items()))
