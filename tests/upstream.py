"""declearn's own MNIST example, as its authors wrote it: its source distribution alone holds it, and pip fetches that.

It is of the version that is installed, is never part of this repository, and is kept in `.cache`, which git ignores.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tests.support import REPOSITORY, deadline

VERSION = importlib.metadata.version("declearn")

CACHE = REPOSITORY / ".cache" / f"declearn-{VERSION}"

EXAMPLE = "examples/mnist"
"""The one folder that is kept; its scripts import what is installed, and one another."""

SCRIPTS = {"prepare_data.py", "run_client.py", "run_demo.py", "run_server.py"}


class UpstreamError(Exception):
    """The source distribution can't be had; says why, in one line."""


def example(cache: Path = CACHE) -> Path:
    """Give the folder of the example; fetch it where it is not there yet.

    Its scripts write results beside themselves: whoever runs them copies it first.

    Args:
        cache: folder that keeps it; made aside, and there only when whole.

    Raises:
        UpstreamError: there is no pip, pip reaches no package index, or what it fetches holds no such example.
    """
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{cache.name}-", dir=cache.parent) as aside:
            made = _unpacked(_downloaded(Path(aside)), Path(aside) / "whole")
            try:
                made.rename(cache)
            except OSError:
                if not cache.exists():  # else another process was faster
                    raise
    return cache / EXAMPLE


def _downloaded(folder: Path) -> Path:
    """Let pip put the source distribution into `folder`.

    pip asks a source distribution for its metadata even to download it alone. That is made by the setuptools that are
    installed beside declearn, so that nothing else is fetched for it.
    """
    words = [_python_with_pip(), "-m", "pip", "--python", sys.executable, "download", f"declearn=={VERSION}"]
    words += ["--no-deps", "--no-binary", "declearn", "--no-build-isolation", "--dest", str(folder)]
    words += ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    index = os.environ.get("UV_DEFAULT_INDEX")  # where script/test lets uv look, pip does
    environment = os.environ | ({"PIP_INDEX_URL": index} if index else {})
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=environment, timeout=deadline(120)
        )
    except subprocess.TimeoutExpired:
        raise UpstreamError(f"pip did not fetch declearn {VERSION} in time") from None
    found = sorted(folder.glob("declearn-*.tar.gz"))
    if done.returncode != 0 or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or ["no source distribution"]
        raise UpstreamError(f"pip can't fetch the source distribution of declearn {VERSION} ({said[-1]})")
    return found[0]


def _python_with_pip() -> str:
    """Find a Python that has pip: the one of script/test, this one (not where uv made it), the system's."""
    for python in (REPOSITORY / ".cache" / "uv" / "bin" / "python", sys.executable, shutil.which("python3")):
        if python is not None and Path(python).exists():
            words = [str(python), "-c", "import pip"]
            if subprocess.run(words, capture_output=True, check=False, timeout=deadline(30)).returncode == 0:
                return str(python)
    raise UpstreamError("no Python here has pip, which fetches declearn's source distribution")


def _unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the example alone into `folder`."""
    (folder / EXAMPLE).mkdir(parents=True)
    with tarfile.open(archive) as content:
        for member in content:
            path = PurePosixPath(member.name)
            stream = content.extractfile(member)
            if stream is not None and path.parent == PurePosixPath(f"declearn-{VERSION}") / EXAMPLE:
                (folder / EXAMPLE / path.name).write_bytes(stream.read())
    missing = sorted(name for name in SCRIPTS if not (folder / EXAMPLE / name).is_file())
    if missing:
        raise UpstreamError(f"the source distribution of declearn {VERSION} has no {EXAMPLE}/{missing[0]}")
    return folder
