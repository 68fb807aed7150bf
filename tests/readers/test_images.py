"""Images by class: what is decoded, in which order, and what is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from services.errors import DataError
from services.readers import images as reader
from services.readers.base import Contents, Reading
from services.readers.folder import look

GRAY = np.arange(20, dtype=np.uint8).reshape(5, 4)
COLOUR = np.stack([GRAY, GRAY + 50, GRAY + 100], axis=2)


def write(path: Path, array: NDArray[np.uint8] = GRAY, mode: str | None = None, **options: Any) -> Path:
    """Write an image, in another mode where one is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def read(folder: Path, second: str = "test", **how: Any) -> Contents:
    """Read a folder."""
    return reader.read(folder, second, Reading(**how))


def refusal(folder: Path, **how: Any) -> str:
    """Read a folder to its last pixel, which must fail, and give the line without the folder's name."""
    with pytest.raises(DataError) as caught:
        list(read(folder, **how).train.rows.blocks())
    return str(caught.value).replace(f"{folder}/", "")


def everything(folder: Path) -> None:
    """Look through a folder, and read it to its last pixel."""
    for _ in look(folder, "test").read(Reading()).train.rows.blocks():
        pass


def test_classes_are_folders(tmp_path: Path) -> None:
    """Folders are classes in the order of their names, numbers by value; their images come in that order."""
    for number, name in enumerate(["10", "9", "2"]):
        for file in ("b.png", "a.PNG", "c.bmp"):
            write(tmp_path / name / file, GRAY + number)
    contents = read(tmp_path)
    assert contents.classes == ("2", "9", "10")
    assert contents.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert contents.second is None
    np.testing.assert_array_equal(contents.train.rows[np.array([8, 0, 3])], [GRAY, GRAY + 2, GRAY + 1])


def test_a_test_set_has_its_own_folder(tmp_path: Path) -> None:
    """`train/` and `test/` hold the same classes; one that `train/` does not have is refused."""
    for part, name in (("train", "cat"), ("train", "dog"), ("test", "dog")):
        write(tmp_path / part / name / "1.png")
    contents = read(tmp_path)
    assert contents.classes == ("cat", "dog")
    assert contents.second is not None
    assert contents.second.labels.tolist() == [1]
    write(tmp_path / "test" / "cow" / "1.png")
    assert refusal(tmp_path).endswith(
        "holds images of cow; wanted one of cat, dog; rename its folder, or give it training images"
    )


def test_a_list_of_classes_numbers_them(tmp_path: Path) -> None:
    """`classes.txt` says which folder is which number, also of a class that has no folder here."""
    for name in ("cat", "dog"):
        write(tmp_path / name / "1.png")
    (tmp_path / "classes.txt").write_text("dog\ncow\ncat\n")
    contents = read(tmp_path)
    assert contents.classes == ("dog", "cow", "cat")
    assert contents.train.labels.tolist() == [0, 2]
    (tmp_path / "classes.txt").write_text("dog\ncow\n")
    assert refusal(tmp_path).endswith(
        "holds images of cat; wanted one of dog, cow; rename its folder, or add the class to classes.txt"
    )


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK"])
def test_colours_have_three_channels(tmp_path: Path, mode: str) -> None:
    """One image in colour makes all of them red, green and blue; `grayscale` makes all of them gray."""
    write(tmp_path / "a" / "1.png")
    suffix = "jpg" if mode == "CMYK" else "png"
    write(tmp_path / "b" / f"1.{suffix}", COLOUR, mode)
    rows = read(tmp_path).train.rows
    assert rows.shape == (2, 5, 4, 3)
    np.testing.assert_array_equal(rows[np.array([0])][0], np.repeat(GRAY[..., None], 3, axis=2))
    if mode in {"RGB", "RGBA"}:
        np.testing.assert_array_equal(rows[np.array([1])][0], COLOUR)
    assert read(tmp_path, grayscale=True).train.rows[np.arange(2)].shape == (2, 5, 4)


def test_sizes_are_one(tmp_path: Path) -> None:
    """Images of different sizes are refused with two of them, until `size` says what all are resized to."""
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "a" / "2.png", GRAY[:3])
    write(tmp_path / "b" / "3.png")
    assert refusal(tmp_path) == (
        f"a/1.png is an image of 5 x 4 and {tmp_path}/a/2.png one of 3 x 4; wanted images of one height and width;"
        " set data.size to the height and width that all should have"
    ).replace(f"{tmp_path}/", "")
    rows = read(tmp_path, size=(7, 2)).train.rows
    assert rows[np.arange(3)].shape == rows.shape == (3, 7, 2)


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    """A camera that was held on its side says so in the file, and its picture is turned."""
    exif = PIL.Image.Exif()
    exif[reader.ORIENTATION] = 6
    write(tmp_path / "a" / "1.jpg", np.repeat(np.arange(0, 250, 25, dtype=np.uint8)[:, None], 8, 1), exif=exif)
    write(tmp_path / "b" / "2.png", np.zeros((8, 10), np.uint8))
    rows = read(tmp_path).train.rows
    assert rows.shape == (2, 8, 10)
    picture = rows[np.array([0])][0]
    assert (np.diff(picture[4].astype(int)) < 0).all()


