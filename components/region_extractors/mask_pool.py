"""Osprey's mask-aware extractor (arXiv 2312.10032): a token of what is under the mask, and a token of the mask's shape.

SEAGULL's MFE began from it and took the place of its second token, whose layers are dead in the released checkpoint (reference facts 1.6).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.pooling import mask_pool
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor


@REGION_EXTRACTORS.register("mask_pool")
class MaskPool(RegionExtractor):
    """The mean feature under the mask on every level through a linear map each, summed, through an MLP: one token. Where
    `shape_size` is not 0, a second one from the mask alone, seen as a small picture of the whole image."""

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        embed: int = 1024,
        shape_size: int = 112,
    ) -> None:
        """
        Args:
            embed: hidden width of both tokens.
            shape_size: side of the mask's picture, pixels: the share of each that the mask covers. 0 for no shape token.

        Raises:
            ValueError: a negative `shape_size`.
        """
        super().__init__(channels, sizes, width)
        if shape_size < 0:
            raise ValueError(f"shape_size: got {shape_size}, expected pixels, or 0 for no token of the shape")
        self.shape_size = shape_size
        self.tokens = 1 + bool(shape_size)
        self.region_in = nn.ModuleList(nn.Linear(c, embed) for c in channels)
        self.mlp = nn.Sequential(nn.Linear(embed, embed), nn.GELU(), nn.Linear(embed, width))
        self.shape = (
            nn.Sequential(nn.Linear(shape_size**2, embed), nn.ReLU(), nn.Linear(embed, embed), nn.ReLU(), nn.Linear(embed, width))
            if shape_size
            else None
        )

    def prepare(self, pyramid: Pyramid) -> tuple[Tensor, ...]:
        """The maps as they are.

        Raises:
            ValueError: the pyramid is not the one this extractor was wired for.
        """
        self.check_pyramid(pyramid)
        return pyramid.maps

    def forward(self, prepared: tuple[Tensor, ...], regions: Regions) -> Tensor:
        """See the contract; K is 2, or 1 without the shape."""
        levels = [layer(mask_pool(m, regions.masks)) for layer, m in zip(self.region_in, prepared, strict=True)]  # (B, R, E)
        tokens = [self.mlp(torch.stack(levels).sum(0))]  # (B, R, D)
        if self.shape is not None:
            picture = F.adaptive_avg_pool2d(regions.masks.float(), self.shape_size)  # (B, R, size, size)
            tokens.append(self.shape(picture.flatten(2).to(levels[0].dtype)))
        return torch.stack(tokens, 2)  # (B, R, K, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"embed": 16, "shape_size": 8}
