"""Asks many regions one question over a prefix that was read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from components.llm_adapters.base import LLMAdapter


class CachedReader:
    """N regions and one question; implements `readouts.base.Reader`.

    Args:
        cache: the key-value cache of the prefix, one row per region. Each call below reads a copy.
        start: length of the prefix.
        question: (N, L, D) embeddings of the question, region tokens included. All N have the same length, as they ask the
            same; so nothing is padded and no mask is needed.
        eos: the id that ends an answer.
    """

    def __init__(self, llm: LLMAdapter, cache: Any, start: int, question: Tensor, eos: int) -> None:
        self.llm, self.cache, self.start, self.question, self.eos = llm, cache, start, question, eos

    def after(self, ids: Sequence[int]) -> Tensor:
        """See `Reader.after`."""
        said = self.llm.embed(torch.tensor([list(ids)], device=self.question.device)).expand(len(self.question), -1, -1)
        return self._next(self.llm.repeat_cache(self.cache, 1), torch.cat([self.question, said.to(self.question.dtype)], 1), self.start)

    def generate(self, limit: int) -> list[list[int]]:
        """See `Reader.generate`."""
        cache = self.llm.repeat_cache(self.cache, 1)
        answers: list[list[int]] = [[] for _ in self.question]
        going = [True] * len(answers)
        tokens, position = self.question, self.start
        for _ in range(limit):
            chosen = self._next(cache, tokens, position).argmax(-1)  # (N,)
            for n, token in enumerate(chosen.tolist()):
                going[n] = going[n] and token != self.eos
                if going[n]:
                    answers[n].append(token)
            if not any(going):
                break
            position += tokens.shape[1]
            tokens = self.llm.embed(chosen[:, None])
        return answers

    def _next(self, cache: Any, tokens: Tensor, position: int) -> Tensor:
        """Reads `tokens` (N, L, D) from `position` on -> (N, V) logits of what follows."""
        length = tokens.shape[1]
        positions = torch.arange(position, position + length, device=tokens.device).expand(len(tokens), -1)
        last = torch.tensor([length - 1], device=tokens.device)
        return self.llm(tokens, positions, cache=cache, keep=last)[:, 0]
