"""The built-in quality label: structure, luminance and colour compared locally, pooled by visual information.

Per pixel and scale, three similarities of the distorted and the reference image, all from moments in a 7 x 7 window:

    structure  s = (2 cov(Y, Y') + C) / (var Y + var Y' + C)     SSIM's second factor (Wang et al. 2004), to the power 3/2
    luminance  l = 1 / (1 + (mean Y - mean Y')^2 / a^2)
    colour     c = 1 / (1 + (|mean CbCr - mean CbCr'|^2 + (dev CbCr - dev CbCr')^2) / b^2)

SSIM's own luminance factor hardly moves for the shifts that exposure makes, and it is blind to colour; these two are not. The
product is averaged over three scales (halved each time) and pooled with weights log2(1 + var / n), the information that a noisy
viewer gets from a pixel (Wang and Li 2011, eq. 20, without the cross-scale term).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.distortions.base import to_ycc
from datamodules.quality_labels.base import QUALITY_LABELS, Image, Masks, QualityLabel, Scores

Float = NDArray[np.float32]


@dataclass(frozen=True)
class _Moments:
    planes: Float  # (3, h, w) Y, Cb, Cr
    mean: Float  # (3, h, w)
    var: Float  # (3, h, w)


@QUALITY_LABELS.register("local_similarity")
class LocalSimilarity(QualityLabel):
    """See the module's docstring.

    Args:
        window: side of the window, in pixels of each scale.
        scales: how many, each half the size of the one before.
        structure_floor: C, in squared 8-bit levels; contrasts well below its root count as flat.
        luminance_tolerance: a, in 8-bit levels: a shift of the mean by this much halves l.
        colour_tolerance: b, in 8-bit levels.
        information_noise: n, in squared 8-bit levels.
    """

    version = "1"
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        window: int = 7,
        scales: int = 3,
        structure_floor: float = 40.0,
        luminance_tolerance: float = 80.0,
        colour_tolerance: float = 24.0,
        information_noise: float = 10.0,
    ) -> None:
        self.window, self.scales = window, scales
        self.structure_floor, self.information_noise = structure_floor, information_noise
        self.luminance_tolerance, self.colour_tolerance = luminance_tolerance, colour_tolerance

    def region(self, distorted: Image, reference: Image, mask: NDArray[np.bool_]) -> float:
        similarity, weight = self._maps(distorted, reference)
        return float((similarity * weight)[mask].sum() / weight[mask].sum())

    def image(self, distorted: Image, reference: Image) -> float:
        similarity, weight = self._maps(distorted, reference)
        return float((similarity * weight).sum() / weight.sum())

    def label(self, distorted: Image, reference: Image, masks: Masks) -> tuple[Scores, Scores]:
        """As the contract says, but computed around each region only: elsewhere the composite is the reference."""
        whole = self._weight(self._moments(reference), None).astype(np.float64)
        total = whole.sum()
        quality, impact = np.empty(len(masks)), np.empty(len(masks))
        for r, mask in enumerate(masks):
            near = _around(mask, margin=(self.window // 2 + 1) * 2 ** (self.scales - 1), grid=2 ** (self.scales - 1))
            inside = mask[near]
            clean = reference[near]
            similarity, weight = self._maps(np.where(inside[..., None], distorted[near], clean), clean)
            quality[r] = (similarity * weight)[inside].sum() / weight[inside].sum()
            rest = total - whole[near].sum()
            impact[r] = 1 - ((similarity * weight).sum() + rest) / (weight.sum() + rest)
        return quality, impact

    def _maps(self, distorted: Image, reference: Image) -> tuple[Float, Float]:
        """Similarity in [0, 1] and weight > 0, both (H, W)."""
        height, width = reference.shape[:2]
        ours, theirs = _planes(distorted), _planes(reference)
        similarity = np.zeros((height, width), np.float32)
        weight = np.zeros((height, width), np.float32)
        for scale in range(self.scales):
            a, b = self._describe(ours), self._describe(theirs)
            if scale == 0:
                weight = self._weight(b, a)
            similarity += _enlarge(self._similarity(a, b), scale, height, width) / self.scales
            if min(ours.shape[1:]) < 2:
                similarity *= self.scales / (scale + 1)
                break
            ours, theirs = _halve(ours), _halve(theirs)
        return similarity, weight

    def _moments(self, image: Image) -> _Moments:
        return self._describe(_planes(image))

    def _describe(self, planes: Float) -> _Moments:
        mean = self._blur(planes)
        return _Moments(planes, mean, np.maximum(self._blur(planes * planes) - mean * mean, 0))

    def _blur(self, planes: Float) -> Float:
        size = (self.window, self.window)
        return np.stack([ndimage.uniform_filter(p, size, mode="reflect") for p in planes])

    def _similarity(self, a: _Moments, b: _Moments) -> Float:
        size = (self.window, self.window)
        joint = ndimage.uniform_filter(a.planes[0] * b.planes[0], size, mode="reflect") - a.mean[0] * b.mean[0]
        structure = (2 * joint + self.structure_floor) / (a.var[0] + b.var[0] + self.structure_floor)
        luminance = 1 / (1 + ((a.mean[0] - b.mean[0]) / self.luminance_tolerance) ** 2)
        apart = ((a.mean[1:] - b.mean[1:]) ** 2).sum(0) + ((np.sqrt(a.var[1:]) - np.sqrt(b.var[1:])) ** 2).sum(0)
        return np.maximum(structure, 0) ** np.float32(1.5) * luminance / (1 + apart / self.colour_tolerance**2)

    def _weight(self, a: _Moments, b: _Moments | None) -> Float:
        var = a.var[0] if b is None else np.maximum(a.var[0], b.var[0])
        return np.log2(1 + var / self.information_noise) + np.float32(1)


def _planes(image: Image) -> Float:
    return np.ascontiguousarray(np.moveaxis(to_ycc(image), 2, 0))


def _halve(planes: Float) -> Float:
    h, w = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    return planes[:, :h, :w].reshape(3, h // 2, 2, w // 2, 2).mean((2, 4))


def _enlarge(x: Float, scale: int, height: int, width: int) -> Float:
    """Repeats each cell of scale `scale`; rows and columns lost to odd sizes repeat the last one."""
    rows = np.minimum(np.arange(height) >> scale, x.shape[0] - 1)
    columns = np.minimum(np.arange(width) >> scale, x.shape[1] - 1)
    return x[rows[:, None], columns]


def _around(mask: NDArray[np.bool_], margin: int, grid: int) -> tuple[slice, slice]:
    """The mask's box, widened by `margin` and aligned to the grid of the coarsest scale."""
    slices = []
    for axis, length in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(1 - axis))
        low = max(0, (hit[0] - margin) // grid * grid)
        high = min(length, -(-(hit[-1] + 1 + margin) // grid) * grid)
        slices.append(slice(int(low), int(high)))
    return slices[0], slices[1]
