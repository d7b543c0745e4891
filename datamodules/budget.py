"""Micro-batches of as many images as fit into a number of tokens, in place of a fixed number of images."""

from __future__ import annotations

import bisect
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW = 50  # micro-batches' worth of images that are sorted by length together


class _Epoch(NamedTuple):
    """Batch i is `images[cuts[i] : cuts[i + 1]]`, and the batches' turns come in the order `turns`."""

    images: NDArray[np.int64]
    cuts: NDArray[np.int64]
    turns: NDArray[np.int64]


class BudgetOrder:
    """An order of micro-batches whose rows, padded to the longest of them, hold at most `budget` tokens; see `datamodules.sampler.Order`.

    Each epoch is shuffled, sorted by length within windows of some 50 batches, cut, and its batches are shuffled: images of a batch are
    of similar length, so little is padded, and yet meet others in each epoch. All follows from (seed, epoch): a batch is the same
    whenever it is asked for. An epoch visits each image once, its batches are not always as many.

    Args:
        tokens: (N,) of each image's row, at most.
        budget: tokens of a micro-batch: its images times the longest of its rows.

    Raises:
        ValueError: no images, or one that alone is beyond the budget.
    """

    def __init__(self, tokens: NDArray[np.int64], budget: int, seed: int) -> None:
        if not len(tokens):
            raise ValueError("there are no images to make batches of")
        if tokens.max() > budget:
            raise ValueError(f"image {tokens.argmax()} takes {tokens.max():,} tokens, and a micro-batch may have {budget:,}")
        self.tokens, self.budget, self.seed = tokens, budget, seed
        self.window = max(1, int(WINDOW * budget / tokens.mean()))  # images
        self._ends: list[int] = []  # number of the first batch after epoch 0, 1, ...
        self._kept: tuple[int, _Epoch] | None = None

    def batch(self, number: int) -> list[int]:
        """See the protocol."""
        while not self._ends or self._ends[-1] <= number:
            self._ends.append(self._begin(len(self._ends)) + len(self._epoch(len(self._ends)).turns))
        epoch = bisect.bisect_right(self._ends, number)
        images, cuts, turns = self._epoch(epoch)
        turn = turns[number - self._begin(epoch)]
        found: list[int] = images[cuts[turn] : cuts[turn + 1]].tolist()
        return found

    def _begin(self, epoch: int) -> int:
        return self._ends[epoch - 1] if epoch else 0

    def _epoch(self, epoch: int) -> _Epoch:
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, self._made(epoch)
        return self._kept[1]

    def _made(self, epoch: int) -> _Epoch:
        rng, count = np.random.default_rng([self.seed, epoch]), len(self.tokens)
        images = rng.permutation(count)
        window = np.arange(count) // self.window
        images = images[np.lexsort((-self.tokens[images], window))]  # longest first, so a batch's first row is its longest
        fits = np.arange(count) + self.budget // self.tokens[images]
        after = np.minimum(fits, (window + 1) * self.window).tolist()
        cuts = [0]
        while cuts[-1] < count:
            cuts.append(min(after[cuts[-1]], count))
        return _Epoch(images, np.array(cuts), rng.permutation(len(cuts) - 1))
