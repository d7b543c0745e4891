"""Bytes that a visitor sends -> an image or a mask, or a sentence that says what is wrong with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from components.drawn_masks import of_image
from components.mask_encoders.base import FORMATS, Prompt
from components.mask_encoders.given import Given
from datamodules.images import SUFFIXES, ImageError, decode_image
from inference.page.limits import Limits, Refusal


def read_bytes(path: str | Path, limits: Limits) -> bytes:
    """An upload as the server stored it. Raises Refusal where it is too large."""
    size = Path(path).stat().st_size
    if size > limits.bytes:
        raise Refusal(f"This file has {size:,} bytes; the page takes {limits.bytes:,}. Save it smaller, or as JPEG.")
    return Path(path).read_bytes()


def read_image(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """-> (H, W, 3) uint8 RGB, upright.

    Raises:
        Refusal: no image, a damaged one, or one of too many pixels; it names no place on the server.
    """
    try:
        return decode_image(data, "of the upload", limits.pixels)
    except ImageError as error:
        raise Refusal(_told(data, error, limits)) from error


def read_mask(data: bytes, image: NDArray[np.uint8], limits: Limits) -> NDArray[np.bool_]:
    """A mask (H, W) bool of an image (H, W, 3), as `components.drawn_masks.of_image` reads it.

    Raises:
        Refusal: as `read_image`.
        RegionError: of another size than the image, black all over, or of several regions.
    """
    read_image(data, limits)  # refuses what is damaged or too large before anything else is made of it
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        inside = of_image(file, "this mask")
    return Given().forward(image, [Prompt(mask=inside)])[0]


def painted(layers: list[NDArray[np.uint8]], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What was painted on an image (H, W, 3), as one region (H, W) bool.

    Args:
        layers: (h, w, 4) uint8 each, at the size of the canvas; painted is what is not transparent.

    Raises:
        Refusal: nothing was painted.
    """
    height, width = image.shape[0], image.shape[1]
    inside = np.zeros((height, width), np.bool_)
    for layer in layers:
        rows, columns = np.arange(height) * layer.shape[0] // height, np.arange(width) * layer.shape[1] // width
        inside |= layer[..., 3][rows][:, columns] > 0
    if not inside.any():
        raise Refusal("Nothing is painted yet: paint over a part of the picture, then press the button.")
    return inside


def _told(data: bytes, error: ImageError, limits: Limits) -> str:
    if isinstance(error.__cause__, UnidentifiedImageError):
        forms = ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
        return f"This file is not an image that can be read. The page takes {forms}."
    if error.__cause__ is not None:
        return "This image is damaged or cut short: open it in another program and save it again."
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (OSError, Image.DecompressionBombError):
        width = height = 0
    if width * height > limits.pixels:
        return f"This image has {width} x {height} = {width * height:,} pixels; the page takes {limits.pixels:,}. Make it smaller."
    if not width:
        return f"This image has far more than the {limits.pixels:,} pixels that the page takes. Make it smaller."
    return "This image holds values that have no fixed range: convert it to 8 or 16 bits."
