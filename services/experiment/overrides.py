"""Values that stand in place of an experiment file's: `--set`, `SET`, and the flags and variables of single keys.

Each is kept with the words that a person wrote, so that a mistake in it is told as theirs and not as the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from services.errors import ExperimentError
from services.experiment.data import PARAMETERS
from services.experiment.model import ALTERNATIVES
from services.experiment.notation import parse
from services.experiment.plan import Plan

BRACKETS = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Override:
    """One value in place of the file's.

    Attributes:
        key: path of keys, from the plan on.
        value: as YAML would read it.
        source: the words that gave it, as `--set rounds=3` or `ROUNDS=3`.
    """

    key: tuple[str, ...]
    value: Any
    source: str

    @classmethod
    def of(cls, key: str, value: Any, source: str) -> Override:
        """Make an override of a dotted key."""
        return cls(tuple(key.split(".")), value, source)


def read(assignment: str, origin: str) -> Override:
    """Read `key=value`.

    Args:
        assignment: such as `optimizer.client.modules=[adam]`; the value is read as YAML.
        origin: where it was given: `--set` or `SET`.

    Raises:
        ExperimentError: there is no key, or the value is no YAML.
    """
    source = f"{origin} {assignment}"
    key, sign, text = assignment.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not sign or not all(path):
        raise ExperimentError(source, "KEY=VALUE, as in optimizer.client.lrate=0.01", f"correct {origin}")
    try:
        return Override(path, parse(text), source)
    except (yaml.YAMLError, RecursionError) as exc:
        problem = getattr(exc, "problem", None) or "nested too deeply"
        raise ExperimentError(f"{source}: {problem}", "a value in YAML", f"correct {origin}") from None


def split(text: str, separators: str) -> Iterator[str]:
    """Split `text` where a character of `separators` stands outside of brackets and quotes; empty parts go."""
    part, closing, quote = "", [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in BRACKETS:
            closing.append(BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character in separators and not closing:
            if part:
                yield part
            part = ""
            continue
        part += character
    if part:
        yield part


def apply(content: Mapping[str, Any], overrides: Sequence[Override]) -> tuple[dict[str, Any], list[ExperimentError]]:
    """Put the overrides into a file's content, each over those before it; neither is changed.

    What a file may write as a name, as a plug-in, is written out where a key below it is given. A scheme takes the
    place of the file's own together with that one's parameters, and a model the place of another kind of model.

    Returns:
        The content, and what is wrong with those overrides for which there is no place: the file has something else
        than keys there. That may be the file's mistake, or the override's.
    """
    changed, misplaced = dict(content), []
    given = {override.key for override in overrides}
    for override in overrides:
        try:
            changed = _put(changed, override.key, override, Plan)
        except ExperimentError as exc:
            misplaced.append(exc)
            continue
        section = changed.get(override.key[0])
        if isinstance(section, dict):
            idle = {key for key in _displaced(override) if (override.key[0], key) not in given}
            changed[override.key[0]] = {key: value for key, value in section.items() if key not in idle}
    return changed, misplaced


def _displaced(override: Override) -> set[str]:
    """Name the keys beside an override's own that do not count with it."""
    match override.key:
        case ("data", "scheme"):
            return {key for key, scheme in PARAMETERS.items() if scheme != override.value}
        case ("model", key) if key in ALTERNATIVES and override.value is not None:
            return {*ALTERNATIVES} - {key}
    return set()


def _put(
    section: Mapping[str, Any], key: tuple[str, ...], override: Override, model: type[BaseModel] | None
) -> dict[str, Any]:
    """Put the override's value at `key` in `section`, which `model` describes where that is known."""
    first, *rest = key
    if not rest:
        return {**section, first: override.value}
    field = None if model is None else model.model_fields.get(first)
    below, optional, spelt = (None, False, []) if field is None else _described(field)
    inner = section.get(first, {})
    if inner is None and optional:
        inner = {}
    for written_out in spelt:
        inner = written_out(inner)
    if not isinstance(inner, dict):
        place = ".".join(override.key[: len(override.key) - len(rest)])
        raise ExperimentError(f"{override.source}: {place} has no keys", f"{place} as a whole", f"set {place} itself")
    return {**section, first: _put(inner, tuple(rest), override, below)}


def _described(field: FieldInfo) -> tuple[type[BaseModel] | None, bool, list[Callable[[Any], Any]]]:
    """Tell which section a field holds, whether it may be null, and what writes out its short spellings."""
    kinds: list[Any] = [field.annotation]
    if get_origin(field.annotation) in {Union, UnionType}:
        kinds = list(get_args(field.annotation))
    found = [*field.metadata]
    below = None
    for kind in kinds:
        if get_origin(kind) is Annotated:
            found += kind.__metadata__
        plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            below = plain
    # ours take the value alone
    spelt = [cast("Callable[[Any], Any]", each.func) for each in found if isinstance(each, BeforeValidator)]
    return below, type(None) in kinds, spelt


def origin(location: Sequence[str], content: Mapping[str, Any], overrides: Sequence[Override]) -> Override | None:
    """Tell which override the value at `location` comes from; None: from the file.

    Args:
        location: path of keys and, in lists, of numbers.
        content: of the file.
        overrides: the weakest first.
    """
    place = tuple(location)
    for override in reversed(overrides):
        if place[: len(override.key)] == override.key:
            return override
        if override.key[: len(place)] == place and not _holds(content, place):
            return override
    return None


def _holds(content: Any, place: Sequence[str]) -> bool:
    for part in place:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True
