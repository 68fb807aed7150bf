"""Examples as image files, in a folder a class: `<class>/*.png`, or `train/<class>/…` and `test/<class>/…`."""

from __future__ import annotations

import contextlib
import functools
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.errors import DataError
from services.readers.base import (
    CLASSES,
    MAX_VALUES,
    Contents,
    Part,
    Reading,
    Rows,
    check_count,
    checked,
    inside,
    natural,
    read_classes,
    visible,
)

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "images by class"
FORMATS: Mapping[str, str] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}
WANTED = f"<class>/*.png, or train/<class>/*.png; also {', '.join(list(FORMATS)[1:])}"
OPTIONS = ("size", "grayscale")

MAX_PIXELS = 2**26
"""Pixels of an image before it is resized; one that claims more is not decoded."""

OPAQUE = 255
"""Value of the alpha channel where nothing shines through."""

ORIENTATION, ON_ITS_SIDE = 0x0112, 5
"""Exif's tag of how a camera was held, and the first of its values by which height and width change places."""

_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
_GRAY = {"1", "L", "LA"}
_PARTS = {"train", "test", "valid", "val"}


def files(folder: Path, second: str) -> list[Path]:
    """List the images in `folder`.

    Raises:
        DataError: one is a link that leads out of it, or something else than an image lies among them.
    """
    folders = [path for path in visible(folder) if path.is_dir()]
    if not folders:
        return []
    names = [path.name for path in folders]
    loose = next((path for path in visible(folder) if path.suffix.lower() in FORMATS), None)
    if loose is not None:
        raise DataError(f"{loose} lies in no class's folder", WANTED, "move it into the folder of its class")
    if "train" in names:
        stray = next((name for name in names if name not in {"train", second}), None)
        if stray is not None:
            raise DataError(
                f"{folder} holds {stray}/ beside train/",
                f"train/ and {second}/ alone",
                "merge it, or move it elsewhere",
            )
        return [path for part in folders for images in _by_class(part, folder).values() for path in images]
    if part := next((name for name in names if name in _PARTS), None):
        raise DataError(f"{folder} holds {part}/ and no train/", WANTED, "name the folder of training images train")
    return [path for images in _by_class(folder, folder).values() for path in images]


def read(folder: Path, second: str, reading: Reading) -> Contents:
    """Read the images; their classes are numbered as `classes.txt` says, or else as the names of the folders sort.

    Images are gray where all are, or `grayscale` says so, and of three channels elsewhere.

    Raises:
        DataError: an image is unreadable, too large, transparent, or of another size than the first.
    """
    halves = (folder / "train").is_dir()
    train = _by_class(folder / "train" if halves else folder, folder)
    beside = _by_class(folder / second, folder) if halves and (folder / second).is_dir() else {}
    classes = read_classes(folder) or tuple(sorted(train, key=natural))
    check_count(len(classes), str(folder))
    for name in [*train, *beside]:
        if name not in classes:
            raise DataError(
                f"{folder} holds images of {name}",
                f"one of {', '.join(classes[:10])}{' …' * (len(classes) > 10)}",  # noqa: PLR2004 - enough to see
                f"rename its folder, or add the class to {CLASSES}"
                if (folder / CLASSES).exists()
                else "rename its folder, or give it training images",
            )
    everything = [path for part in (train, beside) for images in part.values() for path in images]
    if not any(train.values()):
        raise DataError(f"{folder} holds no image", WANTED, "put your images there")
    form = _form(everything, reading)
    second_part = _part(beside, classes, form, folder) if beside else None
    return Contents(_part(train, classes, form, folder), second_part, classes)


def _by_class(folder: Path, root: Path) -> dict[str, list[Path]]:
    """List the images of each class, the classes in the order of their names."""
    found = {}
    for path in visible(folder):
        if path.is_dir():
            found[path.name] = [_image(image, root) for image in visible(inside(path, root))]
        elif folder != root:
            raise DataError(f"{path} lies in no class's folder", WANTED, "move it into the folder of its class")
    return found


def _image(path: Path, root: Path) -> Path:
    if path.suffix.lower() not in FORMATS or path.is_dir():
        raise DataError(
            f"{path} lies among the images", f"images alone ({', '.join(FORMATS)})", "move it elsewhere, or convert it"
        )
    return inside(path, root)


