"""Requests and a scorer -> rows: one for each region, scored or with the reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.batch import RoiScore, Task
from components.mask_encoders.base import MaskEncoder, Masks, Prompt
from components.mask_encoders.given import Given
from components.preprocess import mask_boxes
from components.reading import AnswerError
from components.rle import RegionError
from components.scorers.base import Look, RegionScores, Scorer
from datamodules.images import ImageError, load_image
from inference.requests import Asked, Request

AT_ONCE = 64  # regions of an image: their crops at 512 pixels are 0.2 GB


@dataclass(frozen=True)
class Row:
    """One region of the output.

    Attributes:
        box: left, top, width, height of its pixels. area: their share of the image.
        error: why it has no scores; "" where it has.
    """

    image: str
    region: str
    kind: str
    box: tuple[int, int, int, int] | None = None
    area: float | None = None
    scores: RegionScores = field(default_factory=dict)
    error: str = ""

    def nested(self) -> dict[str, Any]:
        """As a line of JSON."""
        told = {"image": self.image, "region": self.region, "kind": self.kind, "box": self.box and list(self.box), "area": self.area}
        return {**told, **{task: _told(score) for task, score in self.scores.items()}, "error": self.error or None}

    def flat(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """As a row of a table; every row of the same tasks has the same columns, empty where nothing is known."""
        left, top, width, height = self.box or ("",) * 4
        out: dict[str, Any] = {"image": self.image, "region": self.region, "kind": self.kind}
        out |= {"left": left, "top": top, "width": width, "height": height, "area": "" if self.area is None else self.area}
        for task in tasks:
            score = self.scores.get(task)
            if task == "distortion":
                out[task] = "" if score is None else ";".join(f"{kind}:{severity}" for kind, severity in score.distortions)
            else:
                out[task] = "" if score is None or score.value is None else score.value
                out[f"{task}_std"] = "" if score is None or score.std is None else score.std
            out[f"{task}_text"] = "" if score is None else score.text
            out[f"{task}_parsed"] = "" if score is None else score.parsed
        return {**out, "error": self.error}


@dataclass(frozen=True)
class Seen:
    """What became of one request: its rows, and what is needed to draw them.

    Attributes:
        image: (H, W, 3) uint8, None where it could not be read.
        masks: (R, H, W) bool of the rows that have scores, in their order.
    """

    request: Request
    rows: tuple[Row, ...]
    image: NDArray[np.uint8] | None = None
    masks: Masks | None = None


class Predictor:
    """Scores requests.

    Args:
        encoder: makes masks of points, and of whole images where regions are to be proposed.
        tasks: what is asked.
        segment_boxes: boxes, too, go through `encoder`; else they are taken as they are.
    """

    def __init__(self, scorer: Scorer, encoder: MaskEncoder, tasks: Sequence[Task], segment_boxes: bool = False) -> None:
        scorer.check_tasks(tasks)
        self.scorer, self.encoder, self.tasks = scorer, encoder, tuple(tasks)
        self._through_encoder = {"point", "box"} if segment_boxes else {"point"}
        self._given = Given()

    def __call__(self, requests: Sequence[Request]) -> Iterator[Seen]:
        """One at a time, in their order. What is wrong with an image or a region is said in its rows and stops nothing else."""
        for request in requests:
            yield self.one(request)

    def one(self, request: Request) -> Seen:
        """Scores the regions of one image."""
        try:
            image = load_image(request.path)
        except ImageError as error:
            return Seen(request, tuple(Row(request.name, a.id, a.kind, error=str(error)) for a in request.regions))
        found = [pair for asked in request.regions for pair in self._masks(image, asked)]
        good = [mask for _, mask in found if isinstance(mask, np.ndarray)]
        masks = np.stack(good) if good else np.zeros((0, *image.shape[:2]), np.bool_)
        try:
            rows = list(self._scored(request.name, image, masks, [a for a, mask in found if isinstance(mask, np.ndarray)]))
        except AnswerError as error:
            found = [(a, str(error) if isinstance(mask, np.ndarray) else mask) for a, mask in found]
            rows, masks = [], masks[:0]
        scored = iter(rows)
        told = (next(scored) if isinstance(m, np.ndarray) else Row(request.name, a.id, a.kind, error=m) for a, m in found)
        return Seen(request, tuple(told), image, masks)

    def _masks(self, image: NDArray[np.uint8], asked: Asked) -> list[tuple[Asked, NDArray[np.bool_] | str]]:
        """The regions that were meant, each with its mask or with what is wrong."""
        try:
            if asked.kind == "proposed":
                proposed = self.encoder.propose(image)
                if not len(proposed):
                    return [(asked, "the mask encoder found no region in this image: take another one, or say where")]
                return [(dataclasses.replace(asked, id=f"{asked.id} {n}"), mask) for n, mask in enumerate(proposed, 1)]
            prompt: Prompt = asked.prompt(*image.shape[:2])
            encoder = self.encoder if asked.kind in self._through_encoder else self._given
            return [(asked, encoder.forward(image, [prompt])[0])]
        except RegionError as error:
            return [(asked, str(error))]

    def _scored(self, name: str, image: NDArray[np.uint8], masks: Masks, asked: Sequence[Asked]) -> Iterator[Row]:
        if not asked:
            return
        look = Look(self.scorer, torch.from_numpy(image).permute(2, 0, 1))
        step = len(masks) if self.scorer.coupled else AT_ONCE
        for at in range(0, len(masks), step):
            part = torch.from_numpy(masks[at : at + step])
            boxes, areas = mask_boxes(part).tolist(), (part.sum((1, 2)) / part[0].numel()).tolist()
            scores = look.score(part, self.tasks)
            for region, box, area, answer in zip(asked[at : at + step], boxes, areas, scores, strict=True):
                yield Row(name, region.id, region.kind, tuple(box), area, answer)


def _told(score: RoiScore) -> Mapping[str, Any]:
    out: dict[str, Any] = {"text": score.text, "parsed": score.parsed}
    if score.task == "distortion":
        return {**out, "distortions": [{"type": kind, "severity": severity} for kind, severity in score.distortions]}
    return {"value": score.value, "std": score.std, **out, "levels": score.levels}
