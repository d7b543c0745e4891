"""TeacherIQA (ACCV 2022, pp. 2457-2474): who has learned to restore pictures knows what is wrong with them.

Written from facts about chencn2020/TeacherIQA@d9c5cf2. Two steps: a network learns to restore (stage "restoration", on pairs of a
distorted and a clean picture), then a second one reads its decoder and rates quality, while both are trained (stage "quality", which
begins with the first by `start_from`). How the published restoring network was trained is not known; here it is by absolute error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Batch
from components.foundation import Foundations
from components.registry import ConfigError, Part
from components.restorer import PATCHED, STRIDES, Decoder, Restored
from components.scorers._crop_quality import Criterion, CropQuality, crops_of, one_resize, valid_places
from components.scorers.base import SCORERS
from components.view_attention import SpatialAttention
from components.vision_encoders.base import VisionEncoder

Stage = Literal["restoration", "quality"]


class Reader(nn.Module):
    """What the decoder knows, deep to shallow -> (N,) scores.

    Args:
        channels: of the encoder's levels, [C_0,] C_1 ... C_4.
        cells: side of the deepest map.
    """

    def __init__(self, channels: tuple[int, ...], cells: int) -> None:
        super().__init__()
        *_, second, third, fourth, last = channels
        eighth, quarter, half = last // 8, last // 4, last // 2
        self.bottom = nn.Sequential(*_narrowed(last, half, quarter, eighth))
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(into, out, 1), nn.ReLU(), nn.AvgPool2d(pool))
            for into, out, pool in ((fourth, eighth, 2), (third, quarter, 4), (second, half, 8))
        )
        self.attention = nn.ModuleList(SpatialAttention(c) for c in (quarter, half, last))
        fewest = max(8, last // 64)  # of a single one the ReLU may never let anything through
        self.score = nn.Sequential(*_narrowed(last, half, quarter, eighth, fewest), nn.Conv2d(fewest, 1, cells))

    def forward(self, restored: Restored) -> Tensor:
        x = self.bottom(restored.bottom)  # (N, C_4 / 8, h, w)
        for level, attend, joined in zip(self.levels, self.attention, restored.joined, strict=True):
            x = attend(torch.cat([x, level(joined)], 1))  # twice as many channels each time
        return self.score(x).flatten()


@SCORERS.register("teacher_iqa")
class TeacherIQA(CropQuality):
    """TeacherIQA's networks on a region's crop; the module's docstring says what they are.

    Args:
        vision_encoder: with levels at strides 2 to 32, published is ResNet-50, or at strides 4 to 32 (`components.restorer`); each of a
            multiple of 8 channels. Its image size is that of a view, published 224.
        stage: "restoration" learns to restore, on data with `pairs`, and scores by how little it would change: 1 - the root mean square
            of its changes. "quality" learns to rate; the decoder's end, which draws the picture, then stays as it is.
        crop_size: pixels to which a region's crop is brought; 0 for the size of a view, which then sees all of it.
        views: the most squares of the view's size, at chance places of a crop that is larger, whose mean score counts; a place that is
            drawn twice counts once. Training sees one at a time.
        criterion, scale: see `CropQuality`.

    Raises:
        ConfigError: an option out of its range, or an encoder that cannot restore.
    """

    def __init__(
        self,
        *,
        vision_encoder: Part[VisionEncoder],
        stage: Stage = "quality",
        crop_size: int = 0,
        views: int = 25,
        criterion: Criterion = "l1",
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(criterion, scale)
        self.vision_encoder = vision_encoder()
        self.preprocess = one_resize(self.vision_encoder.preprocess)
        self.view = self.preprocess.size
        strides, channels = tuple(self.vision_encoder.strides), self.vision_encoder.channels
        if strides not in (STRIDES, PATCHED) or any(c % 8 for c in channels):
            raise ConfigError(
                f"teacher_iqa: the encoder has levels at strides {strides} with {channels} channels, and restoring needs strides {STRIDES} "
                f"or {PATCHED}, each with a multiple of 8 channels: choose a hierarchical net with most_levels: 5, such as resnet50, "
                "mobilenetv3_large_100, convnext_tiny or swin_tiny_patch4_window7_224. A plain ViT has one stride and cannot be used; "
                "mobile_iqa and pooled_mlp take it"
            )
        if crop_size and crop_size < self.view:
            raise ConfigError(f"teacher_iqa: crop_size: got {crop_size}, expected 0 or at least {self.view}, the size of a view")
        if views < 1:
            raise ConfigError(f"teacher_iqa: views: got {views}, expected at least 1")
        self.stage, self.views, self.needs_clean = stage, views, stage == "restoration"
        self.crop_size = crop_size or self.view
        self.blocks = self.vision_encoder.blocks
        self.decoder = Decoder(channels)
        self.reader = Reader(channels, self.view // STRIDES[-1])
        (self.reader if stage == "restoration" else self.decoder.picture).requires_grad_(False)
        mean, std = (torch.tensor(v, device="cpu")[:, None, None] for v in (self.preprocess.mean, self.preprocess.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """(N, 3, V, V), normalised -> (N,) scores."""
        score: Tensor = self.reader(self.decoder(self.vision_encoder(views).maps))
        return score

    def restore(self, views: Tensor) -> Tensor:
        """(N, 3, V, V), normalised -> what they would be without distortions, in [0, 1]."""
        levels = self.vision_encoder(views).maps
        restored: Restored = self.decoder(levels)
        return cast("Tensor", self.decoder.picture(restored.joined[-1], levels))

    def rate(self, crops: Tensor) -> Tensor:
        if self.training:
            return self._rated(self._cut(crops, _places(crops, self.view, len(crops))))
        places = _places(crops, self.view, self.views, seed=0)
        rated = [self._rated(crops[..., top : top + self.view, left : left + self.view]) for top, left in dict.fromkeys(places)]
        return torch.stack(rated).mean(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Of the score, or of the restored pictures where the stage is to restore.

        Raises:
            ValueError: nothing is known about the clean pictures.
        """
        if self.stage == "quality":
            return super().loss(batch)
        if batch.clean is None:
            raise ValueError("stage restoration learns from pairs, and these data give no clean images: set data.pairs to true")
        which = valid_places(batch)
        if not len(which):
            return self.nothing("restoration", "answers")
        crops, clean = (crops_of(x, which) for x in (batch.regions.crops, batch.clean))
        places = _places(crops, self.view, len(crops), seed=None if self.training else 0)
        wanted = self._pixels(self._cut(clean, places))
        loss = F.l1_loss(self.restore(self._cut(crops, places)), wanted)
        return {"loss": loss, "restoration": loss, "answers": loss.new_tensor(len(which))}

    def _rated(self, views: Tensor) -> Tensor:
        if self.stage == "quality":
            return cast("Tensor", self(views))
        changed = (self.restore(views) - self._pixels(views)).square().flatten(1).mean(1).sqrt()
        return self.worst + (self.best - self.worst) * (1 - changed)

    def _cut(self, crops: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """(N, 3, S, S) -> (N, 3, V, V): of each crop the square at its place."""
        if crops.shape[-1] == self.view:
            return crops
        return torch.stack([x[:, top : top + self.view, left : left + self.view] for x, (top, left) in zip(crops, places, strict=True)])

    def _pixels(self, x: Tensor) -> Tensor:
        return x * cast("Tensor", self.std) + cast("Tensor", self.mean)

    def parts(self) -> dict[str, nn.Module]:
        return {"vision_encoder": self.vision_encoder, "decoder": self.decoder, "reader": self.reader}

    def load_pretrained(self) -> None:
        self.vision_encoder.load_pretrained()

    def trained_keys(self) -> set[str]:
        """All of it: what a stage leaves as it is, the other one needs."""
        return set(self.state_dict())

    def foundations(self) -> Foundations:
        return {}

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        encoder = {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64, "most_levels": 5}
        return {"vision_encoder": {**encoder, "model_args": {"channels": [8, 16, 24, 64]}}}


def _places(crops: Tensor, view: int, count: int, seed: int | None = None) -> list[tuple[int, int]]:
    """Where `count` views of a crop begin, (top, left) each; at places that `seed` draws, or those that training's chance does."""
    beyond = crops.shape[-1] - view
    if not beyond:
        return [(0, 0)] * count
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, beyond + 1, (count, 2), generator=generator, device="cpu")
    return [(top, left) for top, left in drawn.tolist()]


def _narrowed(*widths: int) -> list[nn.Module]:
    """1 x 1 convolutions with ReLUs behind them, from each width to the next."""
    return [part for into, out in itertools.pairwise(widths) for part in (nn.Conv2d(into, out, 1), nn.ReLU())]
