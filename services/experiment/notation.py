"""The YAML that people write: numbers as in YAML 1.2, and no key twice."""

from __future__ import annotations

import re
from typing import Any

import yaml


def parse(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: it is malformed, or has a key twice.
        RecursionError: it is nested too deeply.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader


def write(content: Any) -> str:
    """Write what `parse` reads back equal."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


_SCIENTIFIC = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
"""`1e-3`, `1.5e3`: numbers to people and to YAML 1.2, texts to pyyaml, which follows YAML 1.1."""


class _Dumper(yaml.SafeDumper):
    """`SafeDumper` that quotes a text that `_Loader` would take for a number."""


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
