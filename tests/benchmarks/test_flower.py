"""Flower as a rival: its app and its versions; none of it is needed to test ours."""

from __future__ import annotations

import ast
import re
import tomllib

from benchmarks import flower
from tests.support import REPOSITORY


def test_the_app_names_what_is_there() -> None:
    """Both components that the app's pyproject.toml names are there, and its settings are those that a run gives."""
    app = tomllib.loads((flower.APP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    for name in app["components"].values():
        module, _, variable = name.partition(":")
        tree = ast.parse((flower.APP / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assigned = [ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)]
        assert variable in assigned
    assert set(app["config"]) == {"rounds", "clients", "folder"}
    assert app["config"]["clients"] == flower.CLIENTS


def test_its_tensorflow_is_ours() -> None:
    """Flower's environment has the TensorFlow, Keras and numpy that ours has."""

    def versions(name: str) -> dict[str, str]:
        text = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^(tensorflow-cpu|keras|numpy)==([\d.]+)", text, re.MULTILINE))

    assert len(versions("flower.txt")) == 3
    assert versions("flower.txt") == versions("runtime.txt")
