"""A region drawn on its image, for people to look at."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Mask = NDArray[np.bool_]  # (H, W)

_DIM = 0.55  # share of light that is left outside of the region
_INSET = 0.38  # of the card's shorter side
_MAGNIFY = 1.5  # at least, or an inset is not worth its place
_SMALLEST_HOST = 64  # pixels; a smaller card has no room for an inset


def draw_region(image: Pixels, mask: Mask, stroke: int = 2) -> Pixels:
    """image (H, W, 3) uint8 and mask (H, W) bool -> (H, W, 3): a white line with a dark rim around the region, the rest dimmed.

    Args:
        stroke: width of the white line in pixels. It lies outside of the region, whose pixels are untouched.

    Raises:
        ValueError: shapes or dtypes that do not fit, or an empty mask.
    """
    _check(image, mask)
    line = binary_dilation(mask, iterations=stroke)
    rim = binary_dilation(line, iterations=max(1, stroke // 2))
    out = image.copy()
    out[~mask] = (image[~mask] * _DIM).astype(np.uint8)
    out[rim & ~line] = 16
    out[line & ~mask] = 255
    return out


def region_card(image: Pixels, mask: Mask, side: int = 640) -> Pixels:
    """The region drawn on its image, shrunk so that no side is longer than `side` pixels; a small region is shown magnified in a corner.

    The line is drawn after shrinking, so that it looks the same on every card.

    Raises:
        ValueError: as `draw_region`.
    """
    _check(image, mask)
    picture, shape = _shrink(image, mask, side)
    card = draw_region(picture, shape, stroke=max(2, side // 200))
    top, bottom, left, right = _box(mask)
    seen = max(bottom - top, right - left) * len(shape) / len(mask)
    if _INSET * min(shape.shape) < _MAGNIFY * seen or min(shape.shape) < _SMALLEST_HOST:
        return card
    return _with_inset(card, image[top:bottom, left:right], ((top + bottom) / 2 / len(mask), (left + right) / 2 / mask.shape[1]))


def encode_jpeg(picture: Pixels, quality: int = 92) -> bytes:
    """(H, W, 3) as JPEG without colour subsampling: an artefact that is seen shall be the region's own."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _with_inset(card: Pixels, crop: Pixels, centre: tuple[float, float]) -> Pixels:
    """Puts the magnified crop into the corner farthest from `centre`, (row, column) as fractions of the image."""
    factor = _INSET * min(card.shape[:2]) / max(crop.shape[:2])
    height, width = (max(1, round(n * factor)) for n in crop.shape[:2])
    inset = np.full((height + 4, width + 4, 3), 255, np.uint8)
    inset[2:-2, 2:-2] = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BICUBIC))
    out = card.copy()
    y = 8 if centre[0] > 0.5 else len(card) - len(inset) - 8
    x = 8 if centre[1] > 0.5 else card.shape[1] - inset.shape[1] - 8
    out[y : y + len(inset), x : x + inset.shape[1]] = inset
    return out


def _shrink(image: Pixels, mask: Mask, side: int) -> tuple[Pixels, Mask]:
    """A mask that vanishes at the smaller size keeps the pixel at its centre."""
    scale = min(1.0, side / max(mask.shape))
    height, width = (max(1, round(n * scale)) for n in mask.shape)
    picture = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    shape = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)).astype(bool)
    if not shape.any():
        top, bottom, left, right = _box(mask)
        shape = np.zeros((height, width), bool)
        shape[int((top + bottom) / 2 * scale), int((left + right) / 2 * scale)] = True
    return picture, shape


def _box(mask: Mask) -> tuple[int, int, int, int]:
    """top, bottom, left, right of the mask, ends excluded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _check(image: NDArray[Any], mask: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image is {image.shape} {image.dtype}: expected (H, W, 3) uint8")
    if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
        raise ValueError(f"the mask is {mask.shape} {mask.dtype}: expected {image.shape[:2]} bool, as the image")
    if not mask.any():
        raise ValueError("the mask is empty: there is no region to draw")
