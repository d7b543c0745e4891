"""The attention of MobileIQA (arXiv 2409.01212) and TeacherIQA: over an image's positions, and over views of it.

N pictures   n views of each (levels of a pyramid, or opinions)   C channels   G side of a map, P = G * G positions

Two habits of the released code look like slips and are what its weights have learned; `corrected` does without them:

- After attention has mixed the values (T tokens of D numbers), the result is read as if its (D, T) transpose were (T, D).
- A token "of a channel across all views" is n neighbouring rows of the (n * C, P) table, which are mostly n channels of one view.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Every position of a map looks at all others, with one head and unscaled products (SAGAN, arXiv 1805.08318).

    The result is added with the weight `gamma`, which is 0 at first: a new module is the identity.

    Args:
        channels: C, at least 8; queries and keys have an eighth of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 8:
            raise ValueError(f"attention over positions needs at least 8 channels, an eighth of which are compared; got {channels}")
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))  # (N, C / 8 or C, P)
        seen = (query.transpose(1, 2) @ key).softmax(-1)  # (N, P, P)
        return x + self.gamma * (value @ seen.transpose(1, 2)).unflatten(2, x.shape[2:])


class TokenAttention(nn.Module):
    """Tokens look at each other with one head; neither a norm nor a projection of the result.

    Args:
        width: D of a token.
        dropout: of what is added.
        corrected: see the module's docstring.
    """

    def __init__(self, width: int, dropout: float, corrected: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dropout, self.scale, self.corrected = nn.Dropout(dropout), width**-0.5, corrected

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        seen = (self.query(x) @ self.key(x).transpose(1, 2) * self.scale).softmax(-1)  # (N, T, T)
        y = seen @ self.value(x)  # (N, T, D)
        if not self.corrected:
            y = y.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.dropout(y)
        return out


class MultiViewAttention(nn.Module):
    """n maps of one picture -> one map: each looks at itself, then rows and positions of all of them at each other, then their mean.

    Args:
        channels: C. grid: G. views: n.
        dropout, corrected: see `TokenAttention`.
    """

    def __init__(self, channels: int, grid: int, views: int, dropout: float, corrected: bool) -> None:
        super().__init__()
        self.corrected = corrected
        self.spatial = nn.ModuleList(SpatialAttention(channels) for _ in range(views))
        self.rows = TokenAttention(views * grid**2, dropout, corrected)
        self.positions = TokenAttention(views * channels, dropout, corrected)

    def forward(self, views: Tensor) -> Tensor:
        """(N, n, C, G, G) -> (N, C, G, G)."""
        own = torch.stack([attend(x) for attend, x in zip(self.spatial, views.unbind(1), strict=True)], 1)
        maps = own.flatten(3)  # (N, n, C, P)
        by_position = self.positions(maps.flatten(1, 2).transpose(1, 2))  # (N, P, n * C)
        both = (self._by_row(maps) + by_position.transpose(1, 2).reshape(maps.shape)) / 2
        return both.mean(1).unflatten(2, views.shape[3:])  # (N, C, G, G)

    def _by_row(self, maps: Tensor) -> Tensor:
        """Attention among C tokens of n * P numbers each, (N, n, C, P) -> (N, n, C, P)."""
        count, views, channels, places = maps.shape
        if self.corrected:
            tokens = maps.transpose(1, 2).flatten(2)  # (N, C, n * P), a channel of all views
            return self.rows(tokens).unflatten(2, (views, places)).transpose(1, 2)
        tokens = maps.reshape(count, channels, views * places)  # n rows of the (n * C, P) table
        return self.rows(tokens).reshape(maps.shape)
