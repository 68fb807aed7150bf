"""A folder of a person's own data: what is in it is recognised by the names of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from services.errors import DataError, ExperimentError
from services.readers import arrays, idx, images, table
from services.readers.base import CLASSES, Contents, Reading, Rows, inside, read_classes
from services.shards import Shard

KINDS: tuple[Any, ...] = (arrays, table, idx, images)
"""The readers, each a module of `KIND`, `WANTED`, `OPTIONS` (what of a `Reading` counts), `files` and `read`."""


@dataclass(frozen=True)
class Folder:
    """A folder that was looked through, and not read yet.

    Attributes:
        path: of it.
        second: name of what stands beside what is trained on: `test`, or `valid` at a site.
        kind: the module that reads it.
        files: what would be read, in the order of their names.
    """

    path: Path
    second: str
    kind: Any
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """A digest of the names and the bytes of all that would be read.

        Raises:
            DataError: a file can't be read.
        """
        names = [path.relative_to(self.path).as_posix() for path in self.files]
        digests = [_digest(path) for path in self.files]
        return hashlib.sha256("".join(f"{d} {n}\n" for d, n in zip(digests, names, strict=True)).encode()).hexdigest()

    def read(self, reading: Reading) -> Contents:
        """Read it.

        Raises:
            DataError: what is there can't be read, or can't be trained on.
            ExperimentError: something is set that counts with another kind of data.
        """
        idle = next(
            (o.name for o in fields(reading) if getattr(reading, o.name) and o.name not in self.kind.OPTIONS), ""
        )
        if idle:
            counts = [kind.KIND for kind in KINDS if idle in kind.OPTIONS]
            raise ExperimentError(
                f"data.{idle} is set, and {self.path} holds {self.kind.KIND}",
                f"{' or '.join(counts)}",
                f"remove data.{idle}",
            )
        contents: Contents = self.kind.read(self.path, self.second, reading)
        train, second = contents.train.rows, contents.second
        if second is not None and (second.rows.shape[1:], second.rows.dtype) != (train.shape[1:], train.dtype):
            raise DataError(
                f"{self.path} holds examples to train on of {_form(train)} and others ({self.second}) of"
                f" {_form(second.rows)}",
                "one shape and type",
                "write both alike",
            )
        return contents


def look(path: Path, second: str) -> Folder:
    """Tell what is in a folder.

    Raises:
        DataError: it can't be read, holds nothing that is known, or things of several kinds.
    """
    try:
        found = {kind: kind.files(path, second) for kind in KINDS}
    except OSError as exc:  # a folder that may be listed, and not entered
        raise DataError(
            f"{exc.filename or path} can't be read ({exc.strerror or exc})", "", "mend the permissions of its folder"
        ) from exc
    found = {kind: files for kind, files in found.items() if files}
    if not found:
        raise DataError(
            f"{path} holds no data that is known",
            "; or ".join(f"{kind.KIND} ({kind.WANTED})" for kind in KINDS),
            "put your data there, or set DATA to its folder",
        )
    if len(found) > 1:
        one, two, *_ = ((kind.KIND, files[0].relative_to(path)) for kind, files in found.items())
        raise DataError(
            f"{path} holds {one[0]} ({one[1]}) and {two[0]} ({two[1]})", "one kind", "move the other one elsewhere"
        )
    ((kind, files),) = found.items()
    names = inside(path / CLASSES, path)
    return Folder(path, second, kind, tuple([*files, names] if names.exists() else files))


def load_site(path: Path) -> Shard:
    """Read a site's own data into memory: to train on, and to validate on where there is such a part.

    Whether the federation's model takes such examples and knows such labels is seen when it arrives.

    Raises:
        DataError: what is there can't be read, or can't be trained on.
    """
    contents = look(path, "valid").read(Reading())
    train, valid = contents.train, contents.second
    classes = read_classes(path) or contents.classes
    if valid is None:
        return Shard(_whole(train.rows), train.labels, None, None, classes)
    return Shard(_whole(train.rows), train.labels, _whole(valid.rows), valid.labels, classes)


def _whole(rows: Rows) -> Any:
    return rows[np.arange(len(rows))]


def _form(rows: Rows) -> str:
    return f"{rows.shape[1:]} as {rows.dtype}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path} can't be read ({exc.strerror or exc})", "", "mend its permissions") from exc
