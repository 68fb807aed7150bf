"""Folders of a person's own data: recognised by what is in them, told apart by their bytes, read at a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.errors import DataError, ExperimentError
from services.readers import arrays, idx, images, table
from services.readers.base import Reading
from services.readers.folder import load_site, look
from tests.readers import test_idx, test_images

TABLE = "label,a\n0,1\n1,2\n"


def _arrays(folder: Path) -> None:
    np.save(folder / "images.npy", np.zeros((4, 3, 3), np.uint8))
    np.save(folder / "labels.npy", np.array([0, 1, 0, 1]))


def _table(folder: Path) -> None:
    (folder / "mine.csv").write_text(TABLE)


def _idx(folder: Path) -> None:
    test_idx.write(folder)


def _images(folder: Path) -> None:
    for name in ("a", "b"):
        test_images.write(folder / name / "1.png")


MADE = {arrays: _arrays, table: _table, idx: _idx, images: _images}


@pytest.mark.parametrize("kind", MADE)
def test_each_kind_is_recognised(tmp_path: Path, kind: Any) -> None:
    """Arrays, tables, IDX files and images are each recognised, whatever else that is no data lies beside them."""
    MADE[kind](tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden.npy").touch()
    assert look(tmp_path, "test").kind is kind
    assert look(tmp_path, "test").read(Reading()).train.labels.size > 1


def test_several_kinds_are_refused(tmp_path: Path) -> None:
    """A folder with data of two kinds is refused with a file of each."""
    _arrays(tmp_path)
    _table(tmp_path)
    with pytest.raises(DataError) as caught:
        look(tmp_path, "test")
    assert str(caught.value) == (
        f"{tmp_path} holds arrays (images.npy) and a table (mine.csv); wanted one kind; move the other one elsewhere"
    )


def test_nothing_known_is_refused(tmp_path: Path) -> None:
    """A folder without data, or that is none, is refused with all that would be known."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        look(tmp_path, "test")
    assert str(caught.value).startswith(f"{tmp_path} holds no data that is known; wanted arrays (train_data.npy with")
    with pytest.raises(DataError, match=r"nowhere can't be read \(No such file or directory\); wanted a folder of"):
        look(tmp_path / "nowhere", "test")


@pytest.mark.parametrize("kind", MADE)
def test_the_digest_is_of_what_is_read(tmp_path: Path, kind: Any) -> None:
    """Another byte, another name or a file more is another data set; the same files elsewhere are the same one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        MADE[kind](tmp_path / name)
        (tmp_path / name / "README.md").write_text(name)
    one, two = (look(tmp_path / name, "test") for name in ("one", "two"))
    assert one.sha256 == two.sha256
    digests = {one.sha256}
    (tmp_path / "one" / "classes.txt").write_text("a\nb\n")
    digests.add(look(tmp_path / "one", "test").sha256)
    changed = two.files[0]
    changed.write_bytes(changed.read_bytes() + b"\n")
    digests.add(look(tmp_path / "two", "test").sha256)
    changed.rename(changed.with_name(f"x-{changed.name}"))
    digests.add(look(tmp_path / "two", "test").sha256)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("kind", "option", "line"),
    [
        (arrays, {"size": (2, 2)}, "data.size is set, and DATA holds arrays; wanted images by class; remove data.size"),
        (idx, {"label": "x"}, "data.label is set, and DATA holds IDX files; wanted a table; remove data.label"),
        (table, {"grayscale": True}, "data.grayscale is set, and DATA holds a table; wanted images by class; remove"),
        (
            images,
            {"shape": (3, 3)},
            "data.shape is set, and DATA holds images by class; wanted arrays or a table or IDX",
        ),
    ],
)
def test_what_counts_with_another_kind_is_refused(tmp_path: Path, kind: Any, option: Any, line: str) -> None:
    """An option that would do nothing to the data that are there is a mistake in the experiment file."""
    MADE[kind](tmp_path)
    with pytest.raises(ExperimentError) as caught:
        look(tmp_path, "test").read(Reading(**option))
    assert str(caught.value).replace(str(tmp_path), "DATA").startswith(line)


def test_both_parts_are_alike(tmp_path: Path) -> None:
    """What is tested on has the shape and type of what is trained on."""
    _arrays(tmp_path)
    np.save(tmp_path / "test_data.npy", np.zeros((4, 3, 3), np.float32))
    np.save(tmp_path / "test_target.npy", np.array([0, 1, 0, 1]))
    with pytest.raises(DataError) as caught:
        look(tmp_path, "test").read(Reading())
    assert str(caught.value) == (
        f"{tmp_path} holds examples to train on of (3, 3) as uint8 and others (test) of (3, 3) as float32;"
        " wanted one shape and type; write both alike"
    )


def test_a_site_may_have_any_kind(tmp_path: Path) -> None:
    """A site's images, with their names and those to validate on, are read as its arrays are."""
    for part, name in (("train", "cat"), ("train", "dog"), ("valid", "dog")):
        test_images.write(tmp_path / part / name / "1.png")
    shard = load_site(tmp_path)
    np.testing.assert_array_equal(shard.train_images, [test_images.GRAY] * 2)
    assert shard.train_labels.tolist() == [0, 1]
    assert shard.valid_labels is not None
    assert shard.valid_labels.tolist() == [1]
    assert shard.classes == ("cat", "dog")


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose files may be listed and not looked at is refused with the system's reason."""
    _images(tmp_path)

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError) as caught:
        look(tmp_path, "test")
    assert str(caught.value) == f"{tmp_path}/a can't be read (Permission denied); mend the permissions of its folder"


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """What the system refuses to read is named with its reason."""
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(DataError, match=r"train\.csv can't be read \(Is a directory\); mend its permissions"):
        _ = look(tmp_path, "test").sha256
