"""Features of the whole image, played again for a region: cut out by RoI-align, several tokens a region.

The idea is that of GAR (arXiv 2510.18876): the image is encoded once, so a region's features know what surrounds it, and cutting them out
again gives the language model the region cell by cell, where mask pooling gives it one mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.pooling import box_coverage
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor


def replay(feature: Tensor, boxes: Tensor, weights: Tensor, grid: int) -> Tensor:
    """Mean feature of each cell of a box, over n x n bilinear samples with weights; with equal ones it is RoI-align. In float32.

    A sample is a sum over the map with a hat function along each axis, so a cell's mean is a weighting of the whole map, and all means are
    one product of matrices: unlike the usual operator, its gradient is the same in every run on a GPU.

    Args:
        feature: (B, C, H, W).
        boxes: (B, R, 4) left, top, width, height as fractions of the image.
        weights: (B, R, n * grid, n * grid) >= 0, of the samples.

    Returns:
        (B, R, grid ** 2, C), row by row, in the dtype of `feature`; 0 where a cell has no weight.
    """
    side = weights.shape[-1]
    middles = (torch.arange(side, dtype=torch.float32, device=boxes.device) + 0.5) / side
    at = boxes.float()[..., :2, None] + boxes.float()[..., 2:, None] * middles  # (B, R, 2, side): across, down
    columns, rows = (_hats(at[..., axis, :], feature.shape[-1 - axis]).unflatten(-2, (grid, -1)) for axis in (0, 1))  # (B, R, grid, n, W)
    with torch.autocast(feature.device.type, enabled=False):
        parts = weights.float().unflatten(-1, (grid, -1)).unflatten(-3, (grid, -1)).transpose(-2, -3)  # (B, R, grid, grid, n, n)
        total = parts.sum((-1, -2))[..., None]  # (B, R, grid, grid, 1)
        maps = rows.transpose(-1, -2)[:, :, :, None] @ parts @ columns[:, :, None]  # (B, R, grid, grid, H, W)
        maps = maps.flatten(-2) / torch.where(total > 0, total, 1.0)
        means = torch.einsum("brkn,bcn->brkc", maps.flatten(2, 3), feature.float().flatten(2))
    return means.to(feature.dtype)


def _hats(at: Tensor, count: int) -> Tensor:
    """(...) places in [0, 1] -> (..., count): bilinear weights of `count` values that stand in the middles of equal parts."""
    place = (at * count - 0.5).clamp(0, count - 1)[..., None]
    return (1 - (place - torch.arange(count, dtype=place.dtype, device=place.device)).abs()).clamp_min(0)


@REGION_EXTRACTORS.register("roi_replay")
class RoiReplay(RegionExtractor):
    """A grid of tokens over the region's box, row by row: on each level the mean feature of a cell, under the mask, through a linear map;
    the levels summed, through an MLP."""

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        levels: tuple[int, ...] = (),
        grid: int = 3,
        samples: int = 4,
        masked: bool = True,
        embed: int = 1024,
    ) -> None:
        """
        Args:
            levels: of the pyramid, by index; empty for all.
            grid: tokens along each side of the box; K is its square.
            samples: along each side of a cell, taken bilinearly from the map.
            masked: weigh each sample by how much of its part of the box the mask covers; a cell outside the mask is then empty (0). A
                region so thin that its mask lost all pixels at the encoder's size counts as its whole box. False keeps what surrounds
                the region inside its box.
            embed: hidden width.

        Raises:
            ValueError: a level that is not there or named twice, or a grid of nothing.
        """
        super().__init__(channels, sizes, width)
        chosen = tuple(levels) or tuple(range(len(channels)))
        if not set(chosen) <= set(range(len(channels))) or len(set(chosen)) < len(chosen):
            raise ValueError(f"levels: got {list(chosen)}, expected some of 0 to {len(channels) - 1}, each once")
        if grid < 1 or samples < 1:
            raise ValueError(f"grid and samples must be at least 1, got grid {grid}, samples {samples}")
        self.levels, self.grid, self.samples, self.masked = chosen, grid, samples, masked
        self.tokens = grid**2
        self.region_in = nn.ModuleList(nn.Linear(channels[level], embed) for level in chosen)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(embed, width))

    def prepare(self, pyramid: Pyramid) -> tuple[Tensor, ...]:
        """The maps of the chosen levels.

        Raises:
            ValueError: the pyramid is not the one this extractor was wired for.
        """
        self.check_pyramid(pyramid)
        return tuple(pyramid.maps[level] for level in self.levels)

    def forward(self, prepared: tuple[Tensor, ...], regions: Regions) -> Tensor:
        """See the contract; K is grid ** 2."""
        weights = box_coverage(regions.masks, regions.boxes, self.grid * self.samples)  # (B, R, side, side)
        lost = (weights == 0).flatten(2).all(-1)[..., None, None]
        weights = torch.where(lost, 1.0, weights) if self.masked else torch.ones_like(weights)
        levels = [layer(replay(m, regions.boxes, weights, self.grid)) for layer, m in zip(self.region_in, prepared, strict=True)]
        return self.mlp(torch.stack(levels).sum(0))  # (B, R, K, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"grid": 2, "samples": 2, "embed": 16}
