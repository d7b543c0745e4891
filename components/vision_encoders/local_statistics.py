"""A timm model that sees, beside the colours, the local statistics in which distortions show.

Clean photographs have lawful local statistics whatever they depict, and distortions break them: the luma, less its local mean and
over its local deviation, has one distribution (Ruderman 1994; the ground of BRISQUE, Mittal et al. 2012), and the contrast of fine
detail stands in a known ratio to that of coarser detail, which blur lowers and noise raises. A net that is shown these planes learns
in minutes, from few photographs, what a net that is shown colours alone has to find out first.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from components.vision_encoders.base import VISION_ENCODERS
from components.vision_encoders.timm_pyramid import TimmPyramid

_WINDOW, _FINE = 7, 3  # sides of the windows, pixels
_COARSE = 4  # reduction of the luma for the coarse contrast
_COARSE_WINDOW = 5
_FLOOR = 1.0  # added to variances, in squared 8-bit levels: below, detail counts as none
_BLACK, _WHITE = 3.5, 251.5  # 8-bit levels beyond which a colour counts as clipped


@VISION_ENCODERS.register("local_statistics")
class LocalStatistics(TimmPyramid):
    """`timm_pyramid` on ten planes: luma, two colour differences; the luma normalised by its local mean and deviation; the log local
    contrast of all three; its ratio to that of fine detail, and of coarse detail; and the share of clipped colours.

    Options are those of `timm_pyramid`, but for `weights: pretrained`: the first convolution takes ten planes, so timm's do not fit.
    """

    planes: ClassVar[int] = 10

    def see(self, images: Tensor) -> Tensor:
        """See `TimmPyramid.see`; computed in float32 whatever the autocast state. Planes are scaled to about unit spread."""
        with torch.autocast(images.device.type, enabled=False):
            mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.preprocess.mean, self.preprocess.std))
            rgb = (images.float() * std + mean) * 255  # (B, 3, H, W) in 8-bit levels
            red, green, blue = rgb.unbind(1)
            luma = 0.299 * red + 0.587 * green + 0.114 * blue - 128
            ycc = torch.stack([luma, 0.564 * (blue - 128 - luma), 0.713 * (red - 128 - luma)], 1)
            around, var = _moments(ycc, _WINDOW)
            contrast = var.add(_FLOOR).log() / 2  # (B, 3, H, W), log of the local deviation
            fine = _moments(ycc[:, :1], _FINE)[1].add(_FLOOR / 2).log() / 2
            small = F.avg_pool2d(ycc[:, :1], _COARSE, ceil_mode=True, count_include_pad=False)
            coarse = _moments(small, _COARSE_WINDOW)[1].add(_FLOOR).log() / 2
            coarse = F.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=False)
            scale = torch.tensor([60.0, 25.0, 25.0], device=images.device).view(1, 3, 1, 1)
            return torch.cat(
                [
                    ycc / scale,
                    (ycc[:, :1] - around[:, :1]) * torch.exp(-contrast[:, :1]),
                    contrast - 1.5,
                    fine - contrast[:, :1] + 0.7,
                    contrast[:, :1] - coarse + 0.3,
                    2 * ((rgb < _BLACK).float() + (rgb > _WHITE).float()).mean(1, keepdim=True),
                ],
                1,
            )


def _moments(x: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> mean and variance in the window around each pixel, of the image continued by its edge; same shapes."""
    mean, square = _box(torch.cat([x, x * x], 1), window).chunk(2, 1)
    return mean, (square - mean * mean).clamp_min(0)


def _box(x: Tensor, window: int) -> Tensor:
    """As a depthwise convolution of channels-last memory, which is ten times as fast on a CPU as average pooling."""
    channels, reach = x.shape[1], window // 2
    padded = F.pad(x, (reach,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.conv2d(padded, x.new_full((channels, 1, window, window), window**-2), groups=channels)
