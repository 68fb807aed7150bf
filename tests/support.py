"""What tests of several rooms share, beside fixtures."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.init.dataset import IdxFile, Source

REPOSITORY = Path(__file__).parent.parent
RAW = REPOSITORY / "data" / "mnist_raw"


def deadline(seconds: float) -> float:
    """Give a time limit in seconds, stretched by FED_TESTS_TIMEOUT_FACTOR on slow machines."""
    return seconds * float(os.environ.get("FED_TESTS_TIMEOUT_FACTOR", "1"))


def write_source(raw: Path, train: int, test: int, seed: int = 0) -> Source:
    """Write a made-up data set of the shape of MNIST: `train` and `test` images of noise, classes in random order."""
    rng = np.random.default_rng(seed)
    raw.mkdir(parents=True, exist_ok=True)

    def write(name: str, array: NDArray[np.uint8]) -> IdxFile:
        content = IdxFile(name, array.shape, "").header + array.tobytes()
        (raw / name).write_bytes(gzip.compress(content, 1))
        return IdxFile(name, array.shape, hashlib.sha256(content).hexdigest())

    def images(count: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)

    def labels(count: int) -> NDArray[np.uint8]:
        return rng.permutation(np.arange(count) % 10).astype(np.uint8)

    return Source(
        "mnist",
        write("train-images-idx3-ubyte.gz", images(train)),
        write("train-labels-idx1-ubyte.gz", labels(train)),
        write("t10k-images-idx3-ubyte.gz", images(test)),
        write("t10k-labels-idx1-ubyte.gz", labels(test)),
    )


def stats(root: Path) -> dict[str, tuple[int, int]]:
    """Give inode and time of change of every file below `root`; a file written anew differs in both."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def contents(root: Path) -> dict[str, bytes]:
    """Give the content of every file below `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Put back the root logger as it was, pytest's own handlers included, and close those that came meanwhile."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    handler.stream.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
