"""The environment as settings: defaults, ranges, and who reads it."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services import settings
from services.errors import UsageError
from services.paths import Paths
from services.settings import Settings
from tests.support import REPOSITORY


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing set, and everything set to nothing or to blanks, both give the defaults."""
    keys = ("CLIENTS", "MAX_CLIENTS", "EXPERIMENT", "SCHEME", "SEED", "ROUNDS", "HOST", "PORT", "STATUS_PORT")
    assert settings.load({}) == Settings()
    assert settings.load(dict.fromkeys(keys, "")) == Settings()
    assert settings.load(dict.fromkeys(keys, "  ")) == Settings()


@pytest.mark.parametrize(
    ("key", "text", "changes"),
    [
        ("CLIENTS", "5", {"clients": 5}),
        ("MAX_CLIENTS", "64", {"max_clients": 64}),
        ("EXPERIMENT", "experiments/x.yml", {"experiment": Path("experiments/x.yml")}),
        ("SCHEME", "labels", {"scheme": "labels"}),
        ("SEED", "0", {"seed": 0}),
        ("SEED", " 7 ", {"seed": 7}),
        ("ROUNDS", "9", {"rounds": 9}),
        ("SET", "rounds=9 seed=1", {"set": "rounds=9 seed=1"}),
        ("HOST", "192.0.2.1", {"host": "192.0.2.1"}),
        ("PORT", "9000", {"port": 9000}),
        ("STATUS_PORT", "0", {"status_port": 0}),
        ("SERVER_URI", "wss://server:1", {"server_uri": "wss://server:1"}),
        ("SERVER_NAME", "federation.example.org", {"server_name": "federation.example.org"}),
        ("SERVER_HEADERS", "X-Site: a; Host: b:1", {"server_headers": {"X-Site": "a", "Host": "b:1"}}),
        ("SERVER_PROXY", "http://proxy:3128", {"server_proxy": "http://proxy:3128"}),
        ("CONNECT_TIMEOUT", "3", {"connect_timeout": 3}),
        ("DENYLIST", "deny", {"denylist": Path("deny")}),
        ("CLIENT_NAME", "client_9", {"client_name": "client_9"}),
        ("MODELS", "models", {"models": Path("models")}),
        ("MAX_PARAMETERS", "1000", {"max_parameters": 1000}),
        ("SHARE_METRICS", "0", {"share_metrics": False}),
        ("SHARE_METRICS", "1", {"share_metrics": True}),
        ("FED_ROOT", "/fed", {"root": Path("/fed")}),
    ],
)
def test_each_key_sets_its_field(key: str, text: str, changes: dict[str, Any]) -> None:
    """Each key changes its own field, and no other."""
    assert settings.load({key: text}) == dataclasses.replace(Settings(), **changes)


def test_every_field_has_a_key() -> None:
    """No setting is out of an operator's reach."""
    source = Path(settings.__file__).read_text(encoding="utf-8")
    keys = re.findall(r'_(?:integer|text)\(env, "([A-Z_]+)"', source)
    fields = {"FED_ROOT" if field.name == "root" else field.name.upper() for field in dataclasses.fields(Settings)}
    assert set(keys) == fields


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("CLIENTS", "0", "a whole number of at least 1"),
        ("CLIENTS", "three", "a whole number of at least 1"),
        ("CLIENTS", "2.5", "a whole number of at least 1"),
        ("CLIENTS", "-1", "a whole number of at least 1"),
        ("MAX_CLIENTS", "0", "a whole number from 1 to 128"),
        ("MAX_CLIENTS", "129", "a whole number from 1 to 128"),
        ("SEED", "-1", "a whole number from 0 to 4294967295"),
        ("SEED", "4294967296", "a whole number from 0 to 4294967295"),
        ("ROUNDS", "0", "a whole number of at least 1"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "65536", "a whole number from 1 to 65535"),
        ("STATUS_PORT", "-1", "a whole number from 0 to 65535"),
        ("STATUS_PORT", "65536", "a whole number from 0 to 65535"),
        ("CONNECT_TIMEOUT", "0", "a whole number of at least 1"),
        ("MAX_PARAMETERS", "0", "a whole number of at least 1"),
        ("SHARE_METRICS", "2", "a whole number from 0 to 1"),
        ("SHARE_METRICS", "no", "a whole number from 0 to 1"),
    ],
)
def test_what_is_out_of_range_is_refused(key: str, text: str, wanted: str) -> None:
    """The line names key, value and range, and where to change it."""
    with pytest.raises(UsageError) as caught:
        settings.load({key: text})
    assert str(caught.value) == f"{key} is {text!r}; wanted {wanted}; change {key} in .env or in the environment"


