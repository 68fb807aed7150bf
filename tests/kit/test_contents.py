"""What is in a kit: Compose files that grant nothing they need not, and settings that say what they do."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from services import settings
from services.kit import contents
from services.kit.manifest import read_kit
from tests.kit.conftest import Operator
from tests.support import REPOSITORY

ROLES = ("site", "server")


def template(name: str) -> str:
    """Read a file that kits are made of."""
    return resources.files("services.kit").joinpath("files", name).read_text(encoding="utf-8")


def env(text: str) -> dict[str, str]:
    """Read the keys of a `.env` with their values."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("role", ROLES)
def test_every_service_has_what_it_needs_and_no_more(role: str) -> None:
    """Each service drops all capabilities, gains none, and writes nowhere but where it is told."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(template(f"{role}.yml"))["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert set(service["cap_add"]) <= {"SETGID", "SETUID", "FOWNER"}, name
        assert "FOWNER" not in service["cap_add"] or name == "init"
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] == 4096
        assert service["pull_policy"] == "never"
        assert not {"privileged", "network_mode", "pid", "ipc", "devices", "build"} & set(service) or name == "init"
        written = {mount["target"] for mount in service["volumes"] if not mount.get("read_only")}
        assert (
            written
            == {
                "client": set(),
                "server": {"/fed/results"},
                "init": {"/fed/data/shards", "/fed/data/test", "/fed/results"},
            }[name]
        )
    assert services.get("init", {"network_mode": "none"})["network_mode"] == "none"


@pytest.mark.parametrize("role", ROLES)
def test_compose_and_env_of_a_kit_agree(made: Operator, role: str) -> None:
    """Each variable that a kit's Compose file reads stands in its `.env`, which holds no other, with its default."""
    kit = made.server if role == "server" else made.kit("north")
    stated = env((kit / ".env").read_text(encoding="utf-8"))
    compose = (kit / "docker-compose.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{([A-Z_]+)", compose)) == set(stated)
    own = {"SERVER_URI": "wss://localhost:8765"}
    for key, default in re.findall(r"\$\{([A-Z_]+):-([^${}]*)\}", compose):
        assert stated[key] in {own.get(key, default), ""}, key
        assert stated[key] or default == {"DATA": "./data"}.get(key, ""), key


@pytest.mark.parametrize("role", ROLES)
def test_what_a_container_is_given_is_read(role: str) -> None:
    """Each variable of a service's environment is one that the settings know."""
    known = set(re.findall(r'\(env, "([A-Z_]+)"', Path(settings.__file__).read_text(encoding="utf-8"))) | {"LOG_FORMAT"}
    for service in yaml.safe_load(template(f"{role}.yml"))["services"].values():
        assert set(service["environment"]) <= known


@pytest.mark.parametrize("role", ROLES)
def test_every_key_of_env_is_explained(role: str) -> None:
    """In a kit's `.env` each group of keys has a comment above it, and each key is one of Compose's or ours."""
    assert all(block.startswith("# ") or "\n# " in block for block in template(f"{role}.env").split("\n\n"))


@pytest.mark.parametrize("role", ROLES)
def test_compose_files_are_found_in_deploy_too(role: str) -> None:
    """`deploy/` shows the same files that kits are made of."""
    assert (REPOSITORY / "deploy" / f"{role}.yml").read_text(encoding="utf-8") == template(f"{role}.yml")


@pytest.mark.parametrize("name", ["north", "server"])
def test_a_page_says_what_to_do(made: Operator, name: str) -> None:
    """The page of a kit names who it is for and where the server is, and nothing in it was left to be filled."""
    kit = made.server if name == "server" else made.kit(name)
    page = (kit / "README.md").read_text(encoding="utf-8")
    assert "wss://localhost:8765" in page
    assert page.startswith("# The server of" if name == "server" else f"# {name}: a site of")
    assert set(re.findall(r"\$[A-Za-z({]\w*", page)) <= {"$(id", "$PWD"}
    if name != "server":
        assert "of shape (28, 28), in 10 classes" in page
        assert f"{read_kit(kit).expires:%Y-%m-%d}" in page


def test_a_kit_without_terms_asks_for_none(tmp_path: Path) -> None:
    """Where nobody has said what data are to be, neither page nor manifest does."""
    operator = Operator(tmp_path / "other")
    operator.root.mkdir()
    operator.plan.write_text("data: {dataset: own}\n")
    operator.init()
    operator.site("north")
    assert read_kit(operator.kit("north")).terms is None
    assert "; examples." in (operator.kit("north") / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("proxy.example.org", "proxy.example.org"),
        ("Bearer a/b+c=", "Bearer a/b+c="),
        ("a$HOME", None),
        ("a ${X} b", None),
        ("a #b", None),
        ("'a'", None),
        ('"a"', None),
        ("a\\nb", None),
    ],
)
def test_what_compose_would_read_as_something_else_is_in_the_manifest_alone(
    tmp_path: Path, value: str, written: str | None
) -> None:
    """A header with a `$`, a `#` or quotes reaches the client as it is: by the manifest, where `.env` is empty."""
    operator = Operator(tmp_path / "other")
    operator.init("fl.example.org:443", server_name="inner.example.org", headers={"X-Route": value})
    operator.site("north")
    kit = operator.kit("north")
    facts, stated = read_kit(kit), env((kit / ".env").read_text(encoding="utf-8"))
    assert facts.server_headers == {"X-Route": value}
    assert stated["SERVER_HEADERS"] == ("" if written is None else f"X-Route: {written}")
    assert stated["SERVER_NAME"] == facts.server_name == "inner.example.org"
    assert stated["SERVER_URI"] == facts.server_uri == "wss://fl.example.org:443"


def test_the_server_publishes_the_port_that_sites_dial(tmp_path: Path) -> None:
    """The port in the server's address is that of its kit."""
    operator = Operator(tmp_path / "other")
    operator.init("wss://[2001:db8::1]:4433/fed")
    assert env((operator.server / ".env").read_text(encoding="utf-8"))["PORT"] == "4433"
    assert (operator.server / contents.EXPERIMENT).read_bytes() == operator.plan.read_bytes()
