"""The overlay for NVIDIA's GPUs, as far as it can be looked at without one: what Compose makes of it, and its lock."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY, deadline

OVERLAY = REPOSITORY / "deploy" / "gpu.yml"
CUDA = {
    f"nvidia-{name}-cu12"
    for name in (
        "cublas", "cuda-cupti", "cuda-nvcc", "cuda-nvrtc", "cuda-runtime", "cudnn", "cufft", "curand", "cusolver",
        "cusparse", "nccl", "nvjitlink",
    )
}  # fmt: skip
"""What TensorFlow 2.21 loads on a GPU, as its extra `and-cuda` names it."""


def lock(name: str) -> dict[str, list[str]]:
    """Read the versions of a lock, by package; one that depends on Python's has several."""
    text = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for package, version in re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE):
        found.setdefault(package, []).append(version)
    return found


def composed(**variables: str) -> dict[str, Any]:
    """Give the services as Compose understands the two files together."""
    unset = {"IMAGE", "REQUIREMENTS", "COMPOSE_FILE", "COMPOSE_PROFILES"}
    environment = {key: value for key, value in os.environ.items() if key not in unset} | variables
    command = ["docker", "compose", "-f", "docker-compose.yml", "-f", str(OVERLAY), "config", "--format", "json"]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=deadline(60)
    )
    assert result.returncode == 0, result.stderr
    services: dict[str, Any] = json.loads(result.stdout)["services"]
    return services


# -- the overlay ------------------------------------------------------------------------------------------------------


@pytest.mark.compose
@pytest.mark.parametrize("role", ["server", "client"])
def test_who_computes_has_the_gpus(role: str) -> None:
    """Server and clients reserve the host's GPUs, and take of their memory what they need, not all there is."""
    service = composed()[role]
    assert service["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}
    ]
    assert service["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.compose
def test_the_image_is_another_one() -> None:
    """All roles run an image of its own name, which init builds from the GPU's lock."""
    services = composed(IMAGE="mine")
    assert {role: services[role]["image"] for role in services} == dict.fromkeys(
        ("init", "server", "client"), "mine-gpu"
    )
    assert services["init"]["build"]["args"]["REQUIREMENTS"] == "gpu.txt"
    assert "deploy" not in services["init"]


@pytest.mark.compose
def test_nothing_else_changes() -> None:
    """Rights, mounts, networks and the number of clients are those of the Compose file."""
    plain = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=REPOSITORY, env=os.environ | {"CLIENTS": "5"}, capture_output=True, text=True, check=True,
        timeout=deadline(60),
    )  # fmt: skip
    before, after = json.loads(plain.stdout)["services"], composed(CLIENTS="5")
    assert before.keys() == after.keys()
    for role, service in before.items():
        kept = {key: value for key, value in service.items() if key not in {"build", "deploy", "environment", "image"}}
        assert kept.items() <= after[role].items()
        assert service["environment"].items() <= after[role]["environment"].items()
    assert after["client"]["deploy"]["replicas"] == before["client"]["deploy"]["replicas"] == 5


def test_the_overlay_names_what_the_build_takes() -> None:
    """The lock that the overlay asks for is there, reaches the build, and the default is the processors' one."""
    (name,) = yaml.safe_load(OVERLAY.read_text(encoding="utf-8"))["services"]["init"]["build"]["args"].values()
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    sent = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "ARG REQUIREMENTS=runtime.txt\n" in dockerfile
    for lock_ in (name, "runtime.txt"):
        assert (REPOSITORY / "requirements" / lock_).is_file()
        assert f"source=requirements/{lock_},target=/build/{lock_}" in dockerfile
        assert f"!requirements/{lock_}" in sent


# -- the lock ---------------------------------------------------------------------------------------------------------


def versions(packages: Mapping[str, list[str]], *without: str) -> dict[str, list[str]]:
    """Give a lock without some packages."""
    return {name: found for name, found in packages.items() if name not in without and not name.startswith("nvidia-")}


def test_the_lock_has_tensorflow_with_cuda() -> None:
    """It holds TensorFlow's build for GPUs, the libraries that this loads, and not the build for processors."""
    gpu = lock("gpu.txt")
    assert {name for name in gpu if name.startswith("nvidia-")} == CUDA
    assert "tensorflow-cpu" not in gpu


def test_the_lock_is_otherwise_that_of_the_processors() -> None:
    """TensorFlow and all other packages have the versions of runtime.txt."""
    gpu, runtime = lock("gpu.txt"), lock("runtime.txt")
    assert versions(gpu) == versions(runtime, "tensorflow-cpu")
    assert gpu["tensorflow"] == runtime["tensorflow-cpu"]


def test_the_lock_is_for_machines_that_have_such_a_build() -> None:
    """TensorFlow and CUDA are for x86_64 alone, as NVIDIA's builds of it are."""
    text = (REPOSITORY / "requirements" / "gpu.txt").read_text(encoding="utf-8")
    for line in re.findall(r"^(?:tensorflow|nvidia-[\w-]+)==.*$", text, re.MULTILINE):
        assert line.endswith(" ; platform_machine == 'x86_64' \\"), line


def test_every_package_has_its_hashes() -> None:
    """Each requirement is one version with at least one hash, and nothing names an address."""
    text = (REPOSITORY / "requirements" / "gpu.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[\w-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 80
    for entry in entries:
        head, *rest = entry.rstrip().split(" \\\n")
        assert rest, head
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line) for line in rest), head
    assert "://" not in text
