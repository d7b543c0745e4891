"""Image features -> image tokens of the language model's width (reference facts 1.3)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Pyramid


class Projector(nn.Module):
    """One level of the pyramid, cell by cell and row by row, through an MLP.

    Args:
        channels: of the chosen level.
        width: D.
        kind: "mlp2x_gelu" is Linear, GELU, Linear; "linear" is one Linear.
        level: index of the level in the pyramid.
        pool: side of the square of cells averaged to one token; 1 keeps every cell.
    """

    def __init__(
        self, channels: int, width: int, *, kind: Literal["mlp2x_gelu", "linear"] = "mlp2x_gelu", level: int = 2, pool: int = 1
    ) -> None:
        super().__init__()
        if pool < 1:
            raise ValueError(f"projector pool must be at least 1 cell, got {pool}")
        self.level, self.pool = level, pool
        first = nn.Linear(channels, width)
        self.mlp = first if kind == "linear" else nn.Sequential(first, nn.GELU(), nn.Linear(width, width))

    def forward(self, pyramid: Pyramid) -> Tensor:
        """-> (B, N, D), N = cells of the level / pool^2."""
        x = pyramid.maps[self.level]
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool)
        return self.mlp(x.flatten(2).transpose(1, 2))  # (B, N, D)
