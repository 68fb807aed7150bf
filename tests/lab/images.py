"""Images for engines that have just been made: layers linked where that is possible, else loaded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import LabError, run


def check(images: Sequence[str]) -> None:
    """Refuse an image that this machine's engine does not have.

    Raises:
        LabError: it lacks one, or does not answer.
    """
    home()
    for image in images:
        if not run("docker", "images", "--quiet", image):
            raise LabError(f"image {image} is not here; wanted one to give to each host; build it with script/up")


def home() -> Path:
    """Tell where engines keep what they hold: where this machine's engine does, or links would not be possible."""
    return Path(run("docker", "info", "--format", "{{.DockerRootDir}}")) / "fed-lab"


def seed(folder: Path, images: Sequence[str]) -> None:
    """Give an engine that does not run yet the images of this machine's engine: layers by hard links, no byte copied.

    Layers are only ever read. Where the other engine keeps them otherwise, nothing is done: see `load`.
    """
    with contextlib.suppress(OSError):  # what can't be linked is loaded
        _seed(folder / "data", images)
        return
    shutil.rmtree(folder / "data", ignore_errors=True)


def _seed(target: Path, images: Sequence[str]) -> None:
    told = json.loads(run("docker", "info", "--format", "{{json .}}"))
    source = Path(told["DockerRootDir"])
    kept = source / "image" / "overlay2"
    if told["Driver"] != "overlay2" or not kept.is_dir():
        return
    ids: dict[str, str] = {}
    for image in images:
        found = json.loads(run("docker", "image", "inspect", image))[0]
        ids[image if ":" in image else f"{image}:latest"] = found["Id"]
        layers = found["GraphDriver"]["Data"]
        diffs = [layers["UpperDir"], *layers.get("LowerDir", "").split(":")]
        for diff in filter(None, diffs):
            layer = Path(diff).parent
            place = target / "overlay2" / layer.name
            if place.exists():
                continue
            shutil.copytree(layer, place, symlinks=True, copy_function=_link, ignore=shutil.ignore_patterns("work"))
            _like(layer, place)
            (place / "work").mkdir(exist_ok=True)
            short = target / "overlay2" / "l" / (layer / "link").read_text()
            short.parent.mkdir(exist_ok=True)
            short.symlink_to(f"../{layer.name}/diff")
    place = target / "image" / "overlay2"
    (place / "imagedb" / "content" / "sha256").mkdir(parents=True)
    for digest in {found.removeprefix("sha256:") for found in ids.values()}:
        content = Path("imagedb") / "content" / "sha256" / digest
        shutil.copy2(kept / content, place / content)
    shutil.copytree(kept / "layerdb" / "sha256", place / "layerdb" / "sha256")
    names = {name.split(":")[0]: {name: digest} for name, digest in ids.items()}
    (place / "repositories.json").write_text(json.dumps({"Repositories": names}))


def load(image: str, command: Sequence[str], socket: Path) -> None:
    """Load an image of this machine's engine into another, byte by byte.

    Args:
        image: its name.
        command: runs `docker load` where the other engine is.
        socket: of that engine.
    """
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        environment = os.environ | {"DOCKER_HOST": f"unix://{socket}"}
        done = subprocess.run(
            command, stdin=saved.stdout, env=environment, capture_output=True, text=True, check=False, timeout=1200
        )
    if done.returncode != 0 or saved.returncode != 0:
        raise LabError(f"{image} can't be loaded into the engine at {socket}: {done.stderr.strip()}")


def _link(source: str, target: str) -> str:
    os.link(source, target, follow_symlinks=False)
    return target


def _like(source: Path, target: Path) -> None:
    """Give folders of a copy the owner and the extended attributes of the original; files are the same files."""
    for folder, names, _ in os.walk(source):
        copy = target / Path(folder).relative_to(source)
        if not copy.is_dir():
            names.clear()
            continue
        found = os.lstat(folder)
        os.chown(copy, found.st_uid, found.st_gid)
        copy.chmod(found.st_mode & 0o7777)
        for attribute in os.listxattr(folder):
            os.setxattr(copy, attribute, os.getxattr(folder, attribute))
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
