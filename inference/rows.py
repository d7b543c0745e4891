"""What is said of one region: as a line of JSON, and as a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.tasks import RegionScores, RoiScore, Task


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
        """As a row of a table; every row of the same tasks has the same columns, None where nothing is known."""
        left, top, width, height = self.box or (None,) * 4
        out: dict[str, Any] = {"image": self.image, "region": self.region, "kind": self.kind}
        out |= {"left": left, "top": top, "width": width, "height": height, "area": self.area}
        for task in tasks:
            score = self.scores.get(task)
            if task == "distortion":
                known = score is not None and score.parsed
                out[task] = ";".join(f"{kind}:{severity}" for kind, severity in score.distortions) if score and known else None
            else:
                out[task] = score and score.value
                out[f"{task}_std"] = score and score.std
            out[f"{task}_text"] = score and score.text
            out[f"{task}_parsed"] = score and score.parsed
        return {**out, "error": self.error or None}


def _told(score: RoiScore) -> Mapping[str, Any]:
    out: dict[str, Any] = {"text": score.text, "parsed": score.parsed}
    if score.task == "distortion":
        return {**out, "distortions": [{"type": kind, "severity": severity} for kind, severity in score.distortions]}
    return {"value": score.value, "std": score.std, **out, "levels": score.levels}
