"""The built-in quality label: structure, contrast, luminance and colour compared locally, pooled by visual information.

Per pixel and scale, four similarities of the distorted image and its reference (marked '), all from moments in a 7 x 7 window:

    structure  s = (2 cov(Y, Y') + C) / (2 dev Y dev Y' + C)            what SSIM calls structure (Wang et al. 2004), 0 at least
    contrast   k = (2 dev Y dev Y' + C) / (var Y + var Y' + C)
    luminance  l = 1 / (1 + (mean Y - mean Y')^2 / a^2)
    colour     c = 1 / (1 + lost^2 / b^2 + added^2 / d^2)

s^3 k^p l c is averaged over three scales (halved each time) and pooled over the region with weights 0.2 + log2(1 + max(var Y, var Y') / n)
of the finest scale: what a noisy viewer learns from a pixel (after Wang and Li 2011, eq. 20, without the cross-scale term).

We assume that viewers mind what is added more than what is missing: a faded or flat picture looks dull, a garish or harsh one wrong. So
contrast that is lost counts with a small p, contrast that is gained with a large one; and colour that is lost (the mean of CbCr moves
towards grey, its deviation shrinks) is tolerated better than colour that is added or turned. SSIM's luminance factor hardly moves for
the shifts that exposure makes, and SSIM is blind to colour; l and c are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.quality_labels._one_reference import OneReference
from datamodules.quality_labels._planes import Float, halve, to_planes
from datamodules.quality_labels.base import QUALITY_LABELS, Comparison, Image, Masks, QualityLabel, Scores, check_sizes


@QUALITY_LABELS.register("local_similarity")
class LocalSimilarity(QualityLabel):
    """A full-reference measure around each region; see the module's docstring.

    Args:
        window: side of the window, in pixels of each scale.
        scales: how many, each half the size of the one before.
        structure_power: of s.
        structure_floor: C, in squared 8-bit levels; contrasts well below its root count as flat.
        contrast_lost, contrast_gained: p where the contrast fell, and where it rose.
        luminance_tolerance: a, in 8-bit levels: a shift of the mean by this much halves l.
        colour_lost, colour_added: b and d, in 8-bit levels.
        information_noise: n, in squared 8-bit levels.

    Raises:
        ValueError: an option out of its range.
    """

    version = "3"
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        window: int = 7,
        scales: int = 3,
        structure_power: float = 3.0,
        structure_floor: float = 3.0,
        contrast_lost: float = 0.3,
        contrast_gained: float = 1.5,
        luminance_tolerance: float = 80.0,
        colour_lost: float = 150.0,
        colour_added: float = 24.0,
        information_noise: float = 40.0,
    ) -> None:
        if window < 3 or window % 2 == 0 or scales < 1:
            raise ValueError(f"local_similarity: window is odd and at least 3, scales at least 1, got {window} and {scales}")
        tolerances = {
            "structure_floor": structure_floor,
            "luminance_tolerance": luminance_tolerance,
            "colour_lost": colour_lost,
            "colour_added": colour_added,
            "information_noise": information_noise,
        }
        powers = {"structure_power": structure_power, "contrast_lost": contrast_lost, "contrast_gained": contrast_gained}
        for name, value in {**tolerances, **powers}.items():
            if value < 0 or (value == 0 and name in tolerances):
                raise ValueError(f"local_similarity: {name} is {'above 0' if name in tolerances else 'at least 0'}, got {value}")
        self.window, self.scales = window, scales
        self.structure_power, self.structure_floor = structure_power, structure_floor
        self.contrast_lost, self.contrast_gained = contrast_lost, contrast_gained
        self.luminance_tolerance, self.information_noise = luminance_tolerance, information_noise
        self.colour_lost, self.colour_added = colour_lost, colour_added

    def region(self, distorted: Image, reference: Image, mask: NDArray[np.bool_]) -> float:
        check_sizes(distorted, reference, mask[None])
        similarity, weight = self._maps(to_planes(distorted), to_planes(reference))
        return float((similarity * weight)[mask].sum() / weight[mask].sum())

    def image(self, distorted: Image, reference: Image) -> float:
        check_sizes(distorted, reference, np.ones((1, *reference.shape[:2]), np.bool_))
        similarity, weight = self._maps(to_planes(distorted), to_planes(reference))
        return float((similarity * weight).sum() / weight.sum())

    def label(self, distorted: Image, reference: Image, masks: Masks) -> tuple[Scores, Scores]:
        """As the contract says, but computed around each region only: elsewhere the composite is the reference."""
        check_sizes(distorted, reference, masks)
        ours, theirs = to_planes(distorted), to_planes(reference)
        mean, square = self.blur(np.stack([theirs[0], theirs[0] * theirs[0]]))
        whole = self.weight(np.maximum(square - mean * mean, 0))
        total = whole.sum(dtype=np.float64)
        quality, impact = np.empty(len(masks)), np.empty(len(masks))
        for r, mask in enumerate(masks):
            near = _around(mask, margin=(self.window // 2 * 2 + 1) * 2 ** (self.scales - 1), grid=2 ** (self.scales - 1))
            inside, clean = mask[near], theirs[:, *near]
            similarity, weight = self._maps(np.where(inside, ours[:, *near], clean), clean)
            self._mend_rim(weight, whole, near)
            weighted = similarity * weight
            quality[r] = weighted[inside].sum() / weight[inside].sum()
            rest = total - whole[near].sum(dtype=np.float64)
            impact[r] = 1 - (weighted.sum(dtype=np.float64) + rest) / (weight.sum(dtype=np.float64) + rest)
        return quality, impact

    def against(self, reference: Image, masks: Masks) -> Comparison:
        """As the contract says; what follows from the reference alone is computed once, each scale no further than a region reaches."""
        return OneReference(self, reference, masks)

    def _mend_rim(self, weight: Float, whole: Float, near: tuple[slice, slice]) -> None:
        """Where a window reaches out of the neighbourhood, the composite is the reference, so its weight is that of `whole`; in place."""
        reach = self.window // 2
        for axis, part in enumerate(near):
            sides = [slice(0, reach)] * (part.start > 0) + [slice(-reach, None)] * (part.stop < whole.shape[axis])
            for side in sides:
                at = (side, slice(None)) if axis == 0 else (slice(None), side)
                weight[at] = whole[near][at]

    def _maps(self, ours: Float, theirs: Float) -> tuple[Float, Float]:
        """The planes (3, H, W) of two images -> similarity in [0, 1] and weight > 0, both (H, W)."""
        height, width = theirs.shape[1:]
        similarity = np.zeros((height, width), np.float32)
        weight = np.zeros((height, width), np.float32)
        for scale in range(self.scales):
            similar, var = self._similarity(ours, theirs)
            if scale == 0:
                weight = self.weight(var)
            similarity += _enlarge(similar, scale, height, width) / self.scales
            if min(ours.shape[1:]) < 2:
                similarity *= self.scales / (scale + 1)
                break
            ours, theirs = halve(ours), halve(theirs)
        return similarity, weight

    def _similarity(self, ours: Float, theirs: Float) -> tuple[Float, Float]:
        """Planes (3, h, w) of one scale -> similarity (h, w), and the larger of the two variances of Y (h, w)."""
        products = np.empty((13, *ours.shape[1:]), np.float32)
        products[:3], products[3:6] = ours, theirs
        np.square(products[:6], out=products[6:12])
        np.multiply(ours[0], theirs[0], out=products[12])
        means = self.blur(products)
        mean, other = means[:3], means[3:6]
        var, other_var = np.maximum(means[6:9] - mean * mean, 0), np.maximum(means[9:12] - other * other, 0)
        return self.similar(mean, var, other, other_var, means[12]), np.maximum(var[0], other_var[0])

    def similar(self, mean: Float, var: Float, other: Float, other_var: Float, product: Float) -> Float:
        """Means and variances (3, h, w) of the planes of two images, and the mean product of their Y -> similarity (h, w)."""
        joint = product - mean[0] * other[0]
        both = 2 * np.sqrt(var[0] * other_var[0]) + self.structure_floor
        structure = np.maximum((2 * joint + self.structure_floor) / both, 0) ** np.float32(self.structure_power)
        contrast = both / (var[0] + other_var[0] + self.structure_floor)
        contrast **= np.where(var[0] < other_var[0], np.float32(self.contrast_lost), np.float32(self.contrast_gained))
        luminance = 1 / (1 + ((mean[0] - other[0]) / self.luminance_tolerance) ** 2)
        greyer = np.maximum(np.hypot(other[1], other[2]) - np.hypot(mean[1], mean[2]), 0) ** 2
        spread = np.sqrt(var[1:]) - np.sqrt(other_var[1:])
        lost = greyer + (np.minimum(spread, 0) ** 2).sum(0)
        added = np.maximum(((mean[1:] - other[1:]) ** 2).sum(0) - greyer, 0) + (np.maximum(spread, 0) ** 2).sum(0)
        colour = 1 / (1 + lost / self.colour_lost**2 + added / self.colour_added**2)
        return (structure * contrast * luminance * colour).astype(np.float32)

    def blur(self, planes: Float) -> Float:
        """(N, h, w) -> each plane's mean in the window around each pixel."""
        return ndimage.uniform_filter(planes, (1, self.window, self.window), mode="reflect")

    def weight(self, var: Float) -> Float:
        return np.log2(1 + var / self.information_noise) + np.float32(0.2)


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
