"""Exit 0 while the server says it is healthy: what the container's health check runs, so it imports next to nothing."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence

from services import settings

TIMEOUT = 3.0


def main(argv: Sequence[str] = ()) -> int:
    """Ask the status page of this container, `/healthz`, whether the federation can still progress.

    Args:
        argv: `--alive` asks only whether it answers, for what replaces a server that is not healthy: one that waits
            for clients to return would be killed.

    Returns:
        0 where it answers 200, or with `--alive` 503; else 1.
    """
    accepted = {http.client.OK}
    if "--alive" in argv:
        accepted.add(http.client.SERVICE_UNAVAILABLE)
    connection = http.client.HTTPConnection("127.0.0.1", settings.load().status_port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status in accepted else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