def test_hidden_files_are_nobodys(tmp_path: Path) -> None:
    """What systems leave behind is passed over."""
    for name in ("a", "b"):
        write(tmp_path / name / "1.png")
    (tmp_path / "a" / ".DS_Store").touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".git").mkdir()
    assert read(tmp_path).classes == ("a", "b")
    assert len(reader.files(tmp_path, "test")) == 2


def _loose(folder: Path) -> None:
    write(folder / "1.png")


def _stranger(folder: Path) -> None:
    (folder / "a" / "notes.txt").touch()


def _nested(folder: Path) -> None:
    write(folder / "a" / "more" / "1.png")


def _halves(folder: Path) -> None:
    write(folder / "test" / "a" / "1.png")


def _third(folder: Path) -> None:
    write(folder / "train" / "a" / "1.png")


def _truncated(folder: Path) -> None:
    path = write(folder / "a" / "2.png", np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-30])


def _text(folder: Path) -> None:
    (folder / "a" / "2.png").write_text("not an image")


def _empty(folder: Path) -> None:
    (folder / "a" / "2.jpg").touch()


def _deep(folder: Path) -> None:
    write(folder / "a" / "2.png", np.zeros((5, 4), np.uint16))


def _transparent(folder: Path) -> None:
    write(folder / "a" / "2.png", np.full((5, 4, 4), 9, np.uint8))


def _escaping(folder: Path) -> None:
    (folder / "a" / "2.png").symlink_to(write(folder.parent / "elsewhere.png"))


def _looping(folder: Path) -> None:
    (folder / "a" / "2.png").symlink_to(folder / "a" / "2.png")


def _escaping_folder(folder: Path) -> None:
    write(folder.parent / "elsewhere" / "1.png")
    (folder / "c").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_loose, "1.png lies in no class's folder; wanted <class>/*.png, or train/<class>/*.png; also .jpg, .jpeg,"),
        (_stranger, "a/notes.txt lies among the images; wanted images alone (.png, .jpg, .jpeg, .bmp, .webp); move"),
        (_nested, "a/more lies among the images; wanted images alone"),
        (_halves, "DATA holds test/ and no train/; wanted <class>/*.png, or train/<class>/*.png;"),
        (_third, "DATA holds a/ beside train/; wanted train/ and test/ alone; merge it, or move it elsewhere"),
        (_truncated, "a/2.png is no whole image; wanted an image that can be decoded; restore it from where it came,"),
        (_text, "a/2.png is no whole image; wanted an image that can be decoded;"),
        (_empty, "a/2.jpg is no whole image; wanted an image that can be decoded;"),
        (_deep, "a/2.png has pixels of mode I;16; wanted 8 bits a channel; convert it, or leave it out"),
        (_transparent, "a/2.png is transparent in places; wanted opaque images; put it on a background"),
        (_escaping, "a/2.png is a link that leads out of its folder; wanted files that lie in it; put the file itself"),
        (_looping, "a/2.png is a link that leads out of its folder; wanted files that lie in it;"),
        (_escaping_folder, "c is a link that leads out of its folder; wanted files that lie in it;"),
    ],
)
def test_what_is_no_image_of_a_class_is_refused(tmp_path: Path, change: Any, line: str) -> None:
    """A file that is damaged, of another kind, out of place or elsewhere is named, with what to do about it."""
    folder = tmp_path / "DATA"
    for name in ("a", "b"):
        write(folder / name / "1.png")
    change(folder)
    with pytest.raises(DataError) as caught:
        everything(folder)
    assert str(caught.value).replace(f"{folder}/", "").replace(f"{tmp_path}/", "").startswith(line)


def test_absurd_images_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that claims more pixels than are decoded, or more than a model takes, is refused by its header."""
    for name in ("a", "b"):
        write(tmp_path / name / "1.png", np.zeros((3000, 1500), np.uint8))
    assert refusal(tmp_path) == (
        "a/1.png is an image of 3000 x 1500; wanted at most 4,194,304 values an image;"
        " set data.size to the height and width that they should have"
    )
    assert read(tmp_path, size=(8, 4)).train.rows[np.arange(2)].shape == (2, 8, 4)
    monkeypatch.setattr(reader, "MAX_PIXELS", 10**6)
    assert refusal(tmp_path, size=(8, 4)) == (
        "a/1.png has more than 1,000,000 pixels; wanted no more than that; make it smaller, or leave it out"
    )
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10**6)
    assert refusal(tmp_path, size=(8, 4)).startswith("a/1.png has more than")


def test_one_class_is_none(tmp_path: Path) -> None:
    """Images of one class, or no image at all, leave nothing to learn."""
    write(tmp_path / "a" / "1.png")
    assert refusal(tmp_path).endswith("holds 1 class; wanted from 2 to 256 classes; add another class")
    (tmp_path / "a" / "1.png").unlink()
    (tmp_path / "b").mkdir()
    assert refusal(tmp_path).endswith("holds no image; wanted " + reader.WANTED + "; put your images there")
