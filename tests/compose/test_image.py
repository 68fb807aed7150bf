"""What the images are made of, and what they do not hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from tests.support import REPOSITORY, deadline

pytestmark = pytest.mark.compose

FED = os.environ.get("IMAGE", "fed")
TENSORBOARD = f"{FED}-tensorboard"
LOCKS = {FED: "runtime.txt", TENSORBOARD: "tensorboard.txt"}
"""Of each image, what its Python packages are locked in."""

SBOM = "/opt/venv/sbom.cdx.json"

both = pytest.mark.parametrize("image", LOCKS)


def in_image(image: str, *command: str, mounted: dict[Path, str] | None = None, root: bool = False) -> str:
    """Run a command in a container of an image, without network, and give what it prints."""
    volumes = [word for path, target in (mounted or {}).items() for word in ("--volume", f"{path}:{target}:ro")]
    user = ["--user", "0"] if root else []
    result = subprocess.run(
        [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            *user,
            *volumes,
            "--entrypoint",
            command[0],
            image,
            *command[1:],
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline(120),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def sbom(image: str) -> dict[str, Any]:
    """Read the bill of materials in an image."""
    content: dict[str, Any] = json.loads(in_image(image, "cat", SBOM))
    return content


def packages(bill: dict[str, Any], kind: str) -> dict[str, str]:
    """Versions by name of the packages of one kind."""
    parts = [part for part in bill["components"] if part["purl"].startswith(f"pkg:{kind}/")]
    return {part["name"]: part["version"] for part in parts}


@both
def test_the_bill_of_materials_is_valid(image: str) -> None:
    """It keeps to the schema of CycloneDX 1.6, strictly."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(sbom(image))) is None


@both
def test_the_bill_of_materials_is_the_image(image: str) -> None:
    """It lists each locked requirement, and what Python and dpkg themselves say is installed, no more and no less."""
    text = (REPOSITORY / "requirements" / LOCKS[image]).read_text(encoding="utf-8")
    bill = sbom(image)
    pins = [Requirement(line) for line in re.findall(r"^(\S+==[^\\]+?) \\$", text, flags=re.MULTILINE)]
    machine = in_image(image, "python", "-c", "import platform; print(platform.machine())").strip()
    wanted = {
        re.sub(r"[-_.]+", "-", pin.name).lower(): str(pin.specifier)[2:]
        for pin in pins
        if pin.marker is None or pin.marker.evaluate({"python_full_version": "3.11.0", "platform_machine": machine})
    }
    assert {re.sub(r"[-_.]+", "-", name): version for name, version in packages(bill, "pypi").items()} == wanted
    form = "${Package} ${Version} ${db:Status-Status}\n"
    listed = in_image(image, "dpkg-query", "--show", "--showformat", form).split("\n")
    assert packages(bill, "deb") == {
        name: version for name, version, state in (line.split() for line in listed if line) if state == "installed"
    }


@both
def test_the_image_s_packages_fit_together(image: str) -> None:
    """No package lacks another that it requires, or has it in a version that it refuses."""
    uv = REPOSITORY / ".cache" / "uv" / "bin" / "uv"
    in_image(image, "/uv", "pip", "check", "--no-cache", "--python", "/opt/venv/bin/python", mounted={uv: "/uv"})


def test_tensorboard_s_image_has_no_tensorflow() -> None:
    """The small image has neither TensorFlow nor declearn, and is less than a third of the other."""
    assert not {"tensorflow", "tensorflow-cpu", "keras", "declearn"} & set(packages(sbom(TENSORBOARD), "pypi"))
    sizes = [
        int(subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Size}}", image],
            capture_output=True, text=True, check=True, timeout=deadline(30),
        ).stdout)
        for image in (TENSORBOARD, FED)
    ]  # fmt: skip
    assert sizes[0] < sizes[1] / 3


@both
def test_the_image_holds_no_secret(image: str) -> None:
    """It has no private key, nothing of the build's secrets, and of a clone the source and MNIST alone."""
    found = in_image(
        image, "sh", "-c",
        "grep -rlIE -e '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' / --exclude-dir=proc --exclude-dir=sys || true; "
        "find / -xdev '(' -name .git -o -name .env -o -name pip.conf -o -name uv.toml -o -path '/run/secrets/?*' "
        "-o -path '/fed/certs/*' -type f -o -path '/fed/data/*' -type f ! -path '/fed/data/mnist_raw/*' ')' -print",
        root=True,
    )  # fmt: skip
    # their own tests' and examples' keys, public in their sources
    assert [path for path in found.split() if not path.startswith("/opt/venv/lib/")] == []
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image],
        capture_output=True, text=True, check=True, timeout=deadline(30),
    ).stdout  # fmt: skip
    variables = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{json .Config.Env}}", image],
        capture_output=True, text=True, check=True, timeout=deadline(30),
    ).stdout  # fmt: skip
    lent = lent_to_the_build(image)
    assert [word for word in lent if word in history + variables] == []
    search = 'grep -rlIF -e "$0" /opt /etc /usr/local /run /fed || true'
    assert in_image(image, "sh", "-c", search, "\n".join(lent or ["no secret was lent"]), root=True) == ""


def lent_to_the_build(image: str) -> list[str]:
    """Tell what only the build may see: addresses of this machine's package index, a line of each of its CAs."""
    script = 'source script/lib.sh; build_settings; cat "$INDEX_SETTINGS" "$CA_BUNDLE"'
    said = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=deadline(30)
    ).stdout
    addresses = set(re.findall(r"https?://[^\s'\"]+", said))
    bundles = "cat /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem 2>/dev/null || true"
    public = set(last_lines(in_image(image, "sh", "-c", bundles)))
    return sorted(addresses | (set(last_lines(said)) - public))


def last_lines(bundle: str) -> list[str]:
    """List of each certificate in PEM the line before its last, which is of its signature."""
    return re.findall(r"(\S{64})\n\S+\n-----END CERTIFICATE-----", bundle)
