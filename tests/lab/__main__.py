"""The command of `script/lab`: a person's own lab."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tests.lab.lab import MOST, Host, Lab
from tests.lab.shell import LabError


def main(words: Sequence[str]) -> int:
    """Do what `script/lab` is asked."""
    usage = "usage: script/lab up [HOSTS [IMAGE…]] | down | HOST docker-words…"
    try:
        lab = Lab()
        if words[:1] == ["up"]:
            lab.count = int(words[1]) if len(words) > 1 else lab.count
            lab.up(words[2:] or ["fed"])
            for host in lab.hosts:
                print(f"{host.name}  {host.address}  script/lab {host.number} ps")  # noqa: T201
            return 0
        if words == ["down"]:
            lab.count = MOST
            lab.down()
            return 0
        if words and words[0].isdecimal():
            host = Host(lab.name, int(words[0]), lab.root / f"{lab.name}{words[0]}")
            environment = os.environ | {"DOCKER_HOST": f"unix://{host.socket}"}
            os.execvpe(  # noqa: S606 - no shell is wanted
                "nsenter", host.inside("docker", *words[1:]), environment
            )
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)  # noqa: T201
        return 13
    except ValueError:
        pass
    print(usage, file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
