"""The tree of errors: their codes, their one line, and that every code is explained to whoever meets it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import services
from services import errors
from services.errors import DataError, ExperimentError, FedError, UsageError
from tests.support import REPOSITORY

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FedError)]
CODES = {kind.exit_code: kind for kind in FedError.__subclasses__() if kind.__module__ == errors.__name__}


def subclasses(kind: type[FedError]) -> set[type[FedError]]:
    """Give all classes below `kind`, at any depth."""
    return {below for child in kind.__subclasses__() for below in (child, *subclasses(child))}


def test_each_kind_has_a_code_of_its_own() -> None:
    """Every direct kind of failure has an exit code that no other has, and none is that of success or of a bug."""
    kinds = [kind for kind in FedError.__subclasses__() if kind.__module__ == errors.__name__]
    assert sorted(kind.exit_code for kind in kinds) == list(range(2, 2 + len(kinds)))
    assert FedError.exit_code == 1


def test_a_finer_kind_ends_with_the_code_of_its_kind() -> None:
    """Whatever a module derives, its class ends with a code of the tree."""
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert ExperimentError.exit_code == UsageError.exit_code
    assert {kind.exit_code for kind in subclasses(FedError)} <= {FedError.exit_code, *CODES}


def test_the_module_draws_the_tree_it_holds() -> None:
    """The picture at the head of the module names each direct kind with its code, and its finer kinds below."""
    drawn = dict(re.findall(r"^[├└]── (\w+) +(\d+) ", errors.__doc__ or "", re.MULTILINE))
    assert drawn == {kind.__name__: str(code) for code, kind in CODES.items()}
    finer = {kind.__name__ for kind in TREE if kind is not FedError and kind not in CODES.values()}
    assert set(re.findall(r"^│ +[├└]── (\w+)$", errors.__doc__ or "", re.MULTILINE)) == finer


def test_every_code_is_explained() -> None:
    """The table in docs/operating.md has one row a code, from 0 on, each with a meaning and something to do."""
    text = (REPOSITORY / "docs" / "operating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert [int(code) for code, _, _ in rows] == [0, 1, *sorted(CODES)]
    assert all(meaning.strip() and remedy.strip() for _, meaning, remedy in rows)


def test_scripts_end_with_the_same_codes() -> None:
    """The codes that scripts export are those of the kinds they are named after."""
    text = (REPOSITORY / "script" / "lib.sh").read_text(encoding="utf-8")
    exported = {name: int(code) for name, code in re.findall(r"\bEXIT_([A-Z]+)=(\d+)", text)}
    assert exported
    assert exported == {name: getattr(errors, f"{name.capitalize()}Error").exit_code for name in exported}


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (("port 1 is taken", "a free port", "choose another"), "port 1 is taken; wanted a free port; choose another"),
        (("port 1 is taken", "", "choose another"), "port 1 is taken; choose another"),
        (("port 1 is taken", "a free port", ""), "port 1 is taken; wanted a free port"),
        (("port 1 is taken",), "port 1 is taken"),
    ],
)
def test_an_error_words_itself_in_one_line(facts: tuple[str, ...], line: str) -> None:
    """The line says what was found, what was wanted and what to do, and leaves out what is empty."""
    error = DataError(*facts)
    assert str(error) == line
    assert (error.found, error.wanted, error.remedy) == (*facts, "", "")[:3]
