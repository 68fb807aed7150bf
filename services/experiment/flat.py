"""A plan, or what `summary.json` has of one, as dotted keys with values that fit into a cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted key; a plug-in counts as one value, with what it is given."""
    for key, value in content.items():
        if isinstance(value, dict) and not _is_plugin(value):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def told(value: Any) -> str:
    """Write a value in short: a plug-in as its name with what it is given."""
    if _is_plugin(value):
        given = ", ".join(f"{key}={told(each)}" for key, each in value["parameters"].items())
        return f"{value['name']}({given})" if given else str(value["name"])
    if isinstance(value, list):
        return f"[{', '.join(map(told, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {told(each)}' for key, each in value.items())}}}"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_plugin(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"name", "parameters"}
