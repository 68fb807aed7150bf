"""The state of a run as its server tells it, over plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator
from typing import IO, Any

from services.errors import FedError, LostError, NetworkError, UsageError
from services.wording import OVER

State = dict[str, Any]

TIMEOUT = 20.0
"""Seconds in which a server tells something, if only that it is there."""

PATIENCE = 60.0
"""Seconds for which a server that was there is looked for: Docker starts one that died anew."""

PAUSE = 1.0
"""Seconds between two looks for it."""

KEYS = {
    *("run_id", "phase", "reason", "round", "rounds_planned", "seconds", "seconds_left", "privacy"),
    *("loss", "accuracy", "test_accuracy", "clients_wanted", "clients", "gone", "history", "events", "refusals"),
}
"""What a state has at least: all that is shown of it."""

# an address of this machine, or of a tunnel, is never reached through a proxy
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check(url: str) -> str:
    """Give the address of a status page without a slash at its end.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"the address of the status page is {url!r}", "http://host:port", "correct --url")
    return url.rstrip("/")


def ask(url: str) -> State:
    """Ask once for the state.

    Raises:
        NetworkError: nobody answers, or somebody else does.
    """
    with _answer(url, "/status") as answer:
        state = _read(url, answer.read())
    _check(url, state)
    return state


def follow(url: str) -> Generator[State]:
    """Yield each new state, until the server says that there will be none.

    Raises:
        NetworkError: nobody answers, or somebody else does, or the answer breaks off.
    """
    state: State = {}
    with _answer(url, "/status/stream") as answer:
        kind = ""
        while True:
            try:
                line = answer.readline()
            except (OSError, http.client.HTTPException, ValueError) as exc:
                raise NetworkError(f"the server at {url} fell silent ({str(exc) or type(exc).__name__})") from exc
            if not line:
                raise NetworkError(f"the server at {url} went away")
            head, _, rest = line.strip().partition(b": ")
            if head == b"event":
                kind = rest.decode(errors="replace")
            elif head == b"data" and kind == "over":
                return
            elif head == b"data":
                state = state | _read(url, rest)
                _check(url, state)
                yield state


def lasting(url: str, *, first: float = 0.0) -> Iterator[State | str]:
    """Yield each new state up to the run's end, also of a server that goes away and comes back; or why there is none.

    Args:
        url: of the status page.
        first: seconds to wait for a server that is not there yet.

    Raises:
        NetworkError: nobody answers at first, or somebody else does.
        LostError: the server went away and did not come back.
    """
    deadline, seen = time.monotonic() + first, False
    while True:
        try:
            for state in follow(url):
                deadline, seen = time.monotonic() + PATIENCE, True
                yield state
                if state["phase"] in OVER:
                    return
            loss: FedError = LostError("the server ended its status page before the run was over")
        except NetworkError as exc:
            loss = LostError(exc.found) if seen else exc
        if time.monotonic() >= deadline:
            raise loss
        if seen:
            yield f"{loss.found}; looking for it for {deadline - time.monotonic():.0f} s"
        time.sleep(PAUSE)


@contextlib.contextmanager
def _answer(url: str, path: str) -> Iterator[IO[bytes]]:
    try:
        answer = _opener.open(url + path, timeout=TIMEOUT)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise _stranger(url, f"it answers {path} with {exc.code}") from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason = getattr(exc, "reason", exc)
        detail = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise NetworkError(
            f"no status page answers at {url} ({detail})",
            "a server that is at work on a run",
            "start one, or name its address with --url or STATUS_PORT",
        ) from exc
    with answer:
        yield answer


def _read(url: str, content: bytes) -> State:
    try:
        state = json.loads(content)
    except ValueError as exc:
        raise _stranger(url, "its answer is no JSON") from exc
    if not isinstance(state, dict):
        raise _stranger(url, "its answer is no state of a run")
    return state


def _check(url: str, state: State) -> None:
    """Refuse the state of something else, as far as its keys tell."""
    missing = KEYS - state.keys()
    if missing:
        raise _stranger(url, f"its state has no {min(missing)}")


def _stranger(url: str, why: str) -> NetworkError:
    return NetworkError(f"{url} is no status page of ours ({why})", "that of `fed server`", "correct --url")
