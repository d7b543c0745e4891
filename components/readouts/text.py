"""Plain text: the answer is generated greedily and parsed. What does not parse is said so, never filled in."""

from __future__ import annotations

import math

from components.batch import TASKS, RoiScore, Task
from components.prompts import LEVELS, Dialogue, nearest_level, parse_distortions, parse_level, say_distortions, say_level
from components.readouts.base import READOUTS, Label, Reader, Readout, Target


@READOUTS.register("text")
class TextReadout(Readout):
    """Greedy text. A level word gives the level's value without uncertainty; a distortion sentence gives types and severities.

    Args:
        max_tokens: ids generated at most.
    """

    tasks = TASKS

    def __init__(self, dialogue: Dialogue, /, *, max_tokens: int = 48) -> None:
        super().__init__(dialogue)
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.max_tokens = max_tokens

    def check(self, task: Task) -> None:
        """Any tokenizer will do."""

    def target(self, task: Task, label: Label) -> Target | None:
        if task == "distortion":
            return None if label.distortions is None else Target(self.dialogue.answer(task, say_distortions(label.distortions)))
        if label.value is None or math.isnan(label.value):
            return None
        return Target(self.dialogue.answer(task, say_level(task, nearest_level(label.value, len(LEVELS[task])))))

    def read(self, task: Task, reader: Reader) -> list[RoiScore]:
        return [parse(task, self.dialogue.decode(ids)) for ids in reader.generate(self.max_tokens)]


def parse(task: Task, text: str) -> RoiScore:
    """An answer in words -> a score; `parsed` is False where it has no meaning for the task."""
    if task == "distortion":
        found = parse_distortions(text)
        return RoiScore(task, text=text, distortions=found or (), parsed=found is not None)
    level = parse_level(task, text)
    value = None if level is None else level / (len(LEVELS[task]) - 1)
    return RoiScore(task, value, text=text, parsed=level is not None)
