"""Which pixels a drawn mask means: one region, told from soft edges and from a map of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import maximum_filter, minimum_filter

from components.rle import RegionError

Mask = NDArray[np.bool_]  # (H, W)

_EDGE = 9  # pixels; shades that fill a square of this side are no edge, but what is drawn
_LOSSY = ("JPEG", "MPO", "WEBP")  # formats whose black and white may come back as greys


def of_array(array: NDArray[Any]) -> Mask:
    """(H, W) -> (H, W) bool: what is not 0, of booleans, of integers that are 0 or one other value, or of floats that are 0 or 1.

    Raises:
        RegionError: other values. Labels and probabilities do not say by themselves which pixels are meant.
    """
    inside = np.asarray(array != 0)
    if array.dtype.kind == "f":
        if (array != inside).any():
            raise RegionError(f"a mask of floats holds 0 and 1 alone, got {_few(array)}: say what is inside, for instance mask > 0.5")
        return inside
    values = array[inside]
    if values.size and (values != values[0]).any():
        raise RegionError(
            f"a mask of integers holds 0 and one other value, got {_few(array)}: of a map of labels take one, labels == k, and of soft "
            "edges what is inside, for instance mask > 127"
        )
    return inside


def of_image(image: Image.Image, name: str) -> Mask:
    """An image file, as it was opened -> (H, W) bool, upright. Inside is what is not black. Where some of the file is transparent, inside
    is instead: not fully transparent.

    Of greys or shades that are an edge alone, as those of a line drawn smoothly, inside is what is lighter than half of the lightest; so
    it is in a file whose compression loses something, in which black and white are blurred into each other.

    Args:
        name: what errors call it.

    Raises:
        RegionError: areas of several greys or colours, 3 x 3 pixels at least, as a map of labels has; shades wider than an edge; or NaN.
    """
    lossy, image = image.format in _LOSSY, ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if (alpha < 255).any():
            return alpha > 0
    values, light = _values(image)
    between = (values != 0) & (values != values.max())
    if not between.any():
        return values != 0
    if np.isnan(light).any():
        raise RegionError(f"{name} holds NaN, which is neither inside nor outside: save the mask in black and white")
    spread, half = 0, light.max() / 2 if light.dtype.kind == "f" else light.max() // 2
    if lossy:
        values = light = np.asarray(image.convert("L"))
        top = int(np.median(light[light > light.max() // 2])) if light.any() else 0  # the edge overshoots
        near = max(top // 8, min(8, top // 3))  # of dark colours compression keeps less
        between = (light > near) & ((light < top - near) | (light > top + near))
        spread, half = top // 16, top // 2
    even = maximum_filter(values, 3) - minimum_filter(values, 3) <= spread
    if (between & even).any():
        raise RegionError(
            f"{name} holds areas of several greys or colours, as a map of labels does, and a mask is one region: save the one that is "
            "meant in black and white, for instance Image.fromarray(labels == k).save('mask.png')"
        )
    if minimum_filter(between, _EDGE, mode="constant").any():
        raise RegionError(f"{name} holds shades over whole areas, wider than an edge: save what is inside in black and white")
    return np.asarray(light > half)


def _values(image: Image.Image) -> tuple[NDArray[Any], NDArray[Any]]:
    """(H, W) a number for each grey or colour, 0 for black and the largest for one of the lightest; (H, W) how light each pixel is."""
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        grey = np.asarray(image)
        return grey, grey
    colours = np.asarray(image.convert("RGB"))  # (H, W, 3)
    light = colours.max(axis=2)
    values = light.astype(np.uint32)
    for channel in range(3):
        values = values << 8 | colours[..., channel]
    return values, light


def _few(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f" and np.isnan(array).any():
        return "NaN"
    values = np.unique(array)
    return ", ".join(f"{v:g}" for v in values[:4]) + (f", ... ({values.size} values)" if values.size > 4 else "")
