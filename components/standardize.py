"""Feature maps of zero mean and unit variance per channel, by statistics taken once from training images.

After a ReLU every channel has a large common mean, and pooled features of different regions differ by little beside it; a small
model then spends its first thousands of steps on finding that out. Large pre-trained models do without: off for parity.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.batch import Pyramid


class Standardize(nn.Module):
    """(x - mean) / std per level and channel; the identity until `fit`.

    Args:
        channels: C_l of each level.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = len(channels)
        for level, count in enumerate(channels):
            self.register_buffer(f"mean{level}", torch.zeros(count))
            self.register_buffer(f"std{level}", torch.ones(count))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Maps (B, C_l, H_l, W_l) -> the same shapes."""
        return Pyramid(tuple((x - _map(self._get("mean", i))) / _map(self._get("std", i)) for i, x in enumerate(pyramid.maps)))

    @torch.no_grad()
    def fit(self, pyramids: Iterable[Pyramid]) -> None:
        """Takes mean and standard deviation over all cells of all images; a constant channel keeps its scale.

        Raises:
            ValueError: there are no images.
        """
        count = [0] * self.levels
        total = [torch.zeros_like(self._get("mean", i), dtype=torch.float64) for i in range(self.levels)]
        square = [torch.zeros_like(t) for t in total]
        for pyramid in pyramids:
            for i, x in enumerate(pyramid.maps):
                cells = x.double().transpose(0, 1).flatten(1)  # (C, B * H * W)
                count[i] += cells.shape[1]
                total[i] += cells.sum(1)
                square[i] += cells.square().sum(1)
        if not all(count):
            raise ValueError("no training images to take feature statistics from: the training split is empty")
        for i in range(self.levels):
            mean = total[i] / count[i]
            std = (square[i] / count[i] - mean.square()).clamp_min(0).sqrt()
            self._get("mean", i).copy_(mean)
            self._get("std", i).copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def _get(self, name: str, level: int) -> Tensor:
        found = getattr(self, f"{name}{level}")
        assert isinstance(found, Tensor)
        return found


def _map(x: Tensor) -> Tensor:
    return x[None, :, None, None]
