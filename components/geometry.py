"""A token of where a region is, how large, and of what shape, for any region extractor: none of its pixels.

What a region is worth to its image depends on its size and place, which pooled features hide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.batch import Regions
from components.pooling import box_coverage

CELLS = 8  # a mask is seen as CELLS x CELLS parts of its box


def describe_regions(regions: Regions) -> Tensor:
    """-> (B, R, 6 + CELLS ** 2) float32 in [0, 1]: square root of the area; left, top, width and height of the box; distance of its centre
    from the image's centre, 1 in a corner; then how much of each part of the box the mask covers, row by row."""
    boxes = regions.boxes.float()
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    distance = (2 * centres - 1).square().mean(-1, keepdim=True).sqrt()  # (B, R, 1)
    shape = box_coverage(regions.masks, boxes, CELLS).flatten(2)  # (B, R, CELLS ** 2)
    return torch.cat([regions.areas.float().sqrt()[..., None], boxes, distance, shape], -1)


class GeometryToken(nn.Module):
    """`describe_regions` through an MLP.

    Args:
        width: D.
        hidden: of the MLP.
    """

    def __init__(self, width: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6 + CELLS**2, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, regions: Regions) -> Tensor:
        """-> (B, R, 1, D)."""
        return self.mlp(describe_regions(regions).to(next(self.mlp.parameters()).dtype))[:, :, None]
