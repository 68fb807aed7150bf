"""Run inside a container: tells, as JSON, what this process may read, write, reach and become.

usage: python - HOST:PORT… (addresses to try, each named by where it leads)
"""

import json
import os
import socket
import sys
from pathlib import Path

NO_FILES = ("/proc", "/sys")


def mounts() -> dict[str, str]:
    """List what is mounted below /fed, and as /logs, and whether to read only (proc(5), mountinfo)."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="ascii").splitlines()]
    return {
        words[4].removeprefix("/fed/"): words[5].split(",")[0]
        for words in lines
        if words[4].startswith("/fed/") or words[4] == "/logs"
    }


def writable() -> list[str]:
    """List the folders that a file can be made in, by making one; of nested ones the outermost."""
    found: list[str] = []
    for folder, names, _ in os.walk("/"):
        if folder in NO_FILES:
            names.clear()
            continue
        probe = Path(folder) / ".probe"
        try:
            probe.touch()
        except OSError:
            continue
        probe.unlink()
        found.append(folder)
        names.clear()
    return found


def reached(addresses: list[str]) -> list[str]:
    """List the addresses that answer a TCP connection, be it by refusing it."""
    found = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
        except ConnectionRefusedError:
            pass
        except OSError:
            continue
        found.append(address)
    return found


def status() -> dict[str, str]:
    """Tell what the kernel lets this process become (proc(5), status)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {key: fields[key] for key in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}


found = {"mounts": mounts(), "writable": writable(), "reached": reached(sys.argv[1:]), "status": status()}
json.dump(found, sys.stdout)
