"""MobileIQA (arXiv 2409.01212): levels of a small network, several opinions of them by attention, one score.

Written from facts about chencn2020/MobileIQA@c74fec9. There a teacher (MobileViT v2) is trained first, then a student (MobileNet v3)
with its help: `components.distillation`. Both are this scorer, see configs/model/mobile_iqa_teacher.yaml and mobile_iqa.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.registry import ConfigError, Part
from components.scorers._crop_quality import Criterion, CropQuality, one_resize
from components.scorers.base import SCORERS
from components.view_attention import MultiViewAttention
from components.vision_encoders.base import VisionEncoder


class Seen(NamedTuple):
    """What the network makes of N pictures.

    Attributes:
        levels: (N, L, C, G, G), the encoder's levels, projected.
        opinions: (N, M, C, G, G).
        score: (N,), in the network's own unit.
    """

    levels: Tensor
    opinions: Tensor
    score: Tensor


class Projector(nn.Module):
    """A level of the encoder -> C channels on a G x G grid. A level that has fewer cells is repeated."""

    def __init__(self, channels: int, width: int, grid: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(channels, 2 * width, 1)
        self.out = nn.Conv2d(2 * width, width, 1)
        self.act, self.pool = nn.GELU(), nn.AdaptiveAvgPool2d(grid)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_l, H_l, W_l) -> (N, C, G, G)."""
        out: Tensor = self.out(self.pool(self.act(self.into(x))))
        return out


class Head(nn.Module):
    """The fused map (N, C, G, G) -> (N,) scores."""

    def __init__(self, width: int, pool: int, dropout: float, bounded: bool) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.map = nn.Sequential(
            nn.Conv2d(width, half, 1), nn.ReLU(), nn.AvgPool2d(pool), nn.Conv2d(half, half, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.score = nn.Sequential(nn.Linear(half, quarter), nn.ReLU(), nn.Dropout(dropout), nn.Linear(quarter, 1))
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(self.map(x).flatten(1))[:, 0]  # (N,)
        return score.sigmoid() if self.bounded else score


@SCORERS.register("mobile_iqa")
class MobileIQA(CropQuality):
    """MobileIQA's networks on a region's crop; the module's docstring says what they are.

    Args:
        vision_encoder: any, with any number of levels; published are five, at strides 2 to 32. Its image size is the size that a region's
            crop is brought to, where `crop_shape` gives none.
        crop_shape: height and width, pixels, that a region's crop is brought to whatever its proportions; published is 1231, 1907.
        width: C of the projected levels, a multiple of 4, at least 8.
        grid: G; it is in the shapes of the weights, the image size is not.
        opinions: M.
        pool: side of the average pooling in the head; the pooled grid must have 3 cells a side.
        bounded: whether a sigmoid keeps the score in (0, 1).
        dropout: inside the attention and before the score.
        corrected: without the two slips that released weights depend on (`components.view_attention`).
        criterion, scale: see `CropQuality`.

    Attributes:
        compared: the shapes of `Seen`, which a student and its teacher share.

    Raises:
        ConfigError: an option out of its range.
    """

    def __init__(
        self,
        *,
        vision_encoder: Part[VisionEncoder],
        crop_shape: tuple[int, int] | None = None,
        width: int = 256,
        grid: int = 22,
        opinions: int = 3,
        pool: int = 2,
        bounded: bool = True,
        dropout: float = 0.1,
        corrected: bool = False,
        criterion: Criterion = "mse",
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(criterion, scale)
        for name, value, allowed, good in (
            ("width", width, "a multiple of 4, at least 8", width >= 8 and width % 4 == 0),
            ("opinions", opinions, "at least 1", opinions >= 1),
            ("pool", pool, f"1 to {grid // 3}: a third of grid {grid} at most", pool >= 1 and grid // max(1, pool) >= 3),
            ("dropout", dropout, "a share in [0, 1)", 0 <= dropout < 1),
        ):
            if not good:
                raise ConfigError(f"mobile_iqa: {name}: {allowed}; got {value}")
        self.vision_encoder = vision_encoder()
        self.preprocess = one_resize(self.vision_encoder.preprocess)
        self.crop_size = self.preprocess.size if crop_shape is None else self._checked_shape(crop_shape)
        self.blocks = (*self.vision_encoder.blocks, MultiViewAttention)
        channels = self.vision_encoder.channels
        self.compared = {"levels": len(channels), "opinions": opinions, "width": width, "grid": grid}
        self.projectors = nn.ModuleList(Projector(c, width, grid) for c in channels)
        self.opinions = nn.ModuleList(MultiViewAttention(width, grid, len(channels), dropout, corrected) for _ in range(opinions))
        self.fusion = MultiViewAttention(width, grid, opinions, dropout, corrected)
        self.head = Head(width, pool, dropout, bounded)

    def forward(self, crops: Tensor) -> Seen:
        """(N, 3, H, W), normalised, of any size that the encoder takes."""
        maps = self.vision_encoder(crops).maps
        levels = torch.stack([project(x) for project, x in zip(self.projectors, maps, strict=True)], 1)  # (N, L, C, G, G)
        opinions = torch.stack([opinion(levels) for opinion in self.opinions], 1)  # (N, M, C, G, G)
        return Seen(levels, opinions, self.head(self.fusion(opinions)))

    def _checked_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        least = max(self.vision_encoder.strides)
        if len(shape) != 2 or min(shape) < least:
            raise ConfigError(
                f"mobile_iqa: crop_shape: height and width, at least {least}, the encoder's largest stride; got {list(shape)}"
            )
        if not self.vision_encoder.any_size:
            raise ConfigError(
                f"mobile_iqa: crop_shape: got {list(shape)}, but this encoder sees squares of {self.preprocess.size} pixels and nothing "
                "else: leave it out, or choose a convolutional net"
            )
        return shape[0], shape[1]

    def rate(self, crops: Tensor) -> Tensor:
        seen: Seen = self(crops)
        return seen.score

    def parts(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in ("vision_encoder", "projectors", "opinions", "fusion", "head")}

    def load_pretrained(self) -> None:
        self.vision_encoder.load_pretrained()

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        encoder = {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64, "most_levels": 5}
        return {"vision_encoder": {**encoder, "model_args": {"channels": [8, 16, 24, 32]}}, "width": 16, "grid": 6, "opinions": 2}
