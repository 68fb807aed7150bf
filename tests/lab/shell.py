"""Commands of this machine, run in bounded time, and waiting for what they bring about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable


class LabError(Exception):
    """The lab can't be made; one line."""


def run(*words: str, check: bool = True, seconds: float = 60, **more: str) -> str:
    """Run a command and give what it prints.

    Raises:
        LabError: it failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=seconds, env=os.environ | more
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise LabError(f"{' '.join(words)}: {exc}") from exc
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `condition` holds; look at it five times a second.

    Raises:
        LabError: it did not come to that.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.2)
