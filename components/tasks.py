"""The three questions about a region, and what is answered to one: words and numbers, no tensors, so that nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Task = Literal["quality", "importance", "distortion"]
TASKS: tuple[Task, ...] = ("quality", "importance", "distortion")
Distortions = tuple[tuple[str, str], ...]  # ((type, severity), ...); empty where the region is clean


@dataclass(frozen=True)
class RoiScore:
    """One answer about one region.

    Attributes:
        task: the question.
        value: in [0, 1], None for the distortion task or where the answer could not be parsed.
        std: standard deviation of `value`, same unit; None where the read-out gives none.
        text: the answer in words, as generated or as implied by the most probable level.
        levels: probability of each level word, empty where the read-out gives none.
        distortions: the (type, severity) pairs named; only for the distortion task.
        parsed: False where a generated answer did not parse. Such an answer is counted, never filled in.
    """

    task: Task
    value: float | None = None
    std: float | None = None
    text: str = ""
    levels: dict[str, float] = dataclasses.field(default_factory=dict)
    distortions: Distortions = ()
    parsed: bool = True


RegionScores = dict[Task, RoiScore]
