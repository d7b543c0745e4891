"""Plain text: the answer is generated greedily and parsed. What does not parse is said so, never filled in."""

from __future__ import annotations

import math
from typing import Literal

from components.batch import TASKS, RoiScore, Task
from components.prompts import LEVELS, Dialogue, nearest_level, parse_distortions, parse_level, say_distortions, say_level
from components.readouts.base import READOUTS, Label, Reader, Readout, Target


@READOUTS.register("text")
class TextReadout(Readout):
    """Greedy text. A level word gives the level's value without uncertainty; a distortion sentence gives types and severities.

    Args:
        max_tokens: ids generated at most.
        postprocess: "released" cleans an answer up as the released code does before it is parsed (see `released_clean_up`).
    """

    tasks = TASKS

    def __init__(self, dialogue: Dialogue, /, *, max_tokens: int = 48, postprocess: Literal["none", "released"] = "none") -> None:
        super().__init__(dialogue)
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.max_tokens, self.postprocess = max_tokens, postprocess

    def check(self, task: Task) -> None:
        """Any tokenizer will do."""

    def target(self, task: Task, label: Label) -> Target | None:
        if task == "distortion":
            return None if label.distortions is None else Target(self.dialogue.answer(task, say_distortions(label.distortions)))
        if label.value is None or math.isnan(label.value):
            return None
        return Target(self.dialogue.answer(task, say_level(task, nearest_level(label.value, len(LEVELS[task])))))

    def read(self, task: Task, reader: Reader) -> list[RoiScore]:
        texts = [self.dialogue.decode(ids) for ids in reader.generate(self.max_tokens)]
        return [parse(task, released_clean_up(text) if self.postprocess == "released" else text) for text in texts]


def released_clean_up(text: str) -> str:
    """What the released code makes of an answer (reference facts 1.12): of a text with colons what stands between the first and the
    second; then its sentences, cut at every full stop, up to the first that repeats an earlier one, each with a full stop behind it.
    Numbers suffer: "1.1" becomes "1."."""
    text = text.strip().removesuffix("</s>").strip()
    if ":" in text:
        text = text.split(":")[1]
    kept: list[str] = []
    for sentence in filter(None, text.split(".")):
        if sentence in kept:
            break
        kept.append(sentence)
    return "".join(f"{sentence}." for sentence in kept).strip()


def parse(task: Task, text: str) -> RoiScore:
    """An answer in words -> a score; `parsed` is False where it has no meaning for the task."""
    if task == "distortion":
        found = parse_distortions(text)
        return RoiScore(task, text=text, distortions=found or (), parsed=found is not None)
    level = parse_level(task, text)
    value = None if level is None else level / (len(LEVELS[task]) - 1)
    return RoiScore(task, value, text=text, parsed=level is not None)
