"""Our server with declearn's own client, and declearn's own server with our client: its scripts, as they are."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.init import dataset, folders
from services.init import main as init
from services.init.shards import Recipe
from tests import upstream
from tests.processes import Role
from tests.support import RAW, REPOSITORY, contents
from tests.terminal.stage import FED
from tests.written import rows

TRAIN, VALID = 600, 200
"""Images of each site; the scripts are declearn's, the data is little."""

SITES = ("client_0", "client_1")

ROUNDS = 5
"""As declearn's run_server.py has it."""


def fetched(cache: Path = upstream.CACHE) -> Path:
    """Give declearn's example; a test that can't have it is skipped, and fails in continuous integration."""
    try:
        return upstream.example(cache)
    except upstream.UpstreamError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@pytest.fixture
def root(tmp_path: Path, mnist: dataset.Dataset) -> Iterator[Path]:
    """A folder as `fed data` and `fed certs` leave it, with little data, and declearn's scripts in `stock`."""
    example = fetched()
    shutil.copytree(example, tmp_path / "stock")
    for number, site in enumerate(SITES):
        first = number * (TRAIN + VALID)
        for part, start, count in (("train", first, TRAIN), ("valid", first + TRAIN, VALID)):
            folder = tmp_path / "data" / "mnist_iid" / site
            folder.mkdir(parents=True, exist_ok=True)
            chosen = slice(start, start + count)
            np.save(folder / f"{part}_data.npy", folders.SCALED[mnist.train_images[chosen]])
            np.save(folder / f"{part}_target.npy", mnist.train_labels[chosen])
    init.hold_out(RAW, Recipe("iid", 0), tmp_path / "data" / "test")
    with Role(tmp_path, *FED, "certs", "--clients", "1") as certs:
        assert certs.ends() == 0
    before = contents(example)
    yield tmp_path
    stock = contents(tmp_path / "stock")
    assert {name: stock[name] for name in before} == before == contents(example)


def ours(root: Path, name: str, port: int) -> Role:
    """Start our client as a site that shows no certificate."""
    words = (name, "data/mnist_iid", "--no-client-auth", "--ca-cert", "certs/ca-cert.pem")
    return Role(root, *FED, "client", *words, "--serv-uri", f"wss://localhost:{port}")


def stock(root: Path, script: str, *words: str) -> Role:
    """Start a script of declearn's example."""
    return Role(root, sys.executable, str(root / "stock" / script), *words)


def stock_client(root: Path, name: str, port: int) -> Role:
    """Start declearn's own client."""
    words = (name, str(root / "data" / "mnist_iid"), str(root / "certs" / "ca-cert.pem"))
    return stock(root, "run_client.py", *words, "--serv_uri", f"wss://localhost:{port}", "--verbose=False")


def test_declearns_client_trains_with_our_server(root: Path) -> None:
    """With client authentication off, declearn's run_client.py trains every round beside a client of ours, by our
    default plan; the run is complete, has learned, and all three end with 0.
    """
    words = ("--no-client-auth", "--port", "0", "--status-port", "0", "--rounds", "2")
    with Role(root, *FED, "server", "2", *words, "--experiment", str(REPOSITORY / "experiment.yml")) as server:
        port = int(server.until(r"listening on \S+:(\d+)")[1])
        with stock_client(root, SITES[0], port) as theirs, ours(root, SITES[1], port) as other:
            assert [server.ends(), theirs.ends(), other.ends()] == [0, 0, 0]
    results = root / "results" / "latest"
    summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["rounds"], summary["rounds_planned"]) == ("completed", 2, 2)
    assert summary["test_accuracy"] > 0.4
    found = [(row["round"], row["client"], row["state"]) for row in rows(results / "clients.csv")]
    assert found == [(number, site, "trained") for number in ("1", "2") for site in SITES]


def test_our_client_trains_with_declearns_server(root: Path) -> None:
    """A client of ours trains all rounds of declearn's run_server.py beside its run_client.py: the server has figures
    of both for each round, and all three end with 0.
    """
    with socket.create_server(("localhost", 0)) as listener:
        port = int(listener.getsockname()[1])
    words = ("2", str(root / "certs" / "server-cert.pem"), str(root / "certs" / "server-pkey.pem"))
    with stock(root, "run_server.py", *words, "--port", str(port)) as server:
        server.until("Starting clients registration process")
        with ours(root, SITES[0], port) as other, stock_client(root, SITES[1], port) as theirs:
            assert [server.ends(), other.ends(), theirs.ends()] == [0, 0, 0]
            other.until(rf"training is over after {ROUNDS} rounds")
    (results,) = (root / "stock").glob("result_*/server")
    for name in ("metrics.csv", *(f"metrics_{site}.csv" for site in SITES)):
        losses = [float(row["loss"]) for row in rows(results / name)]
        assert len(losses) == ROUNDS
        assert losses[-1] < losses[0]


def test_what_is_fetched_is_kept_whole_and_never_committed(tmp_path: Path) -> None:
    """A cache holds the example and nothing else, is taken as it is the next time, and git ignores the usual one."""
    cache = tmp_path / "kept" / "declearn"
    example = fetched(cache)
    names = {path.name for path in example.iterdir()}
    assert names >= upstream.SCRIPTS
    assert set(contents(cache)) == {f"{upstream.EXAMPLE}/{name}" for name in names}
    assert list(cache.parent.iterdir()) == [cache]
    before = cache.stat()
    assert upstream.example(cache) == example
    assert cache.stat() == before
    assert upstream.CACHE.parent == REPOSITORY / ".cache"
    assert ".cache/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("setting", "end"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_a_package_index_tests_are_skipped_but_not_in_continuous_integration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, end: type[BaseException]
) -> None:
    """Where pip reaches no index, tests that need the example say so in one line, fail if CI is true, and leave nothing
    behind.
    """
    monkeypatch.setenv("CI", setting)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(end, match=r"^pip can't fetch the source distribution of declearn [\d.]+ \(ERROR: .*\)$"):
        fetched(tmp_path / "cache" / "declearn")
    assert list((tmp_path / "cache").iterdir()) == []
