"""Plain text: the answer is generated greedily and parsed. What does not parse is said so, never filled in."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Literal

from components.grammar import Grammar
from components.prompts import LEVELS, Dialogue, nearest_level, parse_distortions, parse_level, say_distortions, say_level
from components.readouts.base import READOUTS, Heard, Label, Readout, Say, Talk, Target
from components.tasks import TASKS, RoiScore, Task


@READOUTS.register("text")
class TextReadout(Readout):
    """Greedy text. A level word gives the level's value without uncertainty; a distortion sentence gives types and severities.

    Args:
        grammar: of all ids only those are chosen from that go on a well-formed answer (see `components.grammar`), so that every answer
            has a meaning, and ids without an alternative are not waited for. What would be well-formed without it, in the
            tokenizer's own spelling, is the same with it. False generates freely, as the released model does.
        max_tokens: ids generated at most without the grammar.
        postprocess: "released" cleans an answer up as the released code does before it is parsed (see `released_clean_up`).
    """

    tasks = TASKS

    def __init__(
        self,
        dialogue: Dialogue,
        width: int = 0,
        /,
        *,
        grammar: bool = True,
        max_tokens: int = 48,
        postprocess: Literal["none", "released"] = "none",
    ) -> None:
        super().__init__(dialogue, width)
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.grammar, self.max_tokens, self.postprocess = grammar, max_tokens, postprocess
        self._grammars = {task: Grammar(dialogue, task) for task in TASKS} if grammar else {}

    def check(self, task: Task) -> None:
        """Without the grammar any tokenizer will do."""
        if self.grammar:
            self._grammars[task].check()

    def target(self, task: Task, label: Label) -> Target | None:
        if task == "distortion":
            return None if label.distortions is None else Target(self.dialogue.answer(task, say_distortions(label.distortions)))
        if label.value is None or math.isnan(label.value):
            return None
        return Target(self.dialogue.answer(task, say_level(task, nearest_level(label.value, len(LEVELS[task])))))

    def talk(self, task: Task) -> Talk:
        if self.grammar:
            text = yield from self._grammars[task].spell()
        else:
            text = yield from self._greedy()
        return parse(task, released_clean_up(text) if self.postprocess == "released" else text)

    def _greedy(self) -> Generator[Say, Heard, str]:
        ids: list[int] = []
        heard = yield Say()
        while len(ids) < self.max_tokens and heard.best != self.dialogue.eos:
            ids.append(heard.best)
            if len(ids) < self.max_tokens:
                heard = yield Say((heard.best,))
        return self.dialogue.decode(ids)


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
