"""Regions without any weights: SLIC superpixels (Achanta et al., 2012), scikit-image's implementation."""

from __future__ import annotations

import hashlib
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

Labels = NDArray[np.integer[Any]]  # (H, W), 0 ... segments - 1


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
        self._last: tuple[tuple[Any, bytes], Labels] | None = None

    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool.

        Raises:
            RegionError: as `given` does; a point outside the image; a box in which no superpixel lies by more than half.
        """
        size = image_size(image)
        masks = np.zeros((len(prompts), *size), dtype=np.bool_)
        kinds = {p.kind for p in prompts}
        labels = self._labels(image) if kinds & {"point", "box"} else None
        for mask, prompt in zip(masks, prompts, strict=True):
            if labels is not None and prompt.point is not None:
                mask[:] = labels == labels[pixel_at(prompt.point, size)]
            elif labels is not None and prompt.box is not None:
                mask[:] = _mostly_inside(labels, prompt.box)
            else:
                mask[:] = self._given.forward(image, [prompt])[0]
        return masks

    def propose(self, image: Image) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool: each pixel of the image is in exactly one of the R masks."""
        labels = self._labels(image)
        return labels == np.arange(labels.max() + 1)[:, None, None]  # (R, H, W)

    def propose_codes(self, image: Image) -> Iterator[Code]:
        """See the contract; one mask of the image's size at a time."""
        labels = self._labels(image)
        yield from (rle.encode(labels == n) for n in range(int(labels.max()) + 1))

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Few patches of a small copy."""
        return {"segments": 6, "side": 32}

    def _labels(self, image: Image) -> Labels:
        """The patches of an image; those of the last one are kept, as SLIC takes longer than a model needs for a region."""
        image_size(image)
        content = (image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        last = self._last
        if last is None or last[0] != content:
            self._last = last = (content, self._parted(image))
        return last[1]

    def _parted(self, image: Image) -> Labels:
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
        rows = np.arange(height) * small.shape[0] // height
        columns = np.arange(width) * small.shape[1] // width
        pixels = np.outer(np.bincount(rows), np.bincount(columns))  # (h, w): pixels of the image behind each of the copy's
        joined = _without_small(labels, pixels, self.min_area * height * width)
        return joined.astype(np.min_scalar_type(joined.max()))[rows][:, columns]  # (H, W), a byte a pixel where there are few


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


def _mostly_inside(labels: Labels, box: Sequence[float]) -> Mask:
    """The union of the segments of which more than half lies in `box`."""
    left, top, right, bottom = box_edges(box, (labels.shape[0], labels.shape[1]))
    total = np.bincount(labels.ravel())
    inside = np.bincount(labels[top:bottom, left:right].ravel(), minlength=total.size)
    chosen = 2 * inside > total
    if not chosen.any():
        raise RegionError(
            f"no superpixel lies by more than half in box ({left}, {top}, {right - left}, {bottom - top}), {len(total)} superpixels in the "
            "image: draw a larger box, raise `segments` and lower `min_area`, or use the mask encoder `given` for the box itself"
        )
    return chosen[labels]
