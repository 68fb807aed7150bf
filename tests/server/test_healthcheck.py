"""The container's health check: its code, and its silence."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.server import healthcheck


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """Answer one request with these bytes, or never where None, on a port that is given."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    done.wait()
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 0), ("404 Not Found", 1)])
def test_a_server_that_waits_is_alive(monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    """Asked only whether it is alive, a server that can't progress for now is; something else that listens is not."""
    with answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as port:
        monkeypatch.setenv("STATUS_PORT", str(port))
        assert healthcheck.main(["--alive"]) == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1),
        (b"SSH-2.0-OpenSSH\r\n", 1),
        (b"", 1),
    ],
)
def test_only_a_page_that_says_so_is_healthy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: bytes, code: int
) -> None:
    """Answer 200 is healthy; every other answer, and something else that listens, is not; nothing is printed."""
    with answering(answer) as port:
        monkeypatch.setenv("STATUS_PORT", str(port))
        assert healthcheck.main() == code
    assert capfd.readouterr() == ("", "")


def test_a_page_that_never_answers_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs is found out after the time-out, which is shorter than that of the container's check."""
    assert healthcheck.TIMEOUT < 5
    monkeypatch.setattr(healthcheck, "TIMEOUT", 0.05)
    with answering(None) as port:
        monkeypatch.setenv("STATUS_PORT", str(port))
        assert healthcheck.main() == 1


def test_nobody_listening_is_not_healthy() -> None:
    """As the container runs it: a process that ends with 1 and leaves no line in its log."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = subprocess.run(
        [sys.executable, "-m", "services.server.healthcheck"],
        env={"STATUS_PORT": str(port)},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")
