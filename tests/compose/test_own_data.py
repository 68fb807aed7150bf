"""A person's own data, through containers, as the README says: a folder, DATA, and experiments/own-data.yml."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from services.init import dataset
from tests.compose.conftest import Maker
from tests.support import REPOSITORY

pytestmark = pytest.mark.compose

PLAN = yaml.safe_load((REPOSITORY / "experiments" / "own-data.yml").read_text(encoding="utf-8")) | {
    "rounds": 2,
    "federation": {"join_timeout": 90, "join_grace": 1},
}

Writer = Callable[[Path, NDArray[np.uint8], NDArray[np.uint8]], None]


def _images(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number}.png")


def _table(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    lines = ["label," + ",".join(f"pixel{number}" for number in range(784))]
    lines += [f"{label}," + ",".join(map(str, image.ravel())) for image, label in zip(images, labels, strict=True)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _arrays(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


@pytest.mark.parametrize("write", [_images, _table, _arrays], ids=["images", "table", "arrays"])
def test_own_data_train_to_the_end(make_stack: Maker, mnist: dataset.Dataset, tmp_path: Path, write: Writer) -> None:
    """A thousand digits as images by class, as a table or as arrays train two clients well beyond chance."""
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder, mnist.train_images[:1000], mnist.train_labels[:1000])
    stack = make_stack(PLAN, DATA=folder, CLIENTS=2, MAX_CLIENTS=2)
    stack.up()
    assert stack.wait_server() == 0
    summary = stack.summary
    told: dict[str, Any] = {"status": "completed", "rounds": 2, "clients": 2, "dataset": "own"}
    assert {key: summary[key] for key in told} == told
    assert summary["test_accuracy"] > 0.4
    assert "data set own: 900 + 100 images written" in stack.log("init")
    stack.check_history(2)


def test_what_goes_on_is_told_to_people_and_to_programs(
    make_stack: Maker, mnist: dataset.Dataset, tmp_path: Path
) -> None:
    """`fed status` in a container shows the run; with LOG_FORMAT=json each line of each role is an object."""
    folder = tmp_path / "mine"
    folder.mkdir()
    _arrays(folder, mnist.train_images[:1000], mnist.train_labels[:1000])
    plan = PLAN | {"rounds": 200}
    stack = make_stack(plan, DATA=folder, CLIENTS=2, MAX_CLIENTS=2, LOG_FORMAT="json")
    stack.up()
    stack.until_round(1)
    shown = stack.compose("exec", "--no-TTY", "server", "fed", "status", "--once").stdout
    assert re.search(r"^rounds .*/200$", shown, re.MULTILINE)
    assert re.findall(r"^(client_\d) ", shown, re.MULTILINE) == ["client_0", "client_1"]
    stack.compose("stop", "server")
    lines = {role: [json.loads(line) for line in stack.log(role).splitlines()] for role in ("init", "server", "client")}
    assert all({line["role"] for line in told} == {role} for role, told in lines.items())
    run_id = stack.summary["run_id"]
    rounds = [(line["run"], line["round"]) for line in lines["server"] if line["event"] == "round"]
    assert rounds == [(run_id, number + 1) for number in range(stack.rounds)]
    assert {line["client"] for line in lines["server"] if line["event"] == "joined"} == {"client_0", "client_1"}
    assert {line["client"] for line in lines["client"]} == {"client_0", "client_1"}
    last = lines["server"][-1]
    assert (last["level"], last["run"], last["message"]) == ("warning", run_id, "stopped by SIGTERM")


def test_a_folder_that_cannot_be_trained_on_starts_nothing(
    make_stack: Maker, mnist: dataset.Dataset, tmp_path: Path
) -> None:
    """A damaged image ends init with code 3 and its name; mended it is dealt, and a change after that is code 7."""
    folder = tmp_path / "mine"
    folder.mkdir()
    _images(folder, mnist.train_images[:100], mnist.train_labels[:100])
    broken = folder / "3" / "x.png"
    whole = next((folder / "3").iterdir()).read_bytes()
    broken.write_bytes(whole[:-40])
    stack = make_stack(PLAN, DATA=folder, CLIENTS=2, MAX_CLIENTS=2)
    words = ("run", "--rm", "--no-deps", "init", "init", "--drop-to", "10001")
    refused = stack.compose(*words, check=False)
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[-1] == (
        "fed init: error: data/raw/3/x.png is no whole image; wanted an image that can be decoded;"
        " restore it from where it came, or leave it out"
    )
    broken.unlink()
    stack.compose(*words)
    broken.write_bytes(whole)
    refused = stack.compose(*words, check=False)
    assert refused.returncode == 7
    assert "was dealt with data_sha256" in refused.stderr.splitlines()[-1]
