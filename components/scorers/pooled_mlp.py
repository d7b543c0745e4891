"""The honest small baseline: features pooled inside the region's mask, and a small head per task. No language model.

Its training is also how the shipped vision encoder learned to see distortions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import Batch, Labels, Pyramid, Regions
from components.pooling import mask_pool
from components.prompts import CLEAN, DISTORTION_TYPES, LEVELS, SEVERITIES, nearest_level, say_distortions, say_level
from components.registry import Part
from components.scorers.base import SCORERS, Graph, Scorer
from components.tasks import RegionScores, RoiScore, Task
from components.vision_encoders.base import VisionEncoder

_SCALARS: tuple[Literal["quality", "importance"], ...] = ("quality", "importance")
_TYPES = (CLEAN, *DISTORTION_TYPES)


class Answers(NamedTuple):
    """What the head says of each region.

    Attributes:
        scores: (B, R, 2) quality and importance, in [0, 1].
        log_variances: (B, R, 2) of the scores.
        types: (B, R, 7) logits of clean and the six types.
        severities: (B, R, 5) logits.
    """

    scores: Tensor
    log_variances: Tensor
    types: Tensor
    severities: Tensor


class Head(nn.Module):
    """Pooled features, box and area of a region -> `Answers`."""

    def __init__(self, channels: tuple[int, ...], width: int, dropout: float, deviation: bool) -> None:
        super().__init__()
        self.deviation = deviation
        pooled = [c * (1 + deviation) for c in channels]
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in pooled)
        self.inputs = nn.ModuleList(nn.Linear(c, width) for c in pooled)
        self.geometry = nn.Linear(5, width)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))
        self.scalars = nn.Linear(width, 2 * len(_SCALARS))
        self.types = nn.Linear(width, len(_TYPES))
        self.severities = nn.Linear(width, len(SEVERITIES))

    def forward(self, pyramid: Pyramid, regions: Regions) -> Answers:
        """See `Answers`."""
        hidden = self.geometry(torch.cat([regions.boxes, regions.areas.sqrt()[..., None]], -1))  # (B, R, D)
        for x, norm, linear in zip(pyramid.maps, self.norms, self.inputs, strict=True):
            x = x.float()  # in half precision the difference of the two moments would be lost
            pooled = mask_pool(x, regions.masks)
            if self.deviation:
                spread = (mask_pool(x.square(), regions.masks) - pooled.square()).clamp_min(0)
                pooled = torch.cat([pooled, (spread + 1e-6).sqrt()], -1)
            hidden = hidden + linear(norm(pooled))
        hidden = self.mlp(hidden)
        scores, variances = self.scalars(hidden).unflatten(-1, (2, -1)).unbind(-2)
        return Answers(scores.sigmoid(), variances.clamp(-8, 2), self.types(hidden), self.severities(hidden))


class _Plain(nn.Module):
    """Encoder and head on tensors alone, and answers as numbers that need no further step."""

    def __init__(self, vision_encoder: VisionEncoder, head: Head) -> None:
        super().__init__()
        self.vision_encoder, self.head = vision_encoder, head

    def forward(self, image: Tensor, masks: Tensor, boxes: Tensor, areas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (1, 3, S, S), masks (R, S, S), boxes (R, 4), areas (R,) -> (R, 2), (R, 2), (R, 7), (R, 5)."""
        nothing = image.new_zeros(1, 1, 3, 0, 0)
        regions = Regions(masks[None], nothing, boxes[None], areas[None], torch.ones_like(areas, dtype=torch.bool)[None])
        found: Answers = self.head(self.vision_encoder(image), regions)
        return found.scores[0], (found.log_variances[0] / 2).exp(), found.types[0].softmax(-1), found.severities[0].softmax(-1)


