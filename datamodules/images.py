"""Image files, whatever they hold, as upright 8-bit RGB."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from components.mask_encoders.base import FORMATS

MAX_PIXELS = 100_000_000
BACKDROP = (255, 255, 255)  # RGB behind transparent pixels: what a browser shows
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_OPENING = threading.Lock()


class ImageError(ValueError):
    """An image file or folder that cannot be used: missing, unreadable, damaged, too large, or of an unknown sort."""


def load_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Reads an image file: -> (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Greyscale, palette, one-bit and CMYK images become RGB; 16-bit greyscale is scaled to 8 bits; what is transparent shows
    `BACKDROP`; of an animation the first frame is read. Colour profiles are not applied.

    Args:
        path: the file.
        max_pixels: the largest width x height that is decoded; the header is checked first. Pillow's own limit is not used.

    Raises:
        ImageError: missing, not an image, damaged, too large, or of a sort that has no 8-bit RGB form.
    """
    path = Path(path)
    _check_there(path)
    return _decoded(path, str(path), max_pixels)


def image_bytes(path: Path) -> bytes:
    """An image file as it stands, for `decode_image`. Raises ImageError where it is missing, or the system does not let it be read."""
    _check_there(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"image {path} cannot be read ({error.strerror}): check who may read it") from error


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """As `load_image`, of an encoded image in memory; `name` is what errors call it."""
    return _decoded(io.BytesIO(data), name, max_pixels)


def is_file(path: Path) -> bool:
    """Whether a file is there; no name that a file system refuses, for its length say, is one."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises for such a name)


def _check_there(path: Path) -> None:
    if not is_file(path):
        folder = os.path.isdir(path)  # noqa: PTH112 (as in `is_file`)
        what = "is a folder: see list_images" if folder else "does not exist: check the path and the root it is relative to"
        raise ImageError(f"image {path} {what}")


def _decoded(source: Path | io.BytesIO, name: str, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with _open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"image {name} has {width} x {height} = {width * height} pixels, allowed are max_pixels={max_pixels}: "
                    "reduce the image or raise max_pixels"
                )
            return _rgb(image, name)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read: remove it from the list or convert it to PNG or JPEG") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble on in a damaged file
        raise ImageError(f"image {name} cannot be decoded ({error}): it is truncated or damaged, fetch it again or remove it") from error


def to_rgb(image: Image.Image, name: str = "") -> NDArray[np.uint8]:
    """As `load_image`, of an image that Pillow has opened; `name` is what errors call it."""
    try:
        return _rgb(image, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as above
        raise ImageError(f"image {name} cannot be decoded ({error}): it is truncated or damaged") from error


def array_to_rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    """As `load_image`, of the pixels of a PNG: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, or (H, W, 2) and (H, W, 4) with alpha behind them,
    uint8 or uint16. A copy, whatever it is given.

    Raises:
        ImageError: another form.
    """
    channels = {2: 1, 3: array.shape[-1]}.get(array.ndim) if array.size else None
    if channels not in (1, 2, 3, 4) or array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ImageError(
            "an image is an array (height, width) or (height, width, 1) of grey, (height, width, 3) of RGB, or with alpha as one channel "
            f"more, uint8 or uint16, not empty; got shape {array.shape} of {array.dtype}"
        )
    if channels == 1:
        array = array.reshape(array.shape[:2])
    elif array.dtype.itemsize == 2:
        array = (array >> 8).astype(np.uint8)  # as Pillow reads colour of 16 bits
    return np.array(array, order="C") if channels == 3 else to_rgb(Image.fromarray(np.ascontiguousarray(array)), "array")


def list_images(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The image files (by `suffixes`, any case) in a folder and its subfolders, sorted by path; names with a leading dot are left out.

    Raises:
        ImageError: no such folder, or no images in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file: see load_image" if folder.is_file() else "does not exist: check the path"
        raise ImageError(f"image folder {folder} {what}")
    files = [p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()]
    if not files:
        raise ImageError(
            f"image folder {folder} holds no images: files that end in {', '.join(suffixes)} are looked for, in subfolders too"
        )
    return sorted(files, key=lambda p: p.relative_to(folder).parts)


def _open(source: Path | io.BytesIO) -> Image.Image:
    """Reads the header only, Pillow's limit put aside: it is a global, warns before it refuses, and knows no `max_pixels`."""
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image), name))
    elif image.mode == "F":
        raise ImageError(f"image {name} holds floating-point values, which have no fixed range: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKDROP, 255)), image)
    return np.array(image.convert("RGB"))  # (H, W, 3)


def _eight_bits(grey: NDArray[np.integer[Any]], name: str) -> NDArray[np.uint8]:
    """(H, W) in [0, 65535] -> [0, 255], rounded. 16-bit files reach us in 16- or 32-bit integers, depending on their format."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"image {name} holds integers from {values.min()} to {values.max()}, not 16-bit grey levels: convert it to 8 or 16 bits"
        )
    return ((values * 255 + 32767) // 65535).astype(np.uint8)
