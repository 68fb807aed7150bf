"""The Python file of a user's own model: found, read and looked at, without running it.

Whatever can be said of it without TensorFlow is said here, by `fed check` and by a server that starts.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from services.errors import ExperimentError


@dataclass(frozen=True)
class Source:
    """A file that builds a model.

    Attributes:
        path: where it was read.
        text: its content.
        function: name of the function in it that builds the model.
    """

    path: Path
    text: str
    function: str

    @property
    def sha256(self) -> str:
        """SHA-256 of its content, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read(module: str, folder: Path) -> Source:
    """Read the file that `model.module` names, and see that it is Python and defines the function.

    Args:
        module: a file below `folder` and a function in it, as `my_model.py:build`.
        folder: MODELS.

    Raises:
        ExperimentError: the file is missing, no Python, or lacks the function.
    """
    name, _, function = module.rpartition(":")
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise ExperimentError(
            f"model.module is {module!r}, and {path} can't be read ({reason})",
            "a Python file in the folder MODELS",
            "correct model.module, or set MODELS to the folder that holds it",
        ) from exc
    names = _names(path, text)
    if function not in names:
        near = difflib.get_close_matches(function, names, n=1, cutoff=0.5)
        raise ExperimentError(
            f"{path} defines no {function!r}, which model.module names",
            f"a function of that name, as `def {function}(image_shape, classes):`",
            f"did you mean {near[0]!r}?" if near else "correct model.module, or add the function",
        )
    return Source(path, text, function)


def _names(path: Path, text: str) -> list[str]:
    """List what a file binds at its outermost level, as far as that shows without running it."""
    try:
        tree = ast.parse(text, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        if isinstance(exc, SyntaxError) and exc.lineno is not None:
            raise ExperimentError(f"{path}, line {exc.lineno}: {exc.msg}", "Python", "mend that line") from None
        raise ExperimentError(f"{path} can't be parsed ({exc})", "Python", "mend that file") from None
    names: list[str] = []
    for node in _outermost(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return names


def _outermost(body: list[ast.stmt]) -> list[ast.stmt]:
    """List the statements of a body, those below its conditions and `try` included."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            for handler in getattr(node, "handlers", []):
                inner += handler.body
            found += _outermost(inner)
    return found
