"""The restoring network of TeacherIQA (ACCV 2022, pp. 2457-2474): an encoder's five levels, and a decoder that draws the clean picture.

Written from facts about chencn2020/TeacherIQA@d9c5cf2. Widths follow the encoder's: C_0 ... C_4 at strides 2 ... 32. A net that begins with
patches of 4 x 4 pixels (ConvNeXt, Swin) has no level at stride 2, and is joined with none there: C_0 is then about a quarter of C_1, as it
is in the published network. Only the picture is drawn from it; what rates quality reads strides 4 to 32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (2, 4, 8, 16, 32)
PATCHED = STRIDES[1:]  # of a net without a level at stride 2


class Restored(NamedTuple):
    """What the decoder makes of N pictures.

    Attributes:
        bottom: (N, C_4, H / 32, W / 32).
        joined: the first three levels that are joined with the encoder's: (N, C_3, H / 16, W / 16), (N, C_2, ...), (N, C_1, H / 4, W / 4).
    """

    bottom: Tensor
    joined: tuple[Tensor, Tensor, Tensor]


class Branches(nn.Module):
    """Four ways through, side by side: 1 x 1, 5 x 5 grouped, separable 3 x 3, and pooled. (N, into, H, W) -> (N, out, H, W)."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        quarter, half = out // 4, out // 8
        self.plain = nn.Conv2d(into, quarter, 1)
        self.wide = nn.Sequential(nn.Conv2d(into, half, 1), *_normed(half), nn.Conv2d(half, quarter, 5, padding=2, groups=half))
        self.separable = nn.Sequential(
            nn.Conv2d(into, half, 1),
            *_normed(half),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            *_normed(half),
            nn.Conv2d(half, quarter, 1),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(into, quarter, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.plain(x), self.wide(x), self.separable(x), self.pooled(x)], 1)


class Block(nn.Module):
    """`Branches`, then three 3 x 3 convolutions, each followed by norm and ReLU. (N, into, H, W) -> (N, out, H, W)."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.branches = nn.Sequential(Branches(into, out), *_normed(out))
        self.triple = nn.Sequential(
            nn.Conv2d(out, half, 3, padding=1, groups=half),
            *_normed(half),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            *_normed(half),
            nn.Conv2d(half, out, 3, padding=1, groups=half),
            *_normed(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.triple(self.branches(x))


class Join(nn.Module):
    """A deeper level, enlarged, beside the encoder's own at that stride, where it has one (`joined`) -> `Block`."""

    def __init__(self, deeper: int, level: int, joined: bool = True) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deeper, level, 2, stride=2)
        self.block = Block(2 * level if joined else level, level)

    def forward(self, deeper: Tensor, level: Tensor | None) -> Tensor:
        """(N, deeper, h, w), (N, level, H, W) -> (N, level, H, W); without a level twice as large as the deeper one."""
        up = self.up(deeper)
        if level is None:
            return self.block(up)
        missing = (level.shape[-1] - up.shape[-1], level.shape[-2] - up.shape[-2])  # where a side of the picture is odd
        return self.block(torch.cat([F.pad(up, (0, missing[0], 0, missing[1])), level], 1))


class Decoder(nn.Module):
    """An encoder's five levels, or the last four of them -> what `Restored` says, and from that the picture.

    Args:
        channels: C_0 ... C_4 or C_1 ... C_4, multiples of 8.

    Raises:
        ValueError: other than five or four levels, or of other widths.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        if len(channels) not in (len(STRIDES), len(PATCHED)) or any(c % 8 for c in channels):
            raise ValueError(
                f"restoring needs levels at strides {STRIDES} or {PATCHED}, each of a multiple of 8 channels; got channels {channels}"
            )
        *finest, second, third, fourth, last = channels
        self.bottom = Block(last, last)
        self.joins = nn.ModuleList(Join(deeper, level) for deeper, level in ((last, fourth), (fourth, third), (third, second)))
        self.picture = Picture(second, *finest)

    def forward(self, levels: tuple[Tensor, ...]) -> Restored:
        """Levels (N, C_l, H_l, W_l), fine to coarse."""
        *_, second, third, fourth, last = levels
        bottom = self.bottom(last)
        one = self.joins[0](bottom, fourth)
        two = self.joins[1](one, third)
        return Restored(bottom, (one, two, self.joins[2](two, second)))


class Picture(nn.Module):
    """The end of the decoder, which scoring does without: (N, C_1, H / 4, W / 4) and the encoder's levels -> (N, 3, H, W) in [0, 1].

    Args:
        second: C_1.
        first: C_0; None for an encoder without that level.
    """

    def __init__(self, second: int, first: int | None = None) -> None:
        super().__init__()
        self.joined = first is not None
        width = max(8, second // 4 // 8 * 8) if first is None else first
        self.join = Join(second, width, self.joined)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, deeper: Tensor, levels: tuple[Tensor, ...]) -> Tensor:
        return self.out(self.up(self.join(deeper, levels[0] if self.joined else None))).sigmoid()


def _normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU()
