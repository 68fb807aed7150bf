"""A way out through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6), so that TLS goes on from end to end."""

from __future__ import annotations

import asyncio
import base64
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from services.errors import NetworkError, UsageError
from services.transport.refusals import one_line

LONGEST_HEAD = 2**14
"""Bytes that a proxy's answer may have before the tunnel begins."""

PORT = 3128
"""Of a proxy, where none is given."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host: its name or address.
        port: its TCP port.
        authorization: value of the header that says who asks, or None; no line of a log has it.
    """

    host: str
    port: int
    authorization: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def read_proxy(text: str) -> Proxy:
    """Read the address of a proxy, as `http://host:port` or `http://user:password@host:port`.

    Raises:
        UsageError: it is none; the line does not repeat it, since a password may be in it.
    """
    try:
        found = urlsplit(text if "://" in text else f"http://{text}")
        host, port = found.hostname, PORT if found.port is None else found.port
    except ValueError:
        found, host, port = urlsplit(""), None, PORT
    if found.scheme != "http" or not host or not port or found.path.strip("/") or found.query or found.fragment:
        raise UsageError(
            "SERVER_PROXY is no address of a proxy", "http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT", "correct it"
        )
    if found.username is None:
        return Proxy(host, port)
    login = f"{unquote(found.username)}:{unquote(found.password or '')}"
    return Proxy(host, port, "Basic " + base64.b64encode(login.encode()).decode())


async def dig(proxy: Proxy, host: str, port: int, timeout: float) -> socket.socket:
    """Let a proxy connect to `host`; gives the connection, on which whatever is sent from now on is for that host.

    Raises:
        NetworkError: the proxy can't be reached, or does not let this through.
    """
    loop = asyncio.get_running_loop()
    ends = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {ends} HTTP/1.1\r\nHost: {ends}\r\n"
    if proxy.authorization is not None:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    connection: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout):
            connection = await _reach(proxy)
            await loop.sock_sendall(connection, f"{head}\r\n".encode())
            answer = await _head_of_answer(connection)
    except (OSError, TimeoutError) as exc:
        if connection is not None:
            connection.close()
        reason = "no answer in time" if isinstance(exc, TimeoutError) else (exc.strerror or str(exc)).lower()
        raise NetworkError(f"the proxy {proxy} can't be reached ({reason})", "", "correct SERVER_PROXY") from exc
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    version, _, rest = answer.partition(" ")
    if not version.startswith("HTTP/1.") or rest[:1] != "2":
        connection.close()
        raise NetworkError(
            f"the proxy {proxy} does not let through to {ends} ({one_line(answer or 'it hung up', 100)})",
            "a proxy that lets CONNECT through to that port",
            "ask who operates the proxy, or put its user and password into SERVER_PROXY",
        )
    return connection


async def _reach(proxy: Proxy) -> socket.socket:
    """Connect to a proxy, on whichever of its addresses answers first in their order."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("its name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(0)
            await loop.sock_connect(connection, address)
        except OSError as exc:
            connection.close()
            failure = exc
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def _head_of_answer(connection: socket.socket) -> str:
    """Read a proxy's answer up to its empty line and not a byte further, and give its first line."""
    loop = asyncio.get_running_loop()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = await loop.sock_recv(connection, 1)  # what follows is TLS's
        if not part or len(head) > LONGEST_HEAD:
            break
        head += part
    return head.split(b"\r\n", 1)[0].decode("ascii", errors="replace")
