"""A federation's folder with two sites, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.errors import IdentityError
from services.kit import main
from services.kit.federation import Federation
from services.kit.manifest import verify

PHRASE = "five words and some more"
SITES = ("north", "south")


@dataclass(frozen=True)
class Operator:
    """An operator's machine: the folder of a federation, and what is beside it."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "federation"

    @property
    def phrase(self) -> Path:
        return self.root / "phrase"

    @property
    def plan(self) -> Path:
        return self.root / "experiment.yml"

    @property
    def federation(self) -> Federation:
        return Federation.open(self.folder)

    @property
    def server(self) -> Path:
        return self.folder / "server"

    @property
    def denylist(self) -> Path:
        return self.server / "denylist" / "denied.txt"

    def kit(self, name: str) -> Path:
        return self.folder / "sites" / name

    def archive(self, name: str) -> Path:
        return self.folder / "sites" / f"{name}.tar.gz"

    def init(
        self,
        server: str = "localhost",
        *,
        hosts: tuple[str, ...] = (),
        server_name: str | None = None,
        headers: dict[str, str] | None = None,
        shape: tuple[int, ...] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> list[str]:
        """Run `fed kit init` in an empty root, whose passphrase and plan are written first."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.phrase.write_text(f"{PHRASE}\n")
        if not self.plan.exists():
            self.plan.write_text("rounds: 2\n")
        asked = main.Asked(server, hosts, server_name, headers or {}, shape, classes, 365)
        return main.init(self.folder, asked, self.plan, self.phrase)

    def site(self, name: str) -> list[str]:
        return main.site(self.folder, name, self.phrase)

    def renew(self, *names: str, revoking: bool = False) -> list[str]:
        return main.renew(self.folder, names, self.phrase, revoking=revoking)

    def revoke(self, *names: str) -> list[str]:
        return main.revoke(self.folder, names)

    def serials(self, name: str) -> list[str]:
        """List the numbers of all certificates of a name, in the order in which they were issued."""
        return [one.serial for one in self.federation.ledger.of(name)]

    def valid(self, name: str) -> list[str]:
        """List the numbers of those that count."""
        return [one.serial for one in self.federation.ledger.valid(name, datetime.now(UTC))]

    def denied(self) -> list[str]:
        """List the entries of the denylist."""
        lines = self.denylist.read_text(encoding="utf-8").splitlines()
        return [entry for line in lines if (entry := line.partition("#")[0].strip())]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A federation of a server and two sites, which tests leave as it is."""
    operator = Operator(tmp_path_factory.mktemp("operator"))
    operator.init(hosts=("127.0.0.1", "fl.example.org"))
    for name in SITES:
        operator.site(name)
    return operator


@pytest.fixture
def operator(tmp_path: Path, made: Operator) -> Operator:
    """The same, to be changed."""
    shutil.copytree(made.root, tmp_path / "operator")
    return Operator(tmp_path / "operator")


def refused(path: Path, *args: Any, **kwargs: Any) -> str:
    """Verify what is no whole kit; gives the one line that says why."""
    with pytest.raises(IdentityError) as caught:
        verify(path, *args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flips(content: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield `content` with one bit changed, once for each of its bytes, or for each so many of them."""
    for position in range(0, len(content), step):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        yield bytes(changed)


def files(folder: Path) -> list[Path]:
    """List the files of a kit."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
