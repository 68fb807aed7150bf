"""The command line of `fed kit`: what each subcommand takes and hands on, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import cli
from services.kit import arguments, main
from services.kit.manifest import fingerprint
from tests.kit.conftest import PHRASE, Operator
from tests.support import REPOSITORY, logging_kept

COMMANDS = ("init", "site", "renew", "revoke", "list", "verify", "check", "secagg")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, with an experiment and a passphrase in it."""
    for key in ("DATA", "EXPERIMENT", "LOG_FORMAT", "SERVER_HEADERS"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("experiment.yml").write_text("rounds: 2\n")
    Path("phrase").write_text(PHRASE)
    with logging_kept():
        yield tmp_path / "here"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record what the functions behind the subcommands are called with."""
    made: list[tuple[Any, ...]] = []

    def recorder(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> list[str]:
            made.append((name, *args, *kwargs.items()))
            return ["a line", "and another"]

        return call

    for name in ("init", "site", "renew", "revoke", "listed", "verified", "checked", "secagg"):
        monkeypatch.setattr(main, name, recorder(name))
    return made


def test_help_lists_every_subcommand(capfd: pytest.CaptureFixture[str]) -> None:
    """`fed kit --help` names each subcommand, and whose it is."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["kit", "--help"])
    assert caught.value.code == 0
    found = re.findall(r"^    (\w+) +(Operator|Site): ", capfd.readouterr().out, re.MULTILINE)
    assert tuple(name for name, _ in found) == COMMANDS
    assert [role for _, role in found] == ["Operator"] * 5 + ["Site"] * 3


def test_every_subcommand_is_documented() -> None:
    """The page on sites names each subcommand, and each flag in it is one; no page names one that is not there."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs").glob("*.md")}
    assert set(re.findall(r"fed kit (\w+)", "".join(pages.values()))) == set(COMMANDS)
    assert set(re.findall(r"fed kit (\w+)", pages["sites.md"])) == set(COMMANDS)
    declared = set(re.findall(r'"(--[a-z-]+)"', Path(arguments.__file__).read_text(encoding="utf-8")))
    others = {"--data-only", "--kit", "--force-recreate", "--rm", "--user"}
    assert set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", pages["sites.md"])) - others == declared - {"--folder"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_subcommand_has_help(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Help describes each argument, and shows no default of nothing."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["kit", command, "--help"])
    assert caught.value.code == 0
    text = capfd.readouterr().out
    assert text.startswith(f"usage: fed kit {command} [-h]")
    assert not re.search(r"default: *(None|False|True|\[\])", text)


def test_init_takes_all_that_a_federation_is(calls: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str]) -> None:
    """Each flag arrives as what it means, and what the function tells is printed."""
    words = "--server fl:443 --host a --host b --server-name c --shape 28,28,3 --classes cat,dog --days 30"
    code = cli.main([
        "kit", "init", *words.split(), "--header", "X-A: 1", "--header", "X-B: 2", "--folder", "f",
        "--experiment", "other.yml", "--passphrase-file", "phrase",
    ])  # fmt: skip
    assert code == 0
    asked = main.Asked("fl:443", ["a", "b"], "c", {"X-A": "1", "X-B": "2"}, (28, 28, 3), ("cat", "dog"), 30)
    assert calls == [("init", Path("f"), asked, Path("other.yml"), Path("phrase"))]
    assert capfd.readouterr().out == "a line\nand another\n"


def test_init_needs_a_server_alone(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """All else has a default: certificates of a year, the environment's experiment, the passphrase from a terminal."""
    monkeypatch.setenv("EXPERIMENT", "mine.yml")
    assert cli.main(["kit", "init", "--server", "fl"]) == 0
    asked = main.Asked("fl", [], None, {}, None, None, arguments.DAYS)
    assert calls == [("init", Path("federation"), asked, Path("mine.yml"), None)]
    assert arguments.DAYS == 365


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("site north", ("site", Path("federation"), "north", None)),
        ("site north --folder f --passphrase-file p", ("site", Path("f"), "north", Path("p"))),
        ("renew a server", ("renew", Path("federation"), ["a", "server"], None, ("revoking", False))),
        ("renew a --revoke", ("renew", Path("federation"), ["a"], None, ("revoking", True))),
        ("revoke a b --folder f", ("revoke", Path("f"), ["a", "b"])),
        ("list", ("listed", Path("federation"))),
        ("verify k", ("verified", Path("k"), None)),
        ("verify k.tar.gz --fingerprint A:B", ("verified", Path("k.tar.gz"), "A:B")),
        ("check k", ("checked", Path("k"), None)),
        ("secagg k", ("secagg", Path("k"))),
    ],
)
def test_each_subcommand_hands_on_what_it_takes(
    calls: list[tuple[Any, ...]], words: str, call: tuple[Any, ...]
) -> None:
    """What is typed arrives where it belongs."""
    assert cli.main(["kit", *words.split()]) == 0
    assert calls == [call]


