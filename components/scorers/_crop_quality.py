"""What networks have in common that rate one picture with one number: a region is shown to them as its crop."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Batch
from components.preprocess import Preprocess, crop_shape
from components.prompts import LEVELS, nearest_level, say_level
from components.registry import ConfigError
from components.scorers.base import Graph, Scorer
from components.tasks import RegionScores, RoiScore, Task

Criterion = Literal["mse", "l1"]
_AT_ONCE = 32  # crops that are rated together; bounds the memory of scoring


class CropQuality(Scorer):
    """A region's box, cut out of the image and brought by one resize to a square (or to the rectangle of `crop_size`), is rated as if it
    were an image of its own; a mask that covers everything shows the whole image. It answers about quality alone, and says nothing about
    how sure it is. What the network says beyond its scale becomes 0 or 1: such regions are ties, which metrics.json counts as
    `at_bounds`.

    Args:
        criterion: of the score, against labels in [0, 1].
        scale: the network's numbers for the worst and the best quality: those that it was trained on elsewhere, else 0 and 1.
    """

    tasks: tuple[Task, ...] = ("quality",)

    def __init__(self, criterion: Criterion, scale: Sequence[float]) -> None:
        super().__init__()
        if len(scale) != 2 or scale[0] == scale[1]:
            raise ConfigError(f"scale: got {list(scale)}, expected two different numbers: of the worst and of the best quality")
        self.criterion = criterion
        self.worst, self.best = scale

    @abstractmethod
    def rate(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) of `crop_size`, normalised -> (N,) in the network's own unit."""

    def rated(self, batch: Batch, places: Tensor) -> Tensor:
        """(K,) places of regions among the batch's B * R -> (K,) in the network's own unit."""
        return self.rate(crops_of(batch.regions.crops, places))

    def unit(self, rated: Tensor) -> Tensor:
        """The network's numbers -> on [0, 1], beyond which it may lie."""
        return (rated - self.worst) / (self.best - self.worst)

    def graph(self) -> Graph:
        """See the contract."""
        height, width = crop_shape(self.crop_size)
        crops = torch.linspace(-1, 1, 2 * 3 * height * width).reshape(2, 3, height, width)
        return Graph(_Plain(self), {"crops": crops}, {"crops": 0}, ("scores",), "scores: (regions,), of quality")

    def error(self, found: Tensor, wanted: Tensor) -> Tensor:
        """The criterion, elementwise."""
        return F.mse_loss(found, wanted, reduction="none") if self.criterion == "mse" else F.l1_loss(found, wanted, reduction="none")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean criterion over regions of known quality."""
        wanted, which = known_quality(batch)
        if not len(which):
            return self.nothing("quality", "answers")
        loss = self.error(self.unit(self.rated(batch, which)), wanted).mean()
        return {"loss": loss, "quality": loss, "answers": loss.new_tensor(len(which))}

    def nothing(self, *names: str) -> dict[str, Tensor]:
        """The loss of a batch about which nothing is known, and the entries beside it: zero, with zero gradients. They are named as in
        other batches, since batches of a step are added."""
        loss = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0
        return dict.fromkeys(("loss", *names), loss)

    @torch.no_grad()
    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        self.check_tasks(tasks)
        places = valid_places(batch).split(_AT_ONCE)
        rated = [self.unit(self.rated(batch, part)).float().clamp(0, 1) for part in places if len(part)]
        values = iter(torch.cat(rated).tolist() if rated else [])
        return [[{task: _answer(next(values)) for task in tasks} for _ in range(count)] for count in batch.regions.valid.sum(1).tolist()]


class _Plain(nn.Module):
    """Crops to scores, as answers have them."""

    def __init__(self, scorer: CropQuality) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, crops: Tensor) -> Tensor:
        """(R, 3, H, W) -> (R,) in [0, 1]."""
        return self.scorer.unit(self.scorer.rate(crops)).clamp(0, 1)


def one_resize(preprocess: Preprocess) -> Preprocess:
    """An encoder's, with crops that PIL resizes straight to their size, as the released code of these networks does."""
    return dataclasses.replace(preprocess, resizes="one")


def known_quality(batch: Batch) -> tuple[Tensor, Tensor]:
    """(K,) labels of the regions whose quality is known, and (K,) their places among the batch's B * R."""
    assert batch.labels is not None
    which = _places(batch.regions.valid & ~batch.labels.quality.isnan())
    return batch.labels.quality.flatten()[which], which


def crops_of(crops: Tensor, places: Tensor) -> Tensor:
    """(B, R, 3, H, W) -> (K, 3, H, W), those at `places` (K,) of B * R. Padding must not reach a network: its batch norms would see it."""
    return crops.flatten(0, 1)[places]


def valid_places(batch: Batch) -> Tensor:
    """(K,): the places of the batch's regions among its B * R."""
    return _places(batch.regions.valid)


def _places(which: Tensor) -> Tensor:
    return torch.nonzero(which.flatten())[:, 0]


def _answer(value: float) -> RoiScore:
    return RoiScore("quality", value, None, say_level("quality", nearest_level(value, len(LEVELS["quality"]))))
