"""The passphrase of the CA's key: from a file or a terminal, long enough, and never from elsewhere."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.errors import UsageError
from services.kit import passphrase

LONG = "five words and some more"


def terminal(monkeypatch: pytest.MonkeyPatch, *answers: str | BaseException) -> None:
    """Stand for somebody at a terminal who types these."""
    typed: Iterator[str | BaseException] = iter(answers)

    def ask(_: str) -> str:
        answer = next(typed)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", ask)


@pytest.mark.parametrize("content", [LONG, f"{LONG}\n", f"{LONG}\r\n", f"{LONG}\nanother line\n"])
def test_it_is_the_first_line_of_a_file(tmp_path: Path, content: str) -> None:
    """A file's first line counts, without its end."""
    (tmp_path / "phrase").write_bytes(content.encode())
    assert passphrase.read(tmp_path / "phrase", new=True) == LONG.encode()


def test_it_may_have_any_letters(tmp_path: Path) -> None:
    """Blanks count, and letters of any alphabet."""
    (tmp_path / "phrase").write_text("  zwölf Wörter  \n", encoding="utf-8")
    assert passphrase.read(tmp_path / "phrase", new=True) == "  zwölf Wörter  ".encode()


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), (b"\xff\xfe", "not UTF-8 text")])
def test_a_file_that_can_t_be_read_is_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """The file and the reason are named."""
    path = tmp_path / "phrase"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        passphrase.read(path)
    assert str(caught.value) == f"{path} can't be read ({reason}); wanted a file that holds the passphrase"


@pytest.mark.parametrize("length", [0, 1, passphrase.SHORTEST - 1])
def test_a_new_one_is_not_short(tmp_path: Path, length: int) -> None:
    """A short passphrase is refused where it is chosen; where one is asked for, whether it opens is what counts."""
    (tmp_path / "phrase").write_text("x" * length)
    with pytest.raises(UsageError) as caught:
        passphrase.read(tmp_path / "phrase", new=True)
    assert str(caught.value) == (
        f"the passphrase has {length} characters; wanted at least 12; choose a longer one, as some words"
    )
    assert passphrase.read(tmp_path / "phrase") == b"x" * length


def test_a_new_one_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal a new passphrase is typed twice, another one once."""
    terminal(monkeypatch, LONG, LONG, "short")
    assert passphrase.read(None, new=True) == LONG.encode()
    assert passphrase.read(None) == b"short"


def test_two_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip of the hand would lock the CA's key for ever."""
    terminal(monkeypatch, LONG, LONG + "x")
    with pytest.raises(UsageError) as caught:
        passphrase.read(None, new=True)
    assert str(caught.value) == "the two differ; wanted the same passphrase twice; try again"


def test_the_end_of_input_is_no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D in place of an answer is one line."""
    terminal(monkeypatch, EOFError())
    with pytest.raises(UsageError) as caught:
        passphrase.read(None)
    assert str(caught.value) == "no passphrase was given; wanted that of the CA's key; try again"


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe the way out is named, and nothing is waited for."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UsageError) as caught:
        passphrase.read(None, new=True)
    assert str(caught.value) == (
        "there is no terminal to ask for the passphrase of the CA's key at; give it by --passphrase-file FILE"
    )
