"""What is said of one region: as a line of JSON, and as a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tasks import TASKS, RegionScores, RoiScore, Task
from inference.requests import Request


@dataclass(frozen=True)
class Row:
    """One region of the output.

    Attributes:
        box: left, top, width, height of its pixels. area: their share of the image.
        code: the region itself, as COCO's run-length code.
        error: why it has no scores; "" where it has.
    """

    image: str
    region: str
    kind: str
    box: tuple[int, int, int, int] | None = None
    area: float | None = None
    scores: RegionScores = field(default_factory=dict)
    error: str = ""
    code: Mapping[str, Any] | None = None

    def nested(self) -> dict[str, Any]:
        """As a line of JSON."""
        told = {"image": self.image, "region": self.region, "kind": self.kind, "box": self.box and list(self.box), "area": self.area}
        code = self.code and {"size": [int(side) for side in self.code["size"]], "counts": self.code["counts"]}
        return {**told, "rle": code, **{task: _told(score) for task, score in self.scores.items()}, "error": self.error or None}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Row:
        """What `nested` said."""
        box = told["box"] and tuple(told["box"])
        scores = {task: _heard(task, told[task]) for task in TASKS if task in told}
        return cls(told["image"], told["region"], told["kind"], box, told["area"], scores, told["error"] or "", told["rle"])

    def flat(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """As a row of a table; every row of the same tasks has the same columns, None where nothing is known."""
        left, top, width, height = self.box or (None,) * 4
        out: dict[str, Any] = {"image": self.image, "region": self.region, "kind": self.kind}
        out |= {"left": left, "top": top, "width": width, "height": height, "area": self.area}
        image_height, image_width = self.code["size"] if self.code else (None, None)
        out |= {"image_height": image_height, "image_width": image_width, "counts": self.code and self.code["counts"]}
        for task in tasks:
            score = self.scores.get(task)
            if task == "distortion":
                known = score is not None and score.parsed
                out[task] = ";".join(f"{kind}:{severity}" for kind, severity in score.distortions) if score and known else None
            else:
                out[task] = score and score.value
                out[f"{task}_std"] = score and score.std
                out[f"{task}_levels"] = (score and score.levels) or None
            out[f"{task}_text"] = score and score.text
            out[f"{task}_parsed"] = score and score.parsed
        return {**out, "error": self.error or None}


@dataclass(frozen=True)
class Seen:
    """What became of one request: its rows, and what is needed to draw them.

    Attributes:
        image: (H, W, 3) uint8, None where it could not be read.
        codes: run-length codes of the rows that have scores, in their order.
    """

    request: Request
    rows: tuple[Row, ...]
    image: NDArray[np.uint8] | None = None
    codes: tuple[dict[str, Any], ...] = ()


def _told(score: RoiScore) -> Mapping[str, Any]:
    out: dict[str, Any] = {"text": score.text, "parsed": score.parsed}
    if score.task == "distortion":
        return {**out, "distortions": [{"type": kind, "severity": severity} for kind, severity in score.distortions]}
    return {"value": score.value, "std": score.std, **out, "levels": score.levels}


def _heard(task: Task, told: Mapping[str, Any]) -> RoiScore:
    distortions = tuple((d["type"], d["severity"]) for d in told.get("distortions", ()))
    return RoiScore(task, told.get("value"), told.get("std"), told["text"], dict(told.get("levels", {})), distortions, told["parsed"])
