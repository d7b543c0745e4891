"""Average of a feature map over each region's mask (reference facts 1.6.A), and how much of a box a mask covers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_pool(feature: Tensor, masks: Tensor) -> Tensor:
    """Mean feature under each mask, computed in float32 whatever the autocast state.

    A mask of another size is resized bilinearly without antialias, and every cell above 0 counts fully. Where the mask is
    s times larger (s even), a cell counts iff one of the 2 x 2 mask pixels at its centre is set: a region that misses all
    these centres vanishes from that level and pools to 0.

    Args:
        feature: (B, C, H, W).
        masks: (B, R, h, w), bool or in [0, 1].

    Returns:
        (B, R, C), in the dtype of `feature`.
    """
    with torch.autocast(feature.device.type, enabled=False):
        cells = masks.float()
        if cells.shape[-2:] != feature.shape[-2:]:
            cells = F.interpolate(cells, size=feature.shape[-2:], mode="bilinear", align_corners=False)
        cells = (cells > 0).float().flatten(2)  # (B, R, HW)
        weights = cells / cells.sum(-1, keepdim=True).clamp_min(1)  # to the bit as with 1e-8 added to the count
        pooled = torch.einsum("brn,bcn->brc", weights, feature.float().flatten(2))  # (B, R, C)
    return pooled.to(feature.dtype)


def box_coverage(masks: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """How much of each cell of a box its mask covers: exact areas, no samples, so that nothing is too thin to be seen. In float32.

    Args:
        masks: (B, R, H, W), bool or in [0, 1]: squares of side 1, constant inside.
        boxes: (B, R, 4) left, top, width, height as fractions of the mask's width and height.
        cells: a box is cut into cells x cells.

    Returns:
        (B, R, cells, cells) in [0, 1]; 0 where a box has no area.
    """
    size = torch.tensor([masks.shape[-1], masks.shape[-2]], dtype=torch.float32, device=boxes.device)
    start, length = boxes.float()[..., :2] * size, boxes.float()[..., 2:] * size  # (B, R, 2)
    steps = torch.arange(cells + 1, dtype=torch.float32, device=boxes.device) / cells
    edges = start[..., None] + length[..., None] * steps  # (B, R, 2, cells + 1), pixels
    step = length[..., None, None] / cells
    columns, rows = (
        overlap(edges[..., axis, :-1], edges[..., axis, 1:], masks.shape[-1 - axis]) / step[..., axis, :, :].clamp_min(1e-8)
        for axis in (0, 1)
    )  # (B, R, cells, W) and (B, R, cells, H)
    with torch.autocast(masks.device.type, enabled=False):
        return (rows @ masks.float() @ columns.transpose(-1, -2)).clamp(0, 1)


def overlap(low: Tensor, high: Tensor, count: int) -> Tensor:
    """(...) ends of intervals -> (..., count): their length inside each of [0, 1], [1, 2], ... [count - 1, count]."""
    left = torch.arange(count, dtype=low.dtype, device=low.device)
    return (torch.minimum(high[..., None], left + 1) - torch.maximum(low[..., None], left)).clamp_min(0)
