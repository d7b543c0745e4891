"""What the image's encoder saw of the regions' crops, as tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Pyramid


def tokens_of_crops(seen: Pyramid | None, valid: Tensor, grid: int, levels: Iterable[nn.Module], out: nn.Module) -> Tensor:
    """Each level averaged over each part of the grid, through a linear map of its own; their sum through GELU and another one.

    Args:
        seen: (V, C_l, h, w) on each level, of the V valid regions in their order.
        valid: (B, R) bool.
        levels: C_l -> hidden, one for each level. out: hidden -> D.

    Returns:
        (B, R, grid ** 2, D), row by row of the grid; 0 where a region is not valid.

    Raises:
        ValueError: no pyramid, or not that of these regions.
    """
    layers = [layer for layer in levels if isinstance(layer, nn.Linear)]
    wanted = [(int(valid.sum()), layer.in_features) for layer in layers]
    given = None if seen is None else [tuple(m.shape[:2]) for m in seen.maps]
    if seen is None or given != wanted:
        raise ValueError(
            f"the crops' levels are {given}, expected {wanted} (valid regions, channels): what the image's encoder sees of them"
        )
    pooled = [F.adaptive_avg_pool2d(m, grid).flatten(2).transpose(1, 2) for m in seen.maps]  # (V, K, C_l)
    summed = torch.stack([layer(x) for layer, x in zip(layers, pooled, strict=True)]).sum(0)
    tokens = out(F.gelu(summed))  # (V, K, D)
    places = torch.nonzero(valid.flatten())[:, 0]
    empty = tokens.new_zeros(valid.numel(), *tokens.shape[1:])
    return empty.index_copy(0, places, tokens).unflatten(0, valid.shape)  # (B, R, K, D)
