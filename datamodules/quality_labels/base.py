"""The contract of a quality label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from components.registry import Registry

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Masks = NDArray[np.bool_]  # (R, H, W)
Scores = NDArray[np.float64]  # (R,)
Comparison = Callable[[Image], tuple[Scores, Scores]]  # a distorted image -> quality and impact of each region


class QualityLabel(ABC):
    """A full-reference measure, used as SEAGULL-100w uses TOPIQ-FR (reference facts 3.1). 1 is "like the reference", 0 the worst.

    Attributes:
        version: changes whenever the scores do; recorded with the data.
        licence: of the measure; recorded with the data.
    """

    version: ClassVar[str]
    licence: ClassVar[str]

    @abstractmethod
    def region(self, distorted: Image, reference: Image, mask: NDArray[np.bool_]) -> float:
        """How good the region of `mask` (H, W) looks, in [0, 1]."""

    @abstractmethod
    def image(self, distorted: Image, reference: Image) -> float:
        """How good the whole image looks, in [0, 1]."""

    def label(self, distorted: Image, reference: Image, masks: Masks) -> tuple[Scores, Scores]:
        """Quality and impact of each region, (R,) each.

        A region is judged as if it alone were distorted: quality is the region's score in that composite, impact is 1 minus the
        score of the whole composite.

        Raises:
            ValueError: images or masks of different sizes, or a region without pixels.
        """
        check_sizes(distorted, reference, masks)
        quality, impact = np.empty(len(masks)), np.empty(len(masks))
        for r, mask in enumerate(masks):
            composite = np.where(mask[..., None], distorted, reference)
            quality[r] = self.region(composite, reference, mask)
            impact[r] = 1 - self.image(composite, reference)
        return quality, impact

    def against(self, reference: Image, masks: Masks) -> Comparison:
        """The same regions of the same reference, for many distorted images: what it returns gives of each what `label` does, to 1e-6.

        Raises:
            ValueError: as `label` does.
        """
        check_sizes(reference, reference, masks)
        return partial(_relabel, self, reference, masks)

    def say(self) -> str:
        """The measure, its version and its licence, for whoever makes data with it."""
        return f"{type(self).__name__}, version {self.version}, licence {self.licence}"

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""
        return {}


def _relabel(label: QualityLabel, reference: Image, masks: Masks, distorted: Image) -> tuple[Scores, Scores]:
    return label.label(distorted, reference, masks)


def check_sizes(distorted: Image, reference: Image, masks: Masks) -> None:
    """Raises ValueError unless both images (H, W, 3) and all masks (R, H, W) have one size, and no mask is empty."""
    if distorted.shape != reference.shape or masks.shape[1:] != reference.shape[:2]:
        raise ValueError(
            f"a distorted image of shape {distorted.shape} is compared with a reference of shape {reference.shape} in masks of shape "
            f"{masks.shape}: all need the same height and width"
        )
    empty = np.flatnonzero(~masks.any((1, 2)))
    if len(empty):
        raise ValueError(f"region {empty[0]} has no pixel to judge")


QUALITY_LABELS: Registry[QualityLabel] = Registry("quality_label", __package__, QualityLabel)
