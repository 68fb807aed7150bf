"""Who may import whom: errors, then settings and files, then the transport, then the roles; roles never each other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import REPOSITORY

RANKS = {
    "architecture": 0,
    "errors": 0,
    "engine": 0,
    "settings": 1,
    "experiment": 1,
    "paths": 1,
    "privileges": 1,
    "source": 1,
    "logs": 1,
    "wording": 0,
    "signals": 1,
    "randomness": 1,
    "accounting": 2,
    "certificates": 2,
    "shards": 2,
    "schedules": 2,
    "tables": 2,
    "distribution": 3,
    "readers": 3,
    "linear": 3,
    "runs": 3,
    "transport": 3,
    "report": 4,
    "terminal": 4,
    "init": 5,
    "server": 5,
    "client": 5,
    "demo": 5,
    "compare": 5,
    "kit": 6,
    "predict": 6,
    "sweep": 6,
    "cli": 7,
    "__main__": 8,
}
"""Units of the package; each may import units of a lower rank, and itself."""

FILES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((REPOSITORY / "services").rglob("*.py"))
}

HEAVY = ("tensorflow", "keras", "torch", "declearn.model.tensorflow")


def imported(module: str) -> Iterator[str]:
    """Yield the full names of what `module` imports, wherever in it, for types alone too."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in FILES or (base == "services" and full != "services.__version__") else base


def unit(module: str) -> str | None:
    """Tell which unit a module of ours is in; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def ours(module: str) -> set[str]:
    """Tell the modules of ours that `module` imports."""
    return {name for name in imported(module) if name == "services" or name.startswith("services.")}


def test_every_unit_has_a_rank() -> None:
    """No module stands outside the rule, and none is ranked that is not there."""
    assert {unit(module) for module in FILES} - {None} == RANKS.keys()


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downwards(module: str) -> None:
    """A module imports its own unit and lower ones, never one beside or above it: so roles never import each other."""
    here = unit(module)
    if here is None:
        assert ours(module) == set()
        return
    there = {other for name in ours(module) if (other := unit(name)) is not None and other != here}
    assert {other for other in there if RANKS[other] >= RANKS[here]} == set()


def reachable(module: str) -> set[str]:
    """Collect what `module` imports, and what the modules of ours among that import."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for name in imported(waiting.pop()):
            if name not in seen:
                seen.add(name)
                waiting += [name] if name in FILES else []
    return seen


@pytest.mark.parametrize("module", [name for name in FILES if unit(name) == "init"])
def test_init_names_no_tensorflow(module: str) -> None:
    """Nothing that init imports, itself or through modules of ours, at once or later, is TensorFlow or rests on it."""
    heavy = {name for name in reachable(module) if any(name == h or name.startswith(f"{h}.") for h in HEAVY)}
    assert heavy == set()


def loaded_after(*modules: str) -> set[str]:
    """Import `modules` in a new process and tell all that are loaded then."""
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps([*sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return set(json.loads(result.stdout))


def test_init_loads_no_tensorflow() -> None:
    """Importing all that init imports, at once or later, loads no TensorFlow in a process."""
    modules = {name for module in FILES if unit(module) == "init" for name in (module, *reachable(module))}
    loaded = loaded_after(*sorted(modules))
    assert "services.init.main" in loaded
    assert loaded & set(HEAVY) == set()


def test_the_command_loads_next_to_nothing() -> None:
    """`fed --help` and `fed check` wait for neither TensorFlow nor declearn."""
    loaded = loaded_after("services.cli")
    assert loaded & {*HEAVY, "declearn", "numpy", "matplotlib", "websockets", "uvicorn"} == set()


def test_the_health_check_loads_next_to_nothing() -> None:
    """What the container runs every few seconds imports the settings and errors, and nothing that is installed."""
    loaded = loaded_after("services.server.healthcheck")
    assert {name for name in loaded if name.startswith("services.")} == {
        "services.errors",
        "services.settings",
        "services.server",
        "services.server.healthcheck",
    }
    assert loaded & {*HEAVY, "declearn", "numpy", "pydantic", "yaml"} == set()
