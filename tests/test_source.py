"""The file of a user's own model as `fed check` sees it: read and looked at, never run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from services import source
from services.errors import ExperimentError


def refusal(folder: Path, text: str | bytes, module: str = "m.py:build") -> str:
    """Read a file of `text`, which must be refused, and give its line without the folder's name."""
    (folder / "m.py").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ExperimentError) as caught:
        source.read(module, folder)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    "text",
    [
        "def build(image_shape, classes): ...",
        "try:\n    import x\nexcept ImportError:\n    pass\nelse:\n    def build(): ...",
        "if 1:\n    from a.b import c as build",
        "build = other = make()",
        "build: object = partial(f, 3)",
        "def build(): ...\nraise SystemExit('this is run by nobody')",
    ],
)
def test_a_file_that_binds_the_name_is_read(tmp_path: Path, text: str) -> None:
    """However the function comes by its name, the file is read with its digest, and is not run."""
    (tmp_path / "m.py").write_text(text, encoding="utf-8")
    read = source.read("m.py:build", tmp_path)
    assert (read.path, read.text, read.function) == (tmp_path / "m.py", text, "build")
    assert read.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "module", "line"),
    [
        (
            "",
            "n.py:build",
            (
                "model.module is 'n.py:build', and n.py can't be read (No such file or directory);"
                " wanted a Python file in the folder MODELS;"
                " correct model.module, or set MODELS to the folder that holds it"
            ),
        ),
        (
            b"\xff",
            "m.py:build",
            (
                "model.module is 'm.py:build', and m.py can't be read (not UTF-8 text);"
                " wanted a Python file in the folder MODELS;"
                " correct model.module, or set MODELS to the folder that holds it"
            ),
        ),
        ("x = 1\ndef build(:\n", "m.py:build", "m.py, line 2: invalid syntax; wanted Python; mend that line"),
        (
            "x = 1\x00",
            "m.py:build",
            "m.py can't be parsed (source code string cannot contain null bytes); wanted Python; mend that file",
        ),
        (
            "def bild(): ...",
            "m.py:build",
            (
                "m.py defines no 'build', which model.module names; wanted a function of that name,"
                " as `def build(image_shape, classes):`; did you mean 'bild'?"
            ),
        ),
        (
            "def f():\n    def build(): ...",
            "m.py:build",
            (
                "m.py defines no 'build', which model.module names; wanted a function of that name,"
                " as `def build(image_shape, classes):`; correct model.module, or add the function"
            ),
        ),
    ],
)
def test_a_file_that_can_not_be_used_is_refused(tmp_path: Path, text: str | bytes, module: str, line: str) -> None:
    """A file that is missing, no Python, or lacks the function is named with what was wanted."""
    assert refusal(tmp_path, text, module) == line
