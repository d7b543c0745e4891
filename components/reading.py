"""Asks many regions one question over prefixes that were read once, and are kept once.

The regions of an image stand side by side in one row behind their image's prefix. A token sees the prefix and what its own region was
asked and answered before it, so each region is read as if it stood alone: the same answers, without a copy of the prefix for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from components.llm_adapters.base import LLMAdapter
from components.prompts import Dialogue


class CachedReader:
    """N regions of B images and one question; implements `readouts.base.Reader`.

    Args:
        cache: the key-value cache of the prefixes, one row per image. It is never extended.
        images: B.
        start: length of the prefix, the same for all images.
        question: (N, L, D) embeddings of the question, region tokens included. All N have the same length, as they ask the same.
        image: (N,) long, the row of `cache` that a region belongs to.
        dialogue: which id ends an answer, and which may not stand in one.
    """

    def __init__(self, llm: LLMAdapter, cache: Any, images: int, start: int, question: Tensor, image: Tensor, dialogue: Dialogue) -> None:
        self.llm, self.cache, self.images, self.start, self.question = llm, cache, images, start, question
        self.image, self.dialogue, self.eos = image, dialogue, dialogue.eos
        counts = torch.bincount(image)
        self.most = int(counts.max())  # regions side by side
        self.place = torch.zeros_like(image)  # (N,) which of its image's regions it is
        for row in range(len(counts)):
            self.place[image == row] = torch.arange(int(counts[row]), device=image.device)

    def after(self, ids: Sequence[int]) -> Tensor:
        """See `Reader.after`."""
        said = self.llm.embed(torch.tensor([list(ids)], device=self.question.device)).expand(len(self.question), -1, -1)
        tokens = torch.cat([self.question, said.to(self.question.dtype)], 1)
        return self._next(self.llm.fork_cache(self.cache), self._owners(0), tokens, self.start)

    def generate(self, limit: int) -> list[list[int]]:
        """See `Reader.generate`."""
        cache, owners = self.llm.fork_cache(self.cache), self._owners(0)
        answers: list[list[int]] = [[] for _ in self.question]
        going = [True] * len(answers)
        tokens, position = self.question, self.start
        for _ in range(limit):
            logits = self._next(cache, owners, tokens, position)
            logits[:, list(self.dialogue.unsayable(logits.shape[1]))] = -torch.inf
            chosen = logits.argmax(-1)  # (N,)
            for n, token in enumerate(chosen.tolist()):
                going[n] = going[n] and token != self.eos
                if going[n]:
                    answers[n].append(token)
            if not any(going):
                break
            position += tokens.shape[1]
            owners = torch.cat([owners, self._owners(tokens.shape[1])])
            tokens = self.llm.embed(chosen[:, None])
        return answers

    def _owners(self, length: int) -> Tensor:
        """(P * L,) long: the region, by its place, of each column when `length` tokens of each of P regions stand side by side."""
        return torch.arange(self.most, device=self.image.device).repeat_interleave(length)

    def _next(self, cache: Any, owners: Tensor, tokens: Tensor, position: int) -> Tensor:
        """Reads `tokens` (N, L, D) from `position` on -> (N, V) logits of what follows.

        Args:
            owners: (C,) long, whose the columns of `cache` behind the prefix are.
        """
        _, length, width = tokens.shape
        side = tokens.new_zeros(self.images, self.most, length, width)
        side[self.image, self.place] = tokens  # (B, P, L, D); an image with fewer regions leaves places empty
        new = self._owners(length)
        mine = new[:, None] == torch.cat([owners, new])  # (PL, C + PL)
        mine[:, len(owners) :] &= torch.ones(len(new), len(new), dtype=torch.bool, device=new.device).tril()
        mask = torch.cat([mine.new_ones(len(new), self.start), mine], 1).expand(self.images, -1, -1)  # (B, PL, start + C + PL)
        positions = torch.arange(position, position + length, device=tokens.device).repeat(self.most).expand(self.images, -1)
        last = torch.arange(self.most, device=tokens.device) * length + length - 1
        logits = self.llm(side.flatten(1, 2), positions, mask, cache, keep=last)  # (B, P, V)
        return logits[self.image, self.place]