@SCORERS.register("pooled_mlp")
class PooledMLP(Scorer):
    """Mean and standard deviation of each level inside the mask, box and area -> MLP -> score (with variance), type, severity.

    Args:
        deviation: whether the standard deviation is pooled too. Without it, what an encoder learns is in its means.
        width: of the hidden layers.
        dropout: before the heads.
        train_vision_encoder: null trains the encoder exactly when its weights are random.
    """

    def __init__(
        self,
        *,
        vision_encoder: Part[VisionEncoder],
        width: int = 256,
        dropout: float = 0.1,
        deviation: bool = True,
        train_vision_encoder: bool | None = None,
    ) -> None:
        super().__init__()
        self.vision_encoder = vision_encoder()
        self.preprocess = self.vision_encoder.preprocess
        self.blocks = self.vision_encoder.blocks
        if not (not self.vision_encoder.has_weights if train_vision_encoder is None else train_vision_encoder):
            self.vision_encoder.requires_grad_(False)
        self.head = Head(self.vision_encoder.channels, width, dropout, deviation)

    def forward(self, batch: Batch) -> Answers:
        """Everything about every region, padding included."""
        return self.head(self.vision_encoder(batch.images), batch.regions)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Gaussian negative log-likelihood of the scores (plus their squared error), cross-entropy of type and severity."""
        assert batch.labels is not None
        answers = self(batch)
        labels = batch.labels
        losses: dict[str, Tensor] = {}
        for i, task in enumerate(_SCALARS):
            target = getattr(labels, task)
            known = batch.regions.valid & ~target.isnan()
            error = torch.where(known, answers.scores[..., i] - target, 0.0).square()
            log_variance = answers.log_variances[..., i]
            each = 0.1 * (error.detach() * torch.exp(-log_variance) + log_variance) + 4 * error  # (B, R)
            losses[task] = torch.where(known, each, 0.0).sum() / known.sum().clamp_min(1)
        kind, severity = class_targets(labels, target.shape[1], target.device)
        losses["type"] = _cross_entropy(answers.types, kind)
        losses["severity"] = _cross_entropy(answers.severities, severity)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        return self.answer(self.look(batch), batch.regions, tasks)

    @torch.no_grad()
    def look(self, batch: Batch) -> Pyramid:
        """See the contract."""
        seen: Pyramid = self.vision_encoder(batch.images)
        return seen

    @torch.no_grad()
    def answer(self, seen: Pyramid, regions: Regions, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        """See the contract."""
        self.check_tasks(tasks)
        scores, variances, types, severities = (x.float().cpu() for x in self.head(seen, regions))
        out = []
        for b, valid in enumerate(regions.valid.cpu()):
            rows: list[RegionScores] = []
            for r in torch.nonzero(valid)[:, 0].tolist():
                row: RegionScores = {}
                for task in tasks:
                    if task == "distortion":
                        kind = int(types[b, r].argmax())
                        found = () if kind == 0 else ((_TYPES[kind], SEVERITIES[int(severities[b, r].argmax())]),)
                        row[task] = RoiScore(task, text=say_distortions(found), distortions=found)
                    else:
                        i = _SCALARS.index(task)
                        value, std = float(scores[b, r, i]), float((variances[b, r, i] / 2).exp())
                        row[task] = RoiScore(task, value, std, say_level(task, nearest_level(value, len(LEVELS[task]))))
                rows.append(row)
            out.append(rows)
        return out

    def graph(self) -> Graph:
        """See the contract."""
        side = self.preprocess.size
        masks = torch.zeros(3, side, side, dtype=torch.bool)
        masks[0, side // 4 :, side // 3 :], masks[1, : side // 2], masks[2, 0, 0] = True, True, True  # the last vanishes in coarse levels
        boxes = torch.tensor([[1 / 3, 1 / 4, 2 / 3, 3 / 4], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1 / side, 1 / side]])
        areas = torch.tensor([0.5, 0.5, 1 / side**2])
        return Graph(
            _Plain(self.vision_encoder, self.head),
            {"image": torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side), "masks": masks, "boxes": boxes, "areas": areas},
            {"masks": 0, "boxes": 0, "areas": 0},
            ("scores", "stds", "types", "severities"),
            f"scores and stds: (regions, 2) of {' and '.join(_SCALARS)}; types: (regions, {len(_TYPES)}) probabilities of "
            f"{', '.join(_TYPES)}; severities: (regions, {len(SEVERITIES)}) probabilities of {', '.join(SEVERITIES)}",
        )

    def parts(self) -> dict[str, nn.Module]:
        return {"vision_encoder": self.vision_encoder, "head": self.head}

    def load_pretrained(self) -> None:
        self.vision_encoder.load_pretrained()

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        return {"vision_encoder": {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64}, "width": 32}


def class_targets(labels: Labels, regions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, R) long: index of the first type in (clean, *types), and of its severity; -100 where unknown or there is none."""
    kind = torch.full((len(labels.distortions), regions), -100)
    severity = kind.clone()
    for b, image in enumerate(labels.distortions):
        for r, known in enumerate(image):
            if known is not None:
                kind[b, r] = _TYPES.index(known[0][0]) if known else 0
                if known:
                    severity[b, r] = SEVERITIES.index(known[0][1])
    return kind.to(device), severity.to(device)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / (target != -100).sum().clamp_min(1)
