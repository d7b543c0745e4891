"""Questions and answers: the words of the tasks, the conversation around them, and their token ids.

The wording of the conversation and of the three questions is that of the released model (reference facts 1.8), as are the level
words (facts 1.13, 3.5). A conversation is a list of segments, text or slot; each text segment is tokenised by itself, which is
how the released model's tokens around its slots came about (facts 1.5). A small model trained from nothing need not learn to read
English first: for it there is a brief conversation, the slots and one word. All questions about an image share the tokens up to
the region's slot: that prefix is read once, and each (region, question) is a branch of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.tasks import TASKS, Distortions, Task

VERSION = "1"  # of all wording in this file: a saved model names the one that it was taught
IMAGE = -200  # slot of the image's tokens
REGION = -201  # slot of the region's tokens
SCORE = -202  # slot of a readout's own token
Conversation = Literal["seagull_v1", "chat", "brief"]

DISTORTION_TYPES = ("blur", "colorfulness", "compression", "contrast", "exposure", "noise")
CLEAN = "clean"
SEVERITIES = ("trivial", "minor", "moderate", "severe", "extreme")
LEVELS: dict[Task, tuple[str, ...]] = {  # worst to best, least to most
    "quality": ("bad", "poor", "fair", "good", "excellent"),
    "importance": ("unimportant", "minor", "normal", "important", "essential"),
}
STEMS: dict[Task, str] = {"quality": "The quality is", "importance": "This region is"}
_TAILS: dict[Task, str] = {"quality": ".", "importance": " to the overall quality."}
QUESTIONS: dict[Task, str] = {
    "quality": "Analyze the quality of this region.",
    "importance": "Consider the impact of this region on the overall image quality. Analyze its importance to the overall image quality.",
    "distortion": "Provide the distortion type of this region.",
}
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_MESSAGE: tuple[str | int, ...] = (
    IMAGE,
    "\nThis provides an overview of the image.\n Please answer the following questions about the provided region. "
    "Note: Distortions include: blur, colorfulness, compression, contrast exposure and noise.\n Here is the region ",
    REGION,
    ". ",
)
_NO_DISTORTION = "With no visible distortions."


def released_segments(task: Task) -> list[str | int]:
    """Texts and slots of the released conversation, in order; each text is tokenised by itself (facts 1.5, 1.8)."""
    return _released(QUESTIONS[task])


def _released(question: str) -> list[str | int]:
    slot, before_region, region, after_region = _MESSAGE
    return [f"{SYSTEM} USER: ", slot, before_region, region, f"{after_region}{question} ASSISTANT:"]


def say_level(task: Task, level: int) -> str:
    """The answer sentence of a level, 0 to 4."""
    return f"{STEMS[task]} {LEVELS[task][level]}{_TAILS[task]}"


def nearest_level(value: float, count: int = 5) -> int:
    """The level nearest to `value` in [0, 1], where the levels stand at 0, 1/4, ... 1."""
    return min(count - 1, max(0, int(value * (count - 1) + 0.5)))


def say_distortions(distortions: Distortions) -> str:
    """((type, severity), ...) -> "With minor colorfulness and trivial contrast distortions."; () -> that there are none."""
    if not distortions:
        return _NO_DISTORTION
    for kind, severity in distortions:
        if kind not in DISTORTION_TYPES or severity not in SEVERITIES:
            raise ValueError(f"distortion ({kind!r}, {severity!r}): types are {DISTORTION_TYPES}, severities {SEVERITIES}")
    return f"With {' and '.join(f'{severity} {kind}' for kind, severity in distortions)} distortions."


def parse_level(task: Task, text: str) -> int | None:
    """The level named in an answer to a level question; None unless exactly one level word stands after the stem."""
    tail = text.partition(STEMS[task])[2]
    found = [i for i, word in enumerate(LEVELS[task]) if re.search(rf"\b{word}\b", tail)]
    return found[0] if len(found) == 1 else None


_ITEM = re.compile(rf"({'|'.join(SEVERITIES)}) ({'|'.join(DISTORTION_TYPES)})")


def parse_distortions(text: str) -> Distortions | None:
    """The inverse of `say_distortions`; None where the answer has another form or names a type twice."""
    text = " ".join(text.split())
    if text == _NO_DISTORTION:
        return ()
    match = re.fullmatch(r"With (.+) distortions?\.", text)
    items = [_ITEM.fullmatch(part) for part in match[1].split(" and ")] if match else []
    pairs = tuple((m[2], m[1]) for m in items if m)
    if not pairs or len(pairs) != len(items) or len({kind for kind, _ in pairs}) != len(pairs):
        return None
    return pairs


@dataclass(frozen=True)
class Levels:
    """Where the level words stand in a task's answer: the ids before them, and the first id of each word in that context."""

    stem: tuple[int, ...]
    ids: tuple[int, ...]


