"""Ask the server of this container whether it can still progress: exit 0 if so; leaves no log line."""

import http.client
import os
import sys


def main() -> int:
    """Ask `/healthz` on this container's loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("STATUS_PORT") or 8000), timeout=3)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except OSError:
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
