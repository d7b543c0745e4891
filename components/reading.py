"""Asks many regions many questions over prefixes that were read once, and are kept once.

The (region, question) pairs of an image stand side by side in one row behind their image's prefix. A token sees the prefix and what its
own pair was asked and answered before it, so each is read as if it stood alone: the same answers, without a copy of the prefix for each.
Pairs go on at their own pace: each says what it likes, of whatever length, and stops when it has its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.llm_adapters.base import PADDING, LLMAdapter
from components.prompts import Dialogue
from components.readouts.base import Heard, Say, Talk
from components.tasks import RoiScore


class AnswerError(ValueError):
    """A model answered in values that are no numbers, or not at all."""


class Prefixes(NamedTuple):
    """What a language model has read of B images.

    Attributes:
        cache: its key-value cache, one row per image.
        length: tokens of a prefix, the same for all.
        images: B.
    """

    cache: Any
    length: int
    images: int


@torch.no_grad()
def converse(
    llm: LLMAdapter, prefixes: Prefixes, questions: Sequence[Tensor], image: Sequence[int], talks: Sequence[Talk], dialogue: Dialogue
) -> list[RoiScore]:
    """Carries on N talks at once, each about a region of one of B images.

    Args:
        prefixes: of the images. Their cache is never extended.
        questions: N embeddings (L_n, D), region tokens included, on the device of `llm`.
        image: N rows of `prefixes`.
        talks: N of `Readout.talk`, not yet begun.
        dialogue: which ids may not stand in an answer.

    Returns:
        N answers.

    Raises:
        AnswerError: the model gives values that are no numbers, from which no score would follow.
    """
    answers: list[RoiScore | None] = [None] * len(talks)
    if not talks:
        return []
    row = _Row(llm, prefixes, alone=len(talks) == prefixes.images == 1)
    going: dict[int, Say] = {n: next(talk) for n, talk in enumerate(talks)}
    read: Sequence[Tensor | None] = questions  # before the first word
    try:
        while going:
            order = list(going)
            logits, states = row.read([(n, image[n], read[n], going[n].ids) for n in order], any(going[n].state for n in order))
            going, said = {}, dict(zip(order, _heard(logits, [going[n] for n in order], dialogue, states), strict=True))
            for n, heard in said.items():
                try:
                    going[n] = talks[n].send(heard)
                except StopIteration as end:
                    answers[n] = end.value
            read = [None] * len(talks)
    finally:
        llm.return_cache(row.cache)
    return [answer for answer in answers if answer is not None]


class _Row:
    """The rows behind the prefixes."""

    def __init__(self, llm: LLMAdapter, prefixes: Prefixes, alone: bool) -> None:
        self.alone = alone  # then there is one plain sequence, which every model can read
        self.llm, self.cache, self.start, self.images = llm, llm.fork_cache(prefixes.cache), prefixes.length, prefixes.images
        self.positions: dict[int, int] = {}

    def read(self, turns: Sequence[tuple[int, int, Tensor | None, tuple[int, ...]]], states: bool) -> tuple[Tensor, Tensor | None]:
        """(pair, image, embeddings or None, ids) in turn: reads embeddings and then ids of each -> (N, V) logits of what follows, and
        where `states` are wanted those (N, D)."""
        device, llm = next(self.llm.parameters()).device, self.llm
        words = llm.embed(torch.tensor([i for _, _, _, ids in turns for i in ids], dtype=torch.long, device=device))
        parts: list[Tensor] = []
        used = [0] * self.images
        place: list[tuple[int, int, int, int, int]] = []  # pair, image, first column, length, first position
        at = 0
        for n, b, question, ids in turns:
            if question is not None:
                parts.append(question.to(words.dtype))
            parts.append(words[at : at + len(ids)])
            at += len(ids)
            length = len(ids) + (0 if question is None else len(question))
            position = self.positions.get(n, self.start)
            place.append((n, b, used[b], length, position))
            used[b] += length
            self.positions[n] = position + length
        lengths = torch.tensor([length for *_, length, _ in place])
        within = torch.cat([torch.arange(length) for *_, length, _ in place])
        pair, image, first, _, begun = (torch.tensor(x).repeat_interleave(lengths) for x in zip(*place, strict=True))
        column = first + within
        shape = (self.images, max(used))
        branch = None if self.alone else torch.full(shape, PADDING).index_put((image, column), pair + 1).to(device)
        positions = torch.full(shape, self.start).index_put((image, column), begun + within).to(device)
        tokens = words.new_zeros(*shape, words.shape[-1])
        tokens[image.to(device), column.to(device)] = torch.cat(parts)
        columns, which = torch.tensor([a + length - 1 for _, _, a, length, _ in place]).unique(return_inverse=True)
        given = (tokens, positions, branch, self.cache, columns.to(device))
        logits, seen = llm.with_states(*given) if states else (llm(*given), None)  # (B, U, V), (B, U, D)
        asked = torch.tensor([b for _, b, *_ in place], device=device), which.to(device)
        return logits[asked], None if seen is None else seen[asked]


def _heard(logits: Tensor, said: Sequence[Say], dialogue: Dialogue, states: Tensor | None = None) -> list[Heard]:
    """What each is told, read from the device in as few pieces as there are different wishes."""
    if not torch.isfinite(logits).all():
        raise AnswerError(
            "the language model's logits are not all finite numbers: its weights are damaged, or its precision is too narrow for them "
            "(float16: take bfloat16 or float32)"
        )
    wishes: dict[tuple[int, ...] | None, list[int]] = {}
    for n, say in enumerate(said):
        wishes.setdefault(say.among, []).append(n)
    heard: dict[int, Heard] = {}
    for among, rows in wishes.items():
        own = logits[torch.tensor(rows, device=logits.device)]
        if among is None:
            own[:, list(dialogue.unsayable(own.shape[1]))] = -torch.inf
            heard.update((n, Heard(best, ())) for n, best in zip(rows, own.argmax(-1).tolist(), strict=True))
            continue
        own = own[:, torch.tensor(among, device=logits.device)]
        for n, best, values in zip(rows, own.argmax(-1).tolist(), own.tolist(), strict=True):
            heard[n] = Heard(among[best], tuple(values))
    return [heard[n]._replace(state=states[n]) if states is not None and say.state else heard[n] for n, say in enumerate(said)]