class Dialogue:
    """A conversation spoken in one tokenizer's ids. `prefix` is shared by all questions about an image and holds one IMAGE."""

    def __init__(self, tokenizer: Any, conversation: Conversation = "seagull_v1") -> None:
        self.tokenizer, self.conversation = tokenizer, conversation
        splits = {task: self._split(QUESTIONS[task], f"{task}:") for task in TASKS}
        self.prefix: tuple[int, ...] = splits[TASKS[0]][0]
        if any(prefix != self.prefix for prefix, _ in splits.values()):
            raise ValueError("the questions of this conversation differ before the region's slot, so no prefix can be shared")
        self._asked = {task: asked for task, (_, asked) in splits.items()}
        self.questions: dict[Task, tuple[int, ...]] = {t: (REGION, *self._encode(a)) for t, a in self._asked.items()}
        if tokenizer.eos_token_id is None:
            raise ValueError("this tokenizer has no end-of-sequence token, so no answer could end: set its eos_token")
        self.eos: int = tokenizer.eos_token_id

    @functools.cache  # noqa: B019 - a dialogue lives as long as its model
    def answer(self, task: Task, text: str) -> tuple[int, ...]:
        """The ids of an answer after the question, with the end-of-sequence id."""
        return (*self._after_question(self._asked[task], text), self.eos)

    @functools.cache  # noqa: B019
    def exchange(self, question: str, brief: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of another question about a region and of the answer to it, as `questions` and `answer` give those of a task.

        Args:
            question: in English. brief: what the conversation "brief" says in its place.
        """
        prefix, asked = self._split(question, brief)
        assert prefix == self.prefix, "what stands before the region's slot depends on no question"
        return (REGION, *self._encode(asked)), (*self._after_question(asked, answer), self.eos)

    @functools.cache  # noqa: B019
    def levels(self, task: Task) -> Levels:
        """Finds the level words in context.

        Raises:
            ValueError: two level words begin with the same id, so one forward pass cannot tell them apart.
        """
        stem = self._after_question(self._asked[task], STEMS[task])
        ids = []
        for level, word in enumerate(LEVELS[task]):
            answer = self._after_question(self._asked[task], say_level(task, level))
            if answer[: len(stem)] != stem:
                raise ValueError(f"this tokenizer merges the level word '{word}' with the words before it: use the text readout")
            ids.append(answer[len(stem)])
        if len(set(ids)) < len(ids):
            first: dict[int, str] = {}
            twins = [(first[i], w) for i, w in zip(ids, LEVELS[task], strict=True) if first.setdefault(i, w) != w]
            raise ValueError(
                f"this tokenizer begins the level words {twins[0][0]!r} and {twins[0][1]!r} of {task} with the same id "
                f"{ids[LEVELS[task].index(twins[0][1])]}: one forward pass cannot tell them apart. Use the text readout "
                "or another tokenizer"
            )
        return Levels(stem, tuple(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @functools.cache  # noqa: B019
    def unsayable(self, vocabulary: int) -> tuple[int, ...]:
        """The ids, of `vocabulary` in all, that no answer may hold: rows without a word, and special tokens of somebody's own, such as the
        slots of the released model, whose rows were never trained (facts 1.5)."""
        t = self.tokenizer
        usual = {t.bos_token_id, t.eos_token_id, t.unk_token_id, t.pad_token_id}
        special = {i for i, token in t.added_tokens_decoder.items() if token.special}
        return (*sorted(special - usual), *range(len(t), vocabulary))

    def _after_question(self, question: str, text: str) -> tuple[int, ...]:
        asked = self._encode(question)
        joined = self._encode(question + ("" if self.conversation == "chat" else " ") + text)
        if joined[: len(asked)] != asked:
            raise ValueError(f"this tokenizer merges the answer {text!r} with the question before it: use another conversation")
        return joined[len(asked) :]

    def _split(self, question: str, brief: str) -> tuple[tuple[int, ...], str]:
        """The ids before the region's slot, and the text after it."""
        segments = self._segments(question, brief)
        at = segments.index(REGION)
        prefix: list[int] = [] if self.conversation == "chat" or self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        for segment in segments[:at]:
            prefix += [segment] if isinstance(segment, int) else self._encode(segment)
        after = segments[at + 1 :]
        if len(after) != 1 or not isinstance(after[0], str):
            raise ValueError("the region's slot must be followed by text to the end")
        return tuple(prefix), after[0]

    def _segments(self, question: str, brief: str) -> list[str | int]:
        if self.conversation == "seagull_v1":
            return _released(question)
        message = "".join({IMAGE: "\x00", REGION: "\x01"}[s] if isinstance(s, int) else s for s in _MESSAGE) + question
        if self.conversation == "brief":
            text = f"\x00\n\x01 {brief}"
        elif self.tokenizer.chat_template is None:
            raise ValueError("conversation 'chat' needs a tokenizer with a chat template: use 'seagull_v1'")
        else:
            turns = [{"role": "user", "content": message}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        parts = re.split("([\x00\x01])", text)
        return [{"\x00": IMAGE, "\x01": REGION}.get(p, p) for p in parts if p]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _corpus() -> tuple[str, ...]:
    message = " ".join(s for s in _MESSAGE if isinstance(s, str))
    answers = [say_level(task, i) for task in STEMS for i in range(5)]
    answers += [say_distortions(((kind, severity),)) for kind in DISTORTION_TYPES for severity in SEVERITIES]
    answers += [say_distortions((("blur", "minor"), ("noise", "severe"))), _NO_DISTORTION]
    asked = [f"{SYSTEM} USER: {message} {question} ASSISTANT: {answer}" for question in QUESTIONS.values() for answer in answers]
    return (*asked, *(f" {task}: {answer}" for task in QUESTIONS for answer in answers))


TOKENIZER_CORPUS = _corpus()  # what the repository's own tokenizer is made from
