"""The schema that editors read: it takes what `fed check` takes, and refuses what is no plan by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from services import cli, experiment
from services.experiment import Plan
from services.experiment.notation import parse
from services.experiment.schema import DRAFT, json_schema
from tests.experiment.test_broken import BROKEN
from tests.experiment.test_files import FILES, plans
from tests.support import logging_kept

SCHEMA = json_schema()

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}

_NOTES = {"$schema", "$defs", "title", "description", "default"}
"""Keywords that refuse nothing."""


def takes(value: Any, schema: dict[str, Any]) -> bool:
    """Tell whether `value` is what `schema` describes; a keyword that is not known here is a KeyError."""
    known: dict[str, Callable[[Any], bool]] = {
        "$ref": lambda to: takes(value, SCHEMA["$defs"][to.removeprefix("#/$defs/")]),
        "anyOf": lambda each: any(takes(value, one) for one in each),
        "oneOf": lambda each: sum(takes(value, one) for one in each) == 1,
        "const": lambda wanted: bool(value == wanted),
        "enum": lambda names: value in names,
        "type": lambda name: _TYPES[name](value),
        "minimum": lambda bound: bool(value >= bound),
        "maximum": lambda bound: bool(value <= bound),
        "exclusiveMinimum": lambda bound: bool(value > bound),
        "exclusiveMaximum": lambda bound: bool(value < bound),
        "minLength": lambda count: len(value) >= count,
        "minItems": lambda count: len(value) >= count,
        "maxItems": lambda count: len(value) <= count,
        "items": lambda one: all(takes(each, one) for each in value),
        "prefixItems": lambda each: all(map(takes, value, each)),
        "minProperties": lambda count: len(value) >= count,
        "maxProperties": lambda count: len(value) <= count,
        "required": lambda keys: set(keys) <= set(value),
        "properties": lambda below: all(takes(value[key], one) for key, one in below.items() if key in value),
        "additionalProperties": lambda other: all(
            other is not False and takes(each, other)
            for key, each in value.items()
            if key not in schema.get("properties", {})
        ),
    }
    words = sorted(schema.keys() - _NOTES, key=lambda word: word != "type")
    return all(known[word](schema[word]) for word in words)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_experiment_of_ours_is_taken(path: Path) -> None:
    """Each experiment file in the repository is one by the schema."""
    assert takes(parse(path.read_text(encoding="utf-8")), SCHEMA)


@settings(deadline=None, max_examples=50)
@given(plan=plans())
def test_every_plan_is_taken(plan: Plan) -> None:
    """Whatever plan is written out is one by the schema."""
    assert takes(yaml.safe_load(experiment.dump(plan)), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "model: cnn",
        "model: {preset: cnn}",
        "model: {module: 'my_model.py:build'}",
        "aggregator: sum",
        "aggregator: gma",
        "aggregator: {averaging: }",
        "aggregator: {averaging: {steps_weighted: false}}",
        "aggregator: {name: averaging, parameters: {steps_weighted: false}}",
        "aggregator: {parameters: {steps_weighted: false}}",
        "optimizer: {client: {modules: [adam, momentum: {beta: 0.5}, {name: ewma}, {name: yogi, parameters: {}}]}}",
        "optimizer: {client: {lrate: {warmup: {base: {linear-decay: {base: 1, rate: 0.1}}, warmup: 3}}}}",
        "optimizer: {client: {lrate: {warmup: {base: 0.1, warmup: 3}}}}",
        "sampling: {uniform: {n_samples: 2}}",
        "train: {steps: null}",
        "data: {dataset: own, label: 3}",
        "data: {dataset: own, label: class}",
    ],
)
def test_short_spellings_are_taken(text: str) -> None:
    """What a file may write in short, an editor takes too."""
    Plan.model_validate(yaml.safe_load(text))
    assert takes(yaml.safe_load(text), SCHEMA)


def broken() -> Iterator[tuple[str, str, Any]]:
    """Yield the broken files that are YAML: text, line and content."""
    for text, line in BROKEN:
        try:
            yield text, line, parse(text)
        except yaml.YAMLError:
            continue


def test_what_is_broken_is_refused() -> None:
    """Of the broken files an editor marks all but those whose keys are each right, and at odds with each other."""
    missed = [line for _, line, content in broken() if takes(content, SCHEMA)]
    assert len(missed) < 15
    assert [line for line in missed if "; wanted " in line] == []


def test_every_key_is_explained() -> None:
    """Each section says what it is, and each key of those with more than one says what it means."""
    assert SCHEMA["$schema"] == DRAFT
    sections = {name: each for name, each in SCHEMA["$defs"].items() if name[0].isupper() and "properties" in each}
    assert len(sections) > 8
    for name, each in sections.items():
        assert each["description"], name
        for key, described in each["properties"].items():
            assert "description" in described or "$ref" in described, f"{name}.{key}"


def test_the_command_prints_it(capfd: pytest.CaptureFixture[str]) -> None:
    """`fed check --schema` prints the schema as JSON, whatever file there is or is not."""
    with logging_kept():
        assert cli.main(["check", "--schema", "nowhere.yml"]) == 0
    assert json.loads(capfd.readouterr().out) == SCHEMA
