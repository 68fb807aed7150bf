"""Which test file holds which source file: tests/ mirrors services/, and each exception has its reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import REPOSITORY

ELSEWHERE = {
    "__init__.py": "tests/test_cli.py: the version is what `fed --version` tells",
    "__main__.py": "tests/test_cli.py: `python -m services` is started there",
    "certificates.py": "tests/init/test_identities.py: what is issued there is held against real handshakes",
    "experiment/__init__.py": "tests/experiment/test_files.py: its names are used as everybody uses them",
    "experiment/algorithm.py": "tests/experiment/test_plugins.py: it is its plug-ins that must be declearn's",
    "experiment/base.py": "tests/experiment/test_files.py: what sections are made of shows in what they refuse",
    "experiment/data.py": "tests/experiment/test_files.py: a section is tested as a part of a file",
    "experiment/flat.py": "tests/test_compare.py: a plan's cells are those of a table of runs",
    "experiment/mistakes.py": "tests/experiment/test_files.py: a mistake is one in a file",
    "experiment/model.py": "tests/experiment/test_files.py: a section is tested as a part of a file",
    "experiment/notation.py": "tests/experiment/test_files.py: YAML is what a file is in",
    "experiment/privacy.py": "tests/experiment/test_files.py: a section is tested as a part of a file",
    "experiment/plan.py": "tests/experiment/test_files.py: a section is tested as a part of a file",
    "server/engines/__init__.py": "tests/server/engines/test_sklearn.py: a plan's engine alone is imported",
    "transport/client.py": "tests/transport/test_endpoints.py: both ends meet there",
    "transport/server.py": "tests/transport/test_endpoints.py: both ends meet there",
    "transport/messages.py": "tests/server/test_federation.py: seats are dealt there",
    "server/attendance.py": "tests/server/test_federation.py: clients that come, go and are dealt to",
    "experiment/methods.py": "tests/test_registry.py: its plug-ins are declearn's; its sections are tested in files",
    "server/boundary.py": "tests/server/test_federation.py: who takes part shows in whole runs",
    "server/main.py": "tests/server/test_federation.py: whole runs, from start to results",
    "client/main.py": "tests/server/test_federation.py: sessions of real clients",
    "client/secagg.py": "tests/server/test_secagg.py: a set-up takes both ends; its keys are read in tests/init",
}
"""Source files that are tested in a file of another name, and why."""

BESIDE = {
    "experiment/test_broken.py": "files of all kinds of mistakes, through the command",
    "report/test_browser.py": "the report, as a browser shows it",
    "test_docs.py": "the pages in docs/",
    "test_fuzz.py": "all that reads messages of peers, by tests/fuzz.py",
    "test_imports.py": "the rule of imports",
    "test_interoperation.py": "server and client, each with declearn's own at the other end",
    "test_map.py": "this",
    "test_registry.py": "services/experiment against declearn's registries",
    "terminal/test_roles.py": "the views of init, server and client, beside one another",
    "transport/test_endpoints.py": "transport/client.py and transport/server.py",
}
"""Test files that are named after no source file, and what they test."""


def files(folder: str, pattern: str) -> set[str]:
    """List the files below `folder`, but for packages that hold nothing but their docstring."""
    root = REPOSITORY / folder
    return {path.relative_to(root).as_posix() for path in root.rglob(pattern) if len(body(path)) > 1}


def body(path: Path) -> list[ast.stmt]:
    """Parse a file and list its statements."""
    return ast.parse(path.read_text(encoding="utf-8")).body


def mirror(source: str) -> str:
    """Name the test file that mirrors a source file."""
    return (Path(source).parent / f"test_{Path(source).name}").as_posix()


OTHER = ("benchmarks/", "script/", "compose/", "deploy/", "faults/", "lab/")
"""Rooms of tests that mirror no source files: they test what stands beside services/, or whole runs."""

SOURCES = files("services", "*.py")
TESTS = {name for name in files("tests", "test_*.py") if not name.startswith(OTHER)}


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_source_file_has_its_tests(source: str) -> None:
    """A source file has the test file that mirrors it, or a reason that names another, and never both."""
    mirrored = mirror(source) in TESTS
    assert mirrored != (source in ELSEWHERE)
    if not mirrored:
        assert (REPOSITORY / ELSEWHERE[source].split(":")[0]).is_file()


def test_every_test_file_has_its_source() -> None:
    """A test file mirrors a source file, or is listed with what it tests; nothing is listed that is not there."""
    assert TESTS - {mirror(source) for source in SOURCES} == set(BESIDE)
    assert set(ELSEWHERE) <= SOURCES


@pytest.mark.parametrize("path", sorted(TESTS))
def test_every_test_says_what_it_proves(path: str) -> None:
    """Each test file and each test in it has a docstring, and no test waits by sleeping."""
    tree = ast.parse((REPOSITORY / "tests" / path).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}:
            raise AssertionError(f"{path}:{node.lineno} sleeps")
