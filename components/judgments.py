"""Judgments: yes-or-no questions about a proposed level or distortion type, answered "Yes." or "No." with the correct statement.

The paper trained with such questions, and has an ablation without them, "w/o JIR" (reference facts 3.6). Their wording was never
published; this one is ours. Only training asks them: the published questions, and what a model answers to them in use, stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.prompts import CLEAN, DISTORTION_TYPES, LEVELS, nearest_level, say_distortions, say_level
from components.readouts.base import Label
from components.tasks import Task

PROPOSALS: dict[Task, tuple[str, ...]] = {  # what may be proposed: a level, or a type that a region shows
    "quality": LEVELS["quality"],
    "importance": LEVELS["importance"],
    "distortion": (CLEAN, *DISTORTION_TYPES),
}
_QUESTIONS: dict[Task, str] = {
    "quality": "Is the quality of this region {}?",
    "importance": "Is this region {} to the overall image quality?",
    "distortion": "Does this region show {} distortions?",
}
_IS_CLEAN = "Is this region free of visible distortions?"


@dataclass(frozen=True)
class Judgment:
    """A proposal about a region, whether it is true, and the statement that is."""

    task: Task
    proposal: str
    true: bool
    statement: str

    @property
    def question(self) -> str:
        """In English."""
        return _IS_CLEAN if self.proposal == CLEAN else _QUESTIONS[self.task].format(self.proposal)

    @property
    def brief(self) -> str:
        """The question in the conversation "brief"."""
        return f"{self.task} {self.proposal}?"

    @property
    def answer(self) -> str:
        """In English."""
        return f"{'Yes' if self.true else 'No'}. {self.statement}"


def judgments(task: Task, label: Label) -> list[Judgment]:
    """A judgment for each proposal; none where the label is unknown.

    The true level is the one nearest to the score. Of several distortions each is true; "clean" is, where there is none.
    """
    if task == "distortion":
        if label.distortions is None:
            return []
        true, statement = {kind for kind, _ in label.distortions} or {CLEAN}, say_distortions(label.distortions)
    else:
        if label.value is None or math.isnan(label.value):
            return []
        level = nearest_level(label.value, len(LEVELS[task]))
        true, statement = {LEVELS[task][level]}, say_level(task, level)
    return [Judgment(task, proposal, proposal in true, statement) for proposal in PROPOSALS[task]]


def draw(task: Task, label: Label, truth: bool, which: float) -> Judgment | None:
    """A judgment of what is true, or of what is not: `which`, in [0, 1), chooses among those; None where the label is unknown."""
    among = [judgment for judgment in judgments(task, label) if judgment.true == truth]
    return among[int(which * len(among))] if among else None
