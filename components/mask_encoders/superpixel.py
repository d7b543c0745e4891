"""Regions without any weights: SLIC superpixels (Achanta et al., 2012), scikit-image's implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from skimage.segmentation import slic

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Code, Image, MaskEncoder, Masks, Prompt, image_size, pixel_at
from components.mask_encoders.given import Given, Mask, box_edges
from components.rle import RegionError

Labels = NDArray[np.integer[Any]]  # (h, w), 0 ... segments - 1


@MASK_ENCODERS.register("superpixel")
class Superpixel(MaskEncoder):
    """Parts an image into patches of one colour: a point means its patch, a box the patches that lie in it.

    The same image always gives the same patches: they share no pixel and leave none out. Polygons, RLE and masks are taken as
    they are, as by `given`.

    Args:
        segments: how many patches SLIC is asked for; it returns about as many, more on noise, fewer on few pixels.
        compactness: weight of nearness against colour; higher gives squarer patches.
        min_area: fraction of the image; a smaller patch joins the neighbour with which it shares the longest border.
        side: longest side, in pixels, of the reduced copy that is segmented; time grows with its square.

    Raises:
        ValueError: an option out of its range.
    """

    can_propose = True

    def __init__(self, *, segments: int = 24, compactness: float = 12.0, min_area: float = 0.01, side: int = 192) -> None:
        for name, value, allowed, good in (
            ("segments", segments, "at least 1", segments >= 1),
            ("compactness", compactness, "above 0", compactness > 0),
            ("min_area", min_area, "a fraction of the image, in [0, 1)", 0 <= min_area < 1),
            ("side", side, "at least 8 pixels", side >= 8),
        ):
            if not good:
                raise ValueError(f"superpixel: {name} is {allowed}, got {value}")
        self.segments, self.compactness, self.min_area, self.side = segments, compactness, min_area, side
        self._given = Given()

    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool.

        Raises:
            RegionError: as `given` does; a point outside the image; a box in which no superpixel lies by more than half.
        """
        size = image_size(image)
        masks = np.zeros((len(prompts), *size), dtype=np.bool_)
        for mask, prompt in zip(masks, prompts, strict=True):
            found = self._found(image, prompt)
            mask[:] = self._given.forward(image, [prompt])[0] if found is None else _enlarge(found, size)
        return masks

    def codes(self, image: Image, prompts: Sequence[Prompt]) -> list[Code]:
        """See the contract; no mask of the image's size is made of a point or a box."""
        found = [self._found(image, prompt) for prompt in prompts]
        return [
            self._given.codes(image, [prompt])[0] if mask is None else rle.encode_enlarged(mask, image_size(image))
            for mask, prompt in zip(found, prompts, strict=True)
        ]

    def _found(self, image: Image, prompt: Prompt) -> Mask | None:
        """(h, w) bool of the reduced copy; None for what is taken as it is."""
        size = image_size(image)
        if prompt.kind not in ("point", "box"):
            return None
        patches = self.seen.of(image)  # (h, w)
        if prompt.box is not None:
            return _mostly_inside(patches, prompt.box, size)
        row, column = (at * small // side for at, small, side in zip(pixel_at(prompt.point or (), size), patches.shape, size, strict=True))
        found: Mask = patches == patches[row, column]
        return found

    def propose(self, image: Image) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool: each pixel of the image is in exactly one of the R masks."""
        patches = self.seen.of(image)
        return np.stack([_enlarge(patches == n, image_size(image)) for n in range(int(patches.max()) + 1)])  # (R, H, W)

    def propose_codes(self, image: Image) -> Iterator[Code]:
        """See the contract; no mask of the image's size is made."""
        patches = self.seen.of(image)
        yield from (rle.encode_enlarged(patches == n, image_size(image)) for n in range(int(patches.max()) + 1))

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Few patches of a small copy."""
        return {"segments": 6, "side": 32}

    def look(self, image: Image) -> Labels:
        """(h, w): the patches of the reduced copy, whose pixels stand for some of the image's each."""
        height, width = image_size(image)
        small = _reduced(image, self.side)
        labels = slic(
            small,
            n_segments=min(self.segments, small.shape[0] * small.shape[1]),
            compactness=self.compactness,
            min_size_factor=0.1,  # only crumbs: `min_area` decides the rest
            start_label=0,
            channel_axis=-1,
        )
        joined = _without_small(labels, _behind(small.shape, (height, width)), self.min_area * height * width)
        return joined.astype(np.min_scalar_type(joined.max()))


def _shown(small: int, side: int) -> NDArray[np.intp]:
    """(side,): which of `small` pixels of the reduced copy stands for each of an image's."""
    return np.arange(side) * small // side


def _behind(small: Sequence[int], size: tuple[int, int]) -> NDArray[np.intp]:
    """(h, w): pixels of an image of `size` behind each of its reduced copy's."""
    rows, columns = (np.bincount(_shown(few, many), minlength=few) for few, many in zip(small, size, strict=False))
    return np.outer(rows, columns)


def _enlarge(mask: Mask, size: tuple[int, int]) -> Mask:
    """(h, w) bool of the reduced copy -> (H, W) bool of the image, its columns before its rows, which are copied whole."""
    return mask[:, _shown(mask.shape[1], size[1])][_shown(mask.shape[0], size[0])]


def _reduced(image: Image, side: int) -> Image:
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(PILImage.fromarray(image).resize(size, PILImage.Resampling.BOX))


def _without_small(labels: Labels, pixels: NDArray[np.integer[Any]], least: float) -> Labels:
    """Joins segments of fewer than `least` pixels to neighbours, the smallest first.

    Args:
        labels: (h, w).
        pixels: (h, w), what each element counts.
        least: pixels.
    """
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), weights=pixels.ravel(), minlength=count)
    border = _borders(labels, count)
    joined = np.arange(count)
    while True:
        alive = np.flatnonzero(area)
        small = alive[area[alive].argmin()]
        if alive.size == 1 or area[small] >= least:
            return np.unique(joined[labels], return_inverse=True)[1].reshape(labels.shape)
        host = border[small].argmax()
        joined[joined == small] = host
        area[host] += area[small]
        border[host] += border[small]
        border[:, host] += border[:, small]
        area[small] = border[small] = border[:, small] = border[host, host] = 0


