"""`local_similarity` of many distorted images with one reference, in the same regions.

Half of the moments are the reference's own and are computed once. Around a region, each scale is computed as far as the region reaches
in it: half a window in pixels of that scale, where `LocalSimilarity.label` takes the margin of the coarsest scale for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datamodules.quality_labels._planes import Float, halve, to_planes
from datamodules.quality_labels.base import Image, Masks, Scores, check_sizes

if TYPE_CHECKING:
    from datamodules.quality_labels.local_similarity import LocalSimilarity

Box = tuple[slice, slice]


@dataclass(frozen=True)
class _Scale:
    """The reference at one scale: planes, means and variances, (3, h, w) each."""

    planes: Float
    mean: Float
    var: Float


class OneReference:
    """Called with a distorted image (H, W, 3), gives quality and impact of each region, (R,) each.

    Raises:
        ValueError: images or masks of different sizes, or a region without pixels.
    """

    def __init__(self, label: LocalSimilarity, reference: Image, masks: Masks) -> None:
        check_sizes(reference, reference, masks)
        self.label, self.reference, self.masks = label, reference, masks
        self.scales: list[_Scale] = []
        planes = to_planes(reference)
        for _ in range(label.scales):
            means = label.blur(np.concatenate([planes, planes * planes]))
            self.scales.append(_Scale(planes, means[:3], np.maximum(means[3:] - means[:3] * means[:3], 0)))
            if min(planes.shape[1:]) < 2:
                break
            planes = halve(planes)
        self.weight = label.weight(self.scales[0].var[0])
        self.total = float(self.weight.sum(dtype=np.float64))

    def __call__(self, distorted: Image) -> tuple[Scores, Scores]:
        """See the class."""
        check_sizes(distorted, self.reference, self.masks)
        ours = to_planes(distorted)
        quality, impact = np.empty(len(self.masks)), np.empty(len(self.masks))
        for r, mask in enumerate(self.masks):
            quality[r], impact[r] = self._region(ours, mask)
        return quality, impact

    def _region(self, ours: Float, mask: NDArray[np.bool_]) -> tuple[float, float]:
        reach, grid = self.label.window // 2, 2 ** (len(self.scales) - 1)
        near = _box(mask, 2 * reach * grid, grid)  # holds what any scale looks at
        inside = mask[near]
        composite = np.where(inside, ours[:, *near], self.scales[0].planes[:, *near])
        lost = np.zeros(inside.shape, np.float32)  # sum over scales of 1 - similarity
        weight = self.weight[near].copy()
        touched = inside
        for k, scale in enumerate(self.scales):
            if not touched.any():  # the region's rows or columns are lost to an odd size
                break
            offset = near[0].start >> k, near[1].start >> k
            seen, valid = _around(touched, 2 * reach), _around(touched, reach)
            at = tuple(slice(s.start + o, s.stop + o) for s, o in zip(seen, offset, strict=True))
            similar, var = self._compare(composite[:, *seen], scale, (at[0], at[1]))
            inner = tuple(slice(v.start - s.start, v.stop - s.start) for v, s in zip(valid, seen, strict=True))
            _add_enlarged(lost, 1 - similar[inner], valid, k, touched.shape)
            if k == 0:
                weight[valid] = self.label.weight(var[inner])
            if k + 1 < len(self.scales):
                composite, touched = halve(composite), _halve_touched(touched)
        weighted = weight * (1 - lost / len(self.scales))
        rest = self.total - float(self.weight[near].sum(dtype=np.float64))
        quality = float(weighted[inside].sum(dtype=np.float64) / weight[inside].sum(dtype=np.float64))
        whole = float(weight.sum(dtype=np.float64)) + rest
        return quality, 1 - (float(weighted.sum(dtype=np.float64)) + rest) / whole

    def _compare(self, composite: Float, scale: _Scale, at: Box) -> tuple[Float, Float]:
        """Planes (3, h, w) of one scale -> similarity with the reference there, and the larger of the variances of Y, (h, w) each."""
        products = np.empty((7, *composite.shape[1:]), np.float32)
        products[:3] = composite
        np.square(composite, out=products[3:6])
        np.multiply(composite[0], scale.planes[0][at], out=products[6])
        means = self.label.blur(products)
        mean, var = means[:3], np.maximum(means[3:6] - means[:3] * means[:3], 0)
        other = scale.var[:, *at]
        return self.label.similar(mean, var, scale.mean[:, *at], other, means[6]), np.maximum(var[0], other[0])


def _box(mask: NDArray[np.bool_], margin: int, grid: int) -> Box:
    """The mask's box, widened by `margin` and aligned to the grid of the coarsest scale, as far as the image reaches."""
    wide = _around(mask, margin)
    low, high = ([s.start // grid * grid for s in wide], [-(-s.stop // grid) * grid for s in wide])
    height, width = mask.shape
    return slice(low[0], min(height, high[0])), slice(low[1], min(width, high[1]))


def _around(mask: NDArray[np.bool_], margin: int) -> Box:
    """The mask's box, widened by `margin`, as far as the array reaches."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return (
        slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)),
    )


def _halve_touched(touched: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(h, w) -> (h // 2, w // 2): whether any of 2 x 2 is."""
    h, w = touched.shape[0] // 2 * 2, touched.shape[1] // 2 * 2
    rows = touched[:h, 0:w:2] | touched[:h, 1:w:2]
    return rows[0::2] | rows[1::2]


def _add_enlarged(out: Float, x: Float, at: Box, scale: int, shape: tuple[int, int]) -> None:
    """Adds the cells `at` of a scale, whose array has `shape`, to the pixels they stand for; what an odd size lost is the last cell's."""
    pixels, cells = [], []
    for side, count, length in zip(at, shape, out.shape, strict=True):
        stop = length if side.stop == count else side.stop << scale
        pixels.append(slice(side.start << scale, stop))
        cells.append(np.minimum(np.arange(side.start << scale, stop) >> scale, count - 1) - side.start)
    out[pixels[0], pixels[1]] += x if scale == 0 else x[cells[0]][:, cells[1]]
