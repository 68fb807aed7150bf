"""What `fed init`, `fed server` and `fed client` show on terminals while a run goes on."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import numpy as np
import pytest

from services.errors import StoppedError
from tests.terminal.stage import FED, Screen

# the view is brought up to date once a second: a round takes longer, so that none is missed
PLAN = """
rounds: 1000
data: {dataset: own}
model: {sklearn: {loss: log_loss}}
train: {batch_size: 2, epochs: 500}
federation: {join_grace: 0.2}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a federation of one client, whose data are two hundred images of noise."""
    rng = np.random.default_rng(0)
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "images.npy", rng.integers(0, 256, (200, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "mine" / "labels.npy", np.arange(200) % 2)
    (tmp_path / "plan.yml").write_text(PLAN, encoding="utf-8")
    with socket.create_server(("localhost", 0)) as listener:
        port = str(listener.getsockname()[1])
    return {
        "FED_ROOT": str(tmp_path),
        "DATA": str(tmp_path / "mine"),
        "EXPERIMENT": str(tmp_path / "plan.yml"),
        "CLIENTS": "1",
        "MAX_CLIENTS": "2",
        "PORT": port,
        "STATUS_PORT": "0",
    }


def test_each_role_shows_what_it_is_at(env: dict[str, str]) -> None:
    """Server and client each show their own part below their lines, which stay whole; Ctrl-C leaves the lines alone."""
    certs = Path(env["FED_ROOT"]) / "certs"
    identity = ["--certificate", f"{certs}/server-cert.pem", "--private-key", f"{certs}/server-pkey.pem"]
    with Screen([*FED, "init"], env=env) as init:
        assert init.end() == 0
        assert init.text.splitlines()[-1].endswith("s")
    with (
        # wide enough that no line is broken, that of a client that has yet to find its server included
        Screen([*FED, "server", *identity], columns=200, env=env) as server,
        Screen([*FED, "client", "--ca-cert", f"{certs}/ca-cert.pem"], columns=200, env=env) as client,
    ):
        text = server.until("Training · round 3 of 1000", "client_0 training", "server: round 2/1000")
        assert text.index("server: round 2/1000") < text.index("Training · round") < text.index("client_0 training")
        text = client.until("client: round 3: training", "client_0 · round")
        assert re.fullmatch(r"client_0 · round \d+ · \w+.*", text.splitlines()[-1])
        server.interrupt()
        assert server.end() == StoppedError.exit_code
        assert client.end() == 0
    for screen, last in ((server, "fed server: stopped by SIGINT"), (client, None)):
        lines = screen.scrolled.splitlines()
        assert last is None or lines.pop() == last
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d \w+: ", line)] == []