def _borders(labels: Labels, count: int) -> NDArray[np.intp]:
    """(count, count): how many pairs of neighbouring pixels two different segments share."""
    pairs = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
    codes = np.concatenate([(a * count + b).ravel() for a, b in pairs])
    border = np.bincount(codes, minlength=count * count).reshape(count, count)
    border = border + border.T
    np.fill_diagonal(border, 0)
    return border


def _mostly_inside(patches: Labels, box: Sequence[float], size: tuple[int, int]) -> Mask:
    """(h, w) bool: the patches of the reduced copy of which more than half, in pixels of the image, lies in `box`."""
    left, top, right, bottom = box_edges(box, size)
    rows, columns = (
        np.bincount(_shown(few, many)[a:b], minlength=few)
        for few, many, a, b in zip(patches.shape, size, (top, left), (bottom, right), strict=True)
    )
    total = np.bincount(patches.ravel(), weights=_behind(patches.shape, size).ravel())
    inside = np.bincount(patches.ravel(), weights=np.outer(rows, columns).ravel(), minlength=total.size)
    chosen = 2 * inside > total
    if not chosen.any():
        raise RegionError(
            f"no superpixel lies by more than half in box ({left}, {top}, {right - left}, {bottom - top}), {len(total)} superpixels in the "
            "image: draw a larger box, raise `segments` and lower `min_area`, or use the mask encoder `given` for the box itself"
        )
    return chosen[patches]
