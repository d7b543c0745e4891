"""What is drawn is the region: boxes, polygons, RLE and masks become masks of the image's size; no model, no weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from pycocotools import mask as coco

from components import drawn_masks
from components import rle as rle_code
from components.drawn_masks import Mask
from components.mask_encoders.base import FORMATS, MASK_ENCODERS, Code, Image, MaskEncoder, Masks, Prompt, image_size, rings_of
from components.rle import RegionError

_LONGEST_OUTLINE = 2_000_000  # pixels; pycocotools walks a polygon's outline in steps of 1/5 pixel, in 32-bit integers


@MASK_ENCODERS.register("given")
class Given(MaskEncoder):
    """Boxes, polygons, RLE and masks as they are. A point is refused: it says where, not how far."""

    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool.

        Raises:
            RegionError: a point, or a region that is empty, outside the image, of another size, or unreadable.
        """
        size = image_size(image)
        masks = np.zeros((len(prompts), *size), dtype=np.bool_)
        for mask, prompt in zip(masks, prompts, strict=True):
            mask[:] = _draw(prompt, size)
        return masks

    def codes(self, image: Image, prompts: Sequence[Prompt]) -> list[Code]:
        """See the contract; of a box, a polygon or a code no mask is made."""
        return [_code(prompt, image_size(image)) for prompt in prompts]

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """No options."""
        return {}


def box_edges(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a box: left, top, right, bottom, the last two exclusive, in an image of `size` (height, width).

    The box is cut to the image; the pixels whose centres lie in it (left and top edge included) are its own, so that boxes
    which share an edge share no pixel. A box that holds no centre, being thinner than a pixel, owns the pixel at its middle.

    Raises:
        RegionError: not four finite numbers, width or height not positive, or wholly outside the image.
    """
    if len(box) != 4 or not np.isfinite(box).all():
        raise RegionError(f"a box is left, top, width, height: four finite numbers of pixels, got {box}")
    left, top, width, height = (float(v) for v in box)
    if width <= 0 or height <= 0:
        raise RegionError(
            f"a box is left, top, width, height, got a width of {width:g} and a height of {height:g}; if these are corners, left, top, "
            "right, bottom, take the first two from the last two: 40 30 160 120 is 40 30 120 90"
        )
    x = _span(left, left + width, size[1])
    y = _span(top, top + height, size[0])
    if x is None or y is None:
        raise RegionError(
            f"box {_numbers(box)} (left, top, width, height) lies outside the image of {size[1]} x {size[0]} pixels (width x height)"
        )
    return x[0], y[0], x[1], y[1]


def _span(start: float, end: float, length: int) -> tuple[int, int] | None:
    start, end = max(start, 0.0), min(end, float(length))
    if start >= end:
        return None
    first, stop = int(np.ceil(start - 0.5)), int(np.ceil(end - 0.5))
    if first < stop:
        return first, stop
    middle = min(int((start + end) / 2), length - 1)
    return middle, middle + 1


def _code(prompt: Prompt, size: tuple[int, int]) -> Code:
    kind = prompt.kind
    if prompt.box is not None:
        return rle_code.encode_rectangle(size, *box_edges(prompt.box, size))
    if prompt.polygon is not None:
        code = _polygon_code(prompt.polygon, size)
    elif prompt.rle is not None:
        _check_size("RLE", rle_code.size(prompt.rle), size)
        code = rle_code.as_text(prompt.rle)
    else:
        return rle_code.encode(_draw(prompt, size))
    if not rle_code.area(code):
        raise _covers_nothing(kind, size)
    return code


def _covers_nothing(kind: str, size: tuple[int, int]) -> RegionError:
    return RegionError(f"the region ({kind}) covers no pixel of the image of {size[1]} x {size[0]} pixels (width x height)")


def _draw(prompt: Prompt, size: tuple[int, int]) -> Mask:
    kind = prompt.kind
    if kind == "point":
        raise RegionError("the mask encoder 'given' cannot grow a region from a point: use superpixel or sam")
    mask = _DRAW[kind](getattr(prompt, kind), size)
    if not mask.any():
        raise _covers_nothing(kind, size)
    return mask


def _draw_box(box: Sequence[float], size: tuple[int, int]) -> Mask:
    left, top, right, bottom = box_edges(box, size)
    mask = np.zeros(size, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def _draw_polygon(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    return rle_code.decode(_polygon_code(rings, size))


def _polygon_code(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> Code:
    checked = [_ring(ring) for ring in rings_of(rings)]
    if not checked:
        raise RegionError("a polygon has at least one ring [x0, y0, x1, y1, ...], got none")
    return rle_code.as_text(coco.merge(coco.frPyObjects(checked, *size)))


def _ring(ring: Any) -> list[float]:
    try:
        numbers = np.asarray(ring, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RegionError(f"a polygon's ring is [x0, y0, x1, y1, ...], got {ring!r}") from error
    if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2 or not np.isfinite(numbers).all():
        raise RegionError(
            f"a polygon is a list of rings [x0, y0, x1, y1, ...] of at least three finite points, got a ring of shape {numbers.shape}"
        )
    points = numbers.reshape(-1, 2)  # (points, 2)
    outline = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if outline > _LONGEST_OUTLINE or np.abs(points).max() > _LONGEST_OUTLINE:
        raise RegionError(
            f"a polygon's ring reaches too far: an outline of {outline:g} pixels, at most {_LONGEST_OUTLINE}; are these pixels?"
        )
    return [float(v) for v in numbers]


def _draw_rle(rle: dict[str, Any], size: tuple[int, int]) -> Mask:
    _check_size("RLE", rle_code.size(rle), size)
    return rle_code.decode(rle)


def _draw_mask(mask: NDArray[Any] | str | Path | bytes, size: tuple[int, int]) -> Mask:
    if isinstance(mask, bytes):
        return _read_mask(io.BytesIO(mask), "mask file", size)
    if isinstance(mask, (str, Path)):
        return _read_mask(Path(mask), f"mask file {mask}", size)
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise RegionError(f"a mask is a (height, width) array of numbers, got shape {array.shape} of {array.dtype}")
    _check_size("mask", (array.shape[0], array.shape[1]), size)
    return drawn_masks.of_array(array)


def _read_mask(file: Path | io.BytesIO, what: str, size: tuple[int, int]) -> Mask:
    try:
        with PILImage.open(file, formats=FORMATS) as image:
            if sorted(image.size) != sorted(size):  # else EXIF may yet exchange the sides
                _check_size(what, (image.height, image.width), size)
            inside = drawn_masks.of_image(image, what)
    except RegionError:
        raise
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise RegionError(f"{what} cannot be read ({error}): check the path, and that it is a whole image file") from error
    _check_size(what, (inside.shape[0], inside.shape[1]), size)
    return inside


def _check_size(what: str, got: tuple[int, int], size: tuple[int, int]) -> None:
    if got != size:
        raise RegionError(
            f"{what} is {got[1]} x {got[0]} pixels, the image is {size[1]} x {size[0]} (width x height): "
            "a mask is drawn at the size of its image"
        )


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


_DRAW: dict[str, Callable[[Any, tuple[int, int]], Mask]] = {
    "box": _draw_box,
    "polygon": _draw_polygon,
    "rle": _draw_rle,
    "mask": _draw_mask,
}
