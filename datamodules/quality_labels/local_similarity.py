"""The built-in quality label: structure, luminance and colour compared locally, pooled by visual information.

Per pixel and scale, three similarities of the distorted and the reference image, all from moments in a 7 x 7 window:

    structure  s = (2 cov(Y, Y') + C) / (var Y + var Y' + C)     SSIM's second factor (Wang et al. 2004), 0 at least, to the power 3/2
    luminance  l = 1 / (1 + (mean Y - mean Y')^2 / a^2)
    colour     c = 1 / (1 + (|mean CbCr - mean CbCr'|^2 + (dev CbCr - dev CbCr')^2) / b^2)

SSIM's own luminance factor hardly moves for the shifts that exposure makes, and it is blind to colour; these two are not. The
product is averaged over three scales (halved each time) and pooled over the region with weights 1 + log2(1 + max(var Y, var Y') / n),
of the finest scale: a constant, so that flat parts count, and the information that a noisy viewer gets from a pixel (after Wang and
Li 2011, eq. 20, without the cross-scale term).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.distortions.base import to_ycc
from datamodules.quality_labels.base import QUALITY_LABELS, Image, Masks, QualityLabel, Scores, check_sizes

Float = NDArray[np.float32]


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

    Raises:
        ValueError: an option out of its range.
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
        if window < 3 or window % 2 == 0 or scales < 1:
            raise ValueError(f"local_similarity: window is odd and at least 3, scales at least 1, got {window} and {scales}")
        if min(structure_floor, luminance_tolerance, colour_tolerance, information_noise) <= 0:
            raise ValueError(
                "local_similarity: structure_floor, luminance_tolerance, colour_tolerance and information_noise are above 0, got "
                f"{structure_floor}, {luminance_tolerance}, {colour_tolerance} and {information_noise}"
            )
        self.window, self.scales = window, scales
        self.structure_floor, self.information_noise = structure_floor, information_noise
        self.luminance_tolerance, self.colour_tolerance = luminance_tolerance, colour_tolerance

    def region(self, distorted: Image, reference: Image, mask: NDArray[np.bool_]) -> float:
        check_sizes(distorted, reference, mask[None])
        similarity, weight = self._maps(_planes(distorted), _planes(reference))
        return float((similarity * weight)[mask].sum() / weight[mask].sum())

    def image(self, distorted: Image, reference: Image) -> float:
        check_sizes(distorted, reference, np.ones((1, *reference.shape[:2]), np.bool_))
        similarity, weight = self._maps(_planes(distorted), _planes(reference))
        return float((similarity * weight).sum() / weight.sum())

    def label(self, distorted: Image, reference: Image, masks: Masks) -> tuple[Scores, Scores]:
        """As the contract says, but computed around each region only: elsewhere the composite is the reference.

        Quality is the contract's. The weights at the rim of that neighbourhood are those of an image that ends there, so impact is
        up to 1 % off (3 % in images of a few pixels).
        """
        check_sizes(distorted, reference, masks)
        ours, theirs = _planes(distorted), _planes(reference)
        mean, square = self._blur(np.stack([theirs[0], theirs[0] * theirs[0]]))
        whole = self._weight(np.maximum(square - mean * mean, 0)).astype(np.float64)
        total = whole.sum()
        quality, impact = np.empty(len(masks)), np.empty(len(masks))
        for r, mask in enumerate(masks):
            near = _around(mask, margin=(self.window // 2 + 1) * 2 ** (self.scales - 1), grid=2 ** (self.scales - 1))
            inside, clean = mask[near], theirs[:, *near]
            similarity, weight = self._maps(np.where(inside, ours[:, *near], clean), clean)
            weighted = similarity * weight
            quality[r] = weighted[inside].sum() / weight[inside].sum()
            rest = total - whole[near].sum()
            impact[r] = 1 - (weighted.sum() + rest) / (weight.sum() + rest)
        return quality, impact

    def _maps(self, ours: Float, theirs: Float) -> tuple[Float, Float]:
        """The planes (3, H, W) of two images -> similarity in [0, 1] and weight > 0, both (H, W)."""
        height, width = theirs.shape[1:]
        similarity = np.zeros((height, width), np.float32)
        weight = np.zeros((height, width), np.float32)
        for scale in range(self.scales):
            similar, var = self._similarity(ours, theirs)
            if scale == 0:
                weight = self._weight(var)
            similarity += _enlarge(similar, scale, height, width) / self.scales
            if min(ours.shape[1:]) < 2:
                similarity *= self.scales / (scale + 1)
                break
            ours, theirs = _halve(ours), _halve(theirs)
        return similarity, weight

    def _similarity(self, ours: Float, theirs: Float) -> tuple[Float, Float]:
        """Planes (3, h, w) of one scale -> similarity (h, w), and the larger of the two variances of Y (h, w)."""
        products = np.empty((13, *ours.shape[1:]), np.float32)
        products[:3], products[3:6] = ours, theirs
        np.square(products[:6], out=products[6:12])
        np.multiply(ours[0], theirs[0], out=products[12])
        means = self._blur(products)
        mean, other = means[:3], means[3:6]
        var, other_var = np.maximum(means[6:9] - mean * mean, 0), np.maximum(means[9:12] - other * other, 0)
        joint = means[12] - mean[0] * other[0]
        structure = (2 * joint + self.structure_floor) / (var[0] + other_var[0] + self.structure_floor)
        luminance = 1 / (1 + ((mean[0] - other[0]) / self.luminance_tolerance) ** 2)
        apart = ((mean[1:] - other[1:]) ** 2).sum(0) + ((np.sqrt(var[1:]) - np.sqrt(other_var[1:])) ** 2).sum(0)
        similar = np.maximum(structure, 0) ** np.float32(1.5) * luminance / (1 + apart / self.colour_tolerance**2)
        return similar, np.maximum(var[0], other_var[0])

    def _blur(self, planes: Float) -> Float:
        """(N, h, w) -> each plane's mean in the window around each pixel."""
        return ndimage.uniform_filter(planes, (1, self.window, self.window), mode="reflect")

    def _weight(self, var: Float) -> Float:
        return np.log2(1 + var / self.information_noise) + np.float32(1)


def _planes(image: Image) -> Float:
    """(H, W, 3) RGB -> (3, H, W) Y, Cb, Cr."""
    return np.ascontiguousarray(np.moveaxis(to_ycc(image), 2, 0))


def _halve(planes: Float) -> Float:
    """(3, h, w) -> (3, h // 2, w // 2), the means of 2 x 2 pixels."""
    h, w = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    rows = planes[:, :h, 0:w:2] + planes[:, :h, 1:w:2]
    return np.float32(0.25) * (rows[:, 0::2] + rows[:, 1::2])


def _enlarge(x: Float, scale: int, height: int, width: int) -> Float:
    """Repeats each cell of scale `scale`; rows and columns lost to odd sizes repeat the last one."""
    if scale == 0:
        return x
    rows = np.minimum(np.arange(height) >> scale, x.shape[0] - 1)
    columns = np.minimum(np.arange(width) >> scale, x.shape[1] - 1)
    return x[rows][:, columns]


def _around(mask: NDArray[np.bool_], margin: int, grid: int) -> tuple[slice, slice]:
    """The mask's box, widened by `margin` and aligned to the grid of the coarsest scale."""
    slices = []
    for axis, length in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(1 - axis))
        low = max(0, (hit[0] - margin) // grid * grid)
        high = min(length, -(-(hit[-1] + 1 + margin) // grid) * grid)
        slices.append(slice(int(low), int(high)))
    return slices[0], slices[1]