@pytest.mark.parametrize("text", ["X-Site", "X Site: a", ": a", "X-Site: ä", "X-Site: a\nX-Key: b"])
def test_headers_that_are_none_are_refused(text: str) -> None:
    """What is no header, or would smuggle in another one, is named as it is."""
    with pytest.raises(UsageError) as caught:
        settings.load({"SERVER_HEADERS": f"X-First: 1; {text}"})
    assert str(caught.value) == (
        f"SERVER_HEADERS has {text!r}; wanted headers as 'Name: value', in ASCII, with semicolons between them;"
        " correct SERVER_HEADERS"
    )


@pytest.mark.parametrize("read", [settings.log_format, settings.load])
def test_a_format_of_log_lines_that_is_none_is_refused(read: Callable[[Mapping[str, str]], object]) -> None:
    """The line names the value and both formats."""
    with pytest.raises(UsageError) as caught:
        read({"LOG_FORMAT": "xml"})
    assert str(caught.value) == (
        "LOG_FORMAT is 'xml'; wanted text or json; change LOG_FORMAT in .env or in the environment"
    )
    assert [settings.log_format({"LOG_FORMAT": text}) for text in ("", "text", "json")] == ["text", "text", "json"]


def test_more_clients_than_prepared_for_are_refused() -> None:
    """CLIENTS above MAX_CLIENTS names both and both ways out; as many are accepted."""
    with pytest.raises(UsageError) as caught:
        settings.load({"CLIENTS": "5", "MAX_CLIENTS": "4"})
    assert str(caught.value) == (
        "CLIENTS is 5; wanted a whole number from 1 to MAX_CLIENTS (4); change CLIENTS, or raise MAX_CLIENTS, in .env"
    )
    assert settings.load({"CLIENTS": "4", "MAX_CLIENTS": "4"}).clients == 4


def test_settings_are_fixed_once_read() -> None:
    """Settings can't be changed behind the back of who was given them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.load({}).clients = 4  # type: ignore[misc]


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own environment counts."""
    monkeypatch.setenv("CLIENTS", "2")
    assert settings.load().clients == 2


def test_env_file_states_the_defaults() -> None:
    """What `.env` sets for `fed` is what `fed` takes when nothing is set; DATA is where MNIST is then."""
    lines = (REPOSITORY / ".env").read_text(encoding="utf-8").splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    loaded = settings.load(pairs)
    assert loaded.data == Paths(Path()).raw
    assert dataclasses.replace(loaded, data=None) == Settings()


def test_no_other_module_reads_the_environment() -> None:
    """Only services/settings.py reads `os.environ`; others set what libraries read, or hand it on whole."""
    readers = {}
    for path in sorted((REPOSITORY / "services").rglob("*.py")):
        lines = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Subscript | ast.Compare) else ""
            if text.startswith(("os.environ.get(", "os.environ[", "os.getenv(")) or text.endswith(" in os.environ"):
                lines.append(text)
            if isinstance(node, ast.IfExp) and "os.environ" in ast.unparse(node):
                lines.append(ast.unparse(node))
        if lines:
            readers[path.relative_to(REPOSITORY).as_posix()] = lines
    assert readers == {"services/settings.py": ["os.environ if environ is None else environ"]}
