"""Kill a process while it writes a file: `kill_in_write.py FOLDER FILE PID SECONDS`.

Files are written into a neighbour and then renamed (`services.paths.writing`). The process is stopped (SIGSTOP) when
the neighbour appears, and killed if it is still there once every thread stands still: the rename has yet to come.
Prints the neighbour's name; ends with code 1 when no write was caught in time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path


def neighbours(folder: Path, file: str) -> list[str]:
    """List what is half written in the place of `file`."""
    return [path.name for path in folder.glob(f".{file}.*.tmp")]


def stands_still(pid: int) -> bool:
    """Tell whether every thread of a process is stopped."""
    try:
        threads = [(path / "stat").read_text() for path in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:  # a thread that has ended meanwhile
        return False
    return {thread.rpartition(")")[2].split()[0] for thread in threads} == {"T"}


def kill_in_write(folder: Path, file: str, pid: int, seconds: float) -> str | None:
    """Kill `pid` in a write of `file`; gives the neighbour that is left, or None when none was caught."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not neighbours(folder, file):
            continue
        os.kill(pid, signal.SIGSTOP)
        while not stands_still(pid):
            pass
        left = neighbours(folder, file)
        if left:
            os.kill(pid, signal.SIGKILL)
            return left[0]
        os.kill(pid, signal.SIGCONT)
    return None


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(-10)  # to be there when it happens
    caught = kill_in_write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    sys.stdout.write(caught or "")
    sys.exit(caught is None)
