"""The environment (and so `.env`) as frozen settings; the only reader of `os.environ`.

Precedence, strongest first: a flag of `fed`, an environment variable, the experiment file, the default; and for what is
in the file: `--set`, the flag of that key, `SET`, the variable of that key, the file, the default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from services.errors import UsageError

MAX_PREPARED = 128

LOG_FORMATS = ("text", "json")
"""Values of LOG_FORMAT: for people, which is the default, and for programs."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What an operator decides, checked.

    Attributes:
        clients: number of clients a run starts with.
        max_clients: largest federation prepared for (shards and identities).
        experiment: path of the experiment file.
        scheme: split scheme in place of the experiment's, or None.
        seed: seed in place of the experiment's, or None.
        rounds: number of rounds in place of the experiment's, or None.
        set: values in place of the experiment's, as `key=value` between blanks, or None.
        host: address the server listens on.
        port: TCP port of the websocket endpoint.
        status_port: TCP port of the status page; 0 turns it off.
        server_uri: where a client finds the server, or None for this machine, by its port.
        server_name: name in the server's certificate, where it is not the one that is dialled, or None.
        server_headers: of the websocket's handshake, by name.
        server_proxy: address of an HTTP proxy that leads to the server, or None.
        connect_timeout: seconds a client keeps trying to reach the server.
        server_grace: seconds a client keeps trying to reach a server that it has lost.
        liveness_timeout: seconds after which either side takes a silent other for gone.
        fresh: begin a new run although an unfinished one is there.
        linger: seconds that the status page stays after a completed run at most, while somebody has it open.
        denylist: folder of the list of clients that may not take part.
        client_name: identity a client claims, or None for the lowest free one.
        root: folder that holds `data/`, `certs/` and `results/`.
        data: folder that holds the data set, or None for the data set's own place.
        models: folder that holds the files which `model.module` names.
        log_format: how log lines are written, `text` or `json`.
        max_parameters: numbers that a model may have in its weights for a client to train it.
        share_metrics: a client tells the server what metrics say of its images, beside the loss.
    """

    clients: int = 3
    max_clients: int = 32
    experiment: Path = Path("experiment.yml")
    scheme: str | None = None
    seed: int | None = None
    rounds: int | None = None
    set: str | None = None
    host: str = "localhost"
    port: int = 8765
    status_port: int = 8000
    server_uri: str | None = None
    server_name: str | None = None
    server_headers: Mapping[str, str] = field(default_factory=dict)
    server_proxy: str | None = None
    connect_timeout: float = 120.0
    server_grace: float = 120.0
    liveness_timeout: float = 20.0
    fresh: bool = False
    linger: float = 600.0
    denylist: Path = Path("certs/denylist")
    client_name: str | None = None
    root: Path = Path()
    data: Path | None = None
    models: Path = Path("experiments")
    log_format: str = LOG_FORMATS[0]
    max_parameters: int = 50_000_000
    share_metrics: bool = True


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (the process environment when None).

    Raises:
        UsageError: a value is no number or out of range; names the key, the value and the range.
    """
    env = _environment(environ)
    default = Settings()
    max_clients = _integer(env, "MAX_CLIENTS", 1, MAX_PREPARED)
    port = _integer(env, "PORT", 1, 65535)
    settings = Settings(
        clients=_or(_integer(env, "CLIENTS", 1, None), default.clients),
        max_clients=_or(max_clients, default.max_clients),
        experiment=Path(_text(env, "EXPERIMENT") or default.experiment),
        scheme=_text(env, "SCHEME"),
        seed=_integer(env, "SEED", 0, 2**32 - 1),
        rounds=_integer(env, "ROUNDS", 1, None),
        set=_text(env, "SET"),
        host=_text(env, "HOST") or default.host,
        port=_or(port, default.port),
        status_port=_or(_integer(env, "STATUS_PORT", 0, 65535), default.status_port),
        server_uri=_text(env, "SERVER_URI"),
        server_name=_text(env, "SERVER_NAME"),
        server_headers=read_headers(_text(env, "SERVER_HEADERS") or "", "SERVER_HEADERS"),
        server_proxy=_text(env, "SERVER_PROXY"),
        connect_timeout=_or(_integer(env, "CONNECT_TIMEOUT", 1, None), default.connect_timeout),
        server_grace=_or(_integer(env, "SERVER_GRACE", 1, None), default.server_grace),
        liveness_timeout=_or(_integer(env, "LIVENESS_TIMEOUT", 1, None), default.liveness_timeout),
        fresh=bool(_integer(env, "FRESH", 0, 1)),
        linger=_or(_integer(env, "LINGER", 0, None), default.linger),
        denylist=Path(_text(env, "DENYLIST") or default.denylist),
        client_name=_text(env, "CLIENT_NAME"),
        root=Path(_text(env, "FED_ROOT") or default.root),
        data=None if (data := _text(env, "DATA")) is None else Path(data),
        models=Path(_text(env, "MODELS") or default.models),
        log_format=log_format(env),
        max_parameters=_or(_integer(env, "MAX_PARAMETERS", 1, None), default.max_parameters),
        share_metrics=bool(_or(_integer(env, "SHARE_METRICS", 0, 1), 1)),
    )
    check_clients(settings.clients, settings.max_clients)
    return settings


def log_format(environ: Mapping[str, str] | None = None) -> str:
    """Tell how log lines are written, `text` or `json`: asked before all else, so that every error is written so.

    Raises:
        UsageError: LOG_FORMAT is neither.
    """
    env = _environment(environ)
    found = _text(env, "LOG_FORMAT") or LOG_FORMATS[0]
    if found not in LOG_FORMATS:
        raise UsageError(
            f"LOG_FORMAT is {found!r}", " or ".join(LOG_FORMATS), "change LOG_FORMAT in .env or in the environment"
        )
    return found


def check_clients(clients: int, max_clients: int) -> None:
    """Refuse a number of clients outside 1 … `max_clients`.

    Raises:
        UsageError: names the number and both ways out.
    """
    if not 1 <= clients <= max_clients:
        raise UsageError(
            f"CLIENTS is {clients}",
            f"a whole number from 1 to MAX_CLIENTS ({max_clients})",
            "change CLIENTS, or raise MAX_CLIENTS, in .env",
        )


def read_headers(text: str, source: str) -> dict[str, str]:
    """Read headers of an HTTP request, as `Name: value` with semicolons between them (RFC 9110, section 5).

    Args:
        text: what is set.
        source: where, for errors.

    Raises:
        UsageError: a part of it is no header.
    """
    headers: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        name, colon, value = (word.strip() for word in part.partition(":"))
        if not colon or not _HEADER.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise UsageError(
                f"{source} has {part.strip()!r}",
                "headers as 'Name: value', in ASCII, with semicolons between them",
                f"correct {source}",
            )
        headers[name] = value
    return headers


def _environment(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _text(env: Mapping[str, str], key: str) -> str | None:
    return env.get(key, "").strip() or None


def _integer(env: Mapping[str, str], key: str, low: int, high: int | None) -> int | None:
    text = _text(env, key)
    if text is None:
        return None
    wanted = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if number < low or (high is not None and number > high):
        raise UsageError(f"{key} is {text!r}", wanted, f"change {key} in .env or in the environment")
    return number


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