def _form(paths: Sequence[Path], reading: Reading) -> tuple[tuple[int, ...], bool]:
    """Look at every image's header, and settle the size and whether there are colours."""
    sizes: dict[tuple[int, ...], Path] = {}
    gray = True
    for path in paths:
        with _open(path, str(path)) as image:
            gray = gray and (reading.grayscale or image.mode in _GRAY)
            # a photograph that lies on its side by its header is turned when it is decoded
            turned = image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= ON_ITS_SIDE
            sizes.setdefault((image.width, image.height) if turned else (image.height, image.width), path)
    if reading.size is None and len(sizes) > 1:
        (one, first), (two, second), *_ = sizes.items()
        raise DataError(
            f"{first} is an image of {one[0]} x {one[1]} and {second} one of {two[0]} x {two[1]}",
            "images of one height and width",
            "set data.size to the height and width that all should have",
        )
    size = reading.size or next(iter(sizes))
    if math.prod(size) * (1 if gray else 3) > MAX_VALUES:
        raise DataError(
            f"{paths[0]} is an image of {size[0]} x {size[1]}",
            f"at most {MAX_VALUES:,} values an image",
            "set data.size to the height and width that they should have",
        )
    return size, gray


def _part(
    images: Mapping[str, Sequence[Path]], classes: Sequence[str], form: tuple[tuple[int, ...], bool], root: Path
) -> Part:
    paths = [path for name in classes for path in images.get(name, ())]
    labels = [number for number, name in enumerate(classes) for _ in images.get(name, ())]
    size, gray = form
    shape = (len(paths), *size) if gray else (len(paths), *size, 3)
    fetch = functools.partial(_decode, paths, size, gray)
    return Part(checked(Rows(shape, np.dtype(np.uint8), fetch), str(root), None), np.array(labels, np.uint8))


def _decode(paths: Sequence[Path], size: tuple[int, ...], gray: bool, places: NDArray[np.intp]) -> NDArray[np.uint8]:  # noqa: FBT001 - filled in by position
    return np.stack([_pixels(paths[place], size, gray=gray) for place in places])


def _pixels(path: Path, size: tuple[int, ...], *, gray: bool) -> NDArray[np.uint8]:
    """Decode one image in the size and the colours asked for."""
    return fitted(upright(path, str(path)), size, gray=gray)


def upright(file: Path | BinaryIO, name: str) -> Image:
    """Decode one image, upright as its camera was held.

    Args:
        file: where it is.
        name: what to call it.

    Raises:
        DataError: it is no image, too large, of more than 8 bits a channel, or transparent in places.
    """
    from PIL import ImageOps  # noqa: PLC0415 - only where there are images

    with _open(file, name) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.has_transparency_data and turned.convert("RGBA").getchannel("A").getextrema()[0] != OPAQUE:
            raise DataError(f"{name} is transparent in places", "opaque images", "put it on a background")
        return turned.convert("L" if turned.mode in _GRAY else "RGB")


def fitted(image: Image, size: tuple[int, ...], *, gray: bool) -> NDArray[np.uint8]:
    """Give an image's pixels in the size (height, width) and the colours asked for."""
    image = image.convert("L" if gray else "RGB")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]))
    return np.asarray(image)


@contextlib.contextmanager
def _open(file: Path | BinaryIO, name: str) -> Iterator[Image]:
    """Open an image, of which at first the header alone is read.

    Raises:
        DataError: it can't be read, now or within the block, or is no image that can be trained on.
    """
    import PIL.Image  # noqa: PLC0415 - takes a while, and only where there are images

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # there is a limit of ours
            with PIL.Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PIL.Image.DecompressionBombError
                if image.mode not in _EIGHT_BITS:
                    raise DataError(
                        f"{name} has pixels of mode {image.mode}", "8 bits a channel", "convert it, or leave it out"
                    )
                yield image
    except PIL.Image.DecompressionBombError:
        raise DataError(
            f"{name} has more than {MAX_PIXELS:,} pixels", "no more than that", "make it smaller, or leave it out"
        ) from None
    except OSError as exc:
        if exc.errno is not None:
            raise DataError(f"{name} can't be read ({exc.strerror})", "", "mend its permissions") from exc
        raise _damaged(name) from None
    except (ValueError, TypeError, SyntaxError, EOFError, IndexError, OverflowError, struct.error, zlib.error):
        raise _damaged(name) from None


def _damaged(name: str) -> DataError:
    return DataError(
        f"{name} is no whole image", "an image that can be decoded", "restore it from where it came, or leave it out"
    )