def test_check_looks_where_data_are_set(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA is the folder of a site's data, as for its client."""
    monkeypatch.setenv("DATA", "/srv/data")
    assert cli.main(["kit", "check", "k"]) == 0
    assert calls == [("checked", Path("k"), Path("/srv/data"))]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("init", "the following arguments are required: --server"),
        (
            "init --server x --shape 0,28",
            "argument --shape: '0,28' is no shape of an example, as 28,28 or 32,32,3 or 13",
        ),
        ("init --server x --shape 1,2,3,4", "argument --shape: '1,2,3,4' is no shape of an example"),
        ("init --server x --shape a", "argument --shape: 'a' is no shape of an example"),
        ("init --server x --classes a", "argument --classes: 'a' is no list of classes, as cat,dog"),
        ("init --server x --classes a,a", "argument --classes: 'a,a' is no list of classes, as cat,dog"),
        ("init --server x --classes a,,b", "argument --classes: 'a,,b' is no list of classes, as cat,dog"),
        ("init --server x --days 0", "argument --days: '0' is no whole number from 1 to 3650"),
        ("init --server x --days 3651", "argument --days: '3651' is no whole number from 1 to 3650"),
        ("init --server x --header X", "--header has 'X'; wanted headers as 'Name: value', in ASCII"),
        ("init --server x --fold f", "unrecognized arguments: --fold f"),
        ("init --server ws://x", "the server's address is 'ws://x'; wanted HOST, HOST:PORT or wss://HOST:PORT/PATH;"),
        ("init --server x:0", "the server's address is 'x:0'; wanted HOST, HOST:PORT or wss://HOST:PORT/PATH;"),
        ("site", "the following arguments are required: NAME"),
        ("renew", "the following arguments are required: NAME"),
        ("verify", "the following arguments are required: KIT"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(words: str, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A flag that is missing or wrong is said in one line, and nothing is made."""
    assert cli.main(["kit", *words.split()]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert line in err
    assert not Path("federation").exists()


def test_a_federation_from_the_first_command_to_the_last(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An operator makes, adds, renews, revokes and lists; a site verifies; each failure has its code and one line."""
    phrase = ("--passphrase-file", "phrase")

    def said(code: int, *words: str) -> str:
        assert cli.main(["kit", *words]) == code
        out, err = capfd.readouterr()
        assert bool(err) == bool(code)
        assert err.count("\n") == (1 if code else 0)
        return out + err

    told = fingerprint_in(said(0, "init", "--server", "fl.example.org", *phrase))
    assert told == fingerprint(Operator(here).federation.ca)
    said(7, "init", "--server", "fl.example.org", *phrase)
    said(0, "site", "north", *phrase)
    said(7, "site", "north", *phrase)
    said(2, "site", "server", *phrase)
    said(2, "site", "west")
    said(0, "verify", "federation/sites/north", "--fingerprint", told)
    said(0, "verify", "federation/sites/north.tar.gz", "--fingerprint", told)
    said(4, "verify", "federation/sites/north", "--fingerprint", told[::-1])
    said(4, "verify", "federation")
    said(3, "check", "federation/sites/north")
    said(4, "check", "federation/sites/north.tar.gz")
    said(0, "secagg", "federation/sites/north")
    said(0, "renew", "north", "server", *phrase)
    said(2, "renew", "west", *phrase)
    said(2, "renew", "server", "--revoke", *phrase)
    said(2, "revoke", "west")
    said(2, "revoke", "server")
    said(0, "revoke", "north")
    assert re.search(r"^north +revoked ", said(0, "list"), re.MULTILINE)
    Path("phrase").write_text("another passphrase")
    said(4, "site", "west", *phrase)
    Path("federation/federation.json").write_text("{")
    said(4, "list")


def fingerprint_in(text: str) -> str:
    """Find the fingerprint in what `fed kit init` has told."""
    found = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", text)
    return found[0] if found else ""
