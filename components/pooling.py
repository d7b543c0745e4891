"""Average of a feature map over each region's mask (reference facts 1.6.A)."""

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
        weights = cells / (cells.sum(-1, keepdim=True) + 1e-8)
        pooled = torch.einsum("brn,bcn->brc", weights, feature.float().flatten(2))  # (B, R, C)
    return pooled.to(feature.dtype)
