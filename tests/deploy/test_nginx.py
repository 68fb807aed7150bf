"""Sites behind nginx, which passes TLS through: with Debian's nginx, as a process of this test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from services.init import dataset, folders
from services.init import main as init
from services.init.shards import Recipe
from tests.processes import Role
from tests.support import RAW, REPOSITORY, deadline
from tests.terminal.stage import FED

UNPACKED = REPOSITORY / ".cache" / "nginx"
"""Where `script/test` has unpacked Debian's nginx, without installing it."""

NAME = "federation.example.org"
SITES = ("hospital-a", "hospital-b")


def found() -> tuple[Path, Path]:
    """Find nginx and its module; a test that can't have them is skipped, and fails in continuous integration."""
    for root in (UNPACKED, Path("/")):
        program, module = root / "usr/sbin/nginx", root / "usr/lib/nginx/modules/ngx_stream_module.so"
        if program.exists() and module.exists():
            return program, module
    reason = "nginx with its module `stream` is not here"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def nginx(folder: Path, behind: int) -> Iterator[int]:
    """Run nginx by deploy/nginx.conf, before a server on port `behind` of this machine; gives its own port."""
    program, module = found()
    with socket.create_server(("localhost", 0)) as listener:
        port = int(listener.getsockname()[1])
    text = (REPOSITORY / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for pattern, here in (
        (r"listen 443\b", f"listen 127.0.0.1:{port}"),
        (r"192\.0\.2\.10:8765", f"127.0.0.1:{behind}"),
    ):
        text, count = re.subn(pattern, here, text)
        assert count == 1
    head = f"load_module {module};\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
    (folder / "nginx.conf").write_text(head + text, encoding="utf-8")
    command = [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(deadline(30))


def fed(folder: Path, *words: str) -> list[str]:
    """Run `fed WORDS` and give its lines."""
    with Role(folder, *FED, *words) as role:
        assert role.ends() == 0, role.lines
    return role.lines


@pytest.fixture
def kits(tmp_path: Path, mnist: dataset.Dataset) -> Path:
    """A federation's folder, of a server and of two sites with little data, and the server's test set."""
    shutil.copy(REPOSITORY / "experiment.yml", tmp_path)
    plan = yaml.safe_load((tmp_path / "experiment.yml").read_text(encoding="utf-8"))
    plan |= {"rounds": 2, "train": {"batch_size": 32, "steps": 10}}
    (tmp_path / "experiment.yml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    (tmp_path / "phrase").write_text("a horse, a battery and a staple\n", encoding="utf-8")
    secret = ("--passphrase-file", "phrase")
    fed(tmp_path, "kit", "init", "--server", "localhost:1", "--server-name", NAME, *secret)
    for number, site in enumerate(SITES):
        fed(tmp_path, "kit", "site", site, *secret)
        chosen = slice(600 * number, 600 * (number + 1))
        data = tmp_path / "federation" / "sites" / site / "data"
        np.save(data / "train_data.npy", folders.SCALED[mnist.train_images[chosen]])
        np.save(data / "train_target.npy", mnist.train_labels[chosen])
        np.save(data / "valid_data.npy", folders.SCALED[mnist.train_images[-100:]])
        np.save(data / "valid_target.npy", mnist.train_labels[-100:])
    init.hold_out(RAW, Recipe("iid", 0), tmp_path / "data" / "test")
    return tmp_path / "federation"


def test_sites_train_through_nginx(kits: Path) -> None:
    """By the name that sites ask for, TLS is passed through: a run completes, each side proves to the other who it is,
    and a site that asks for another name reaches nobody.
    """
    root = kits.parent
    words = ("2", "--kit", "federation/server", "--port", "0", "--status-port", "0")
    with contextlib.ExitStack() as outer:
        server = outer.enter_context(Role(root, *FED, "server", *words))
        # a port that is found free now is not the server's
        port = outer.enter_context(nginx(root, int(server.until(r"listening on \S+:(\d+)")[1])))
        there = {"SERVER_URI": f"wss://localhost:{port}", "CONNECT_TIMEOUT": "60"}
        lost = there | {"SERVER_NAME": "elsewhere.example.org", "CONNECT_TIMEOUT": "2"}
        with Role(root, *FED, "client", "--kit", f"federation/sites/{SITES[0]}", **lost) as stranger:
            assert stranger.ends() == 5
        with contextlib.ExitStack() as stack:
            roles = [
                stack.enter_context(Role(root, *FED, "client", "--kit", f"federation/sites/{site}", **there))
                for site in SITES
            ]
            assert [server.ends(), *(role.ends() for role in roles)] == [0, 0, 0]
    summary = json.loads((root / "results" / "latest" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["rounds"], summary["clients"]) == ("completed", 2, 2)
    server.until(rf"2 clients joined: {', '.join(SITES)}")
