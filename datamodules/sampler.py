"""The order of the samples, as a function of one integer: resuming is exact, and any number of ranks reads the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class Order(Protocol):
    """Which samples a micro-batch is made of. All ranks together count micro-batches 0, 1, 2, ... from the first step on."""

    def batch(self, number: int) -> list[int]:
        """Indices of micro-batch `number`: the same whenever, and by whichever rank, it is asked for."""


class ShuffledOrder:
    """Epoch e visits the samples in the order of permutation (seed, e), `batch_size` at a time; a batch may straddle two epochs."""

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        if samples < 1 or batch_size < 1:
            raise ValueError(f"samples and batch_size must be at least 1, got {samples} and {batch_size}")
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def batch(self, number: int) -> list[int]:
        """See the protocol."""
        first = number * self.batch_size
        return [int(self._permuted(at // self.samples)[at % self.samples]) for at in range(first, first + self.batch_size)]

    def _permuted(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.samples)
        return self._permutation


class CursorBatchSampler(Sampler[list[int]]):
    """A rank's share of the micro-batches `start`, ..., `batches` - 1 of an order: every `world`-th, from its own rank on.

    Two ranks and one rank that accumulates two batches so see the same batches in a step.

    Args:
        start: the cursor, how many micro-batches all ranks have consumed before.
        batches: where the cursor will stand at the end.
        before: how many batches this rank's trainer has counted already; by default its share of those before the cursor.
    """

    def __init__(self, order: Order, batches: int, start: int = 0, rank: int = 0, world: int = 1, before: int | None = None) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}: ranks are counted from 0")
        if not 0 <= start <= batches or (batches - start) % world:
            raise ValueError(f"micro-batches {start} to {batches} cannot be shared by {world} ranks: each must get as many")
        self.order, self.batches, self.start, self.rank, self.world = order, batches, start, rank, world
        self.before = start // world if before is None else before

    def __len__(self) -> int:
        """This rank's batches, those counted before included: the trainer counts from zero."""
        return self.before + (self.batches - self.start) // self.world

    def __iter__(self) -> Iterator[list[int]]:
        return (self.order.batch(number) for number in range(self.start + self.rank, self.batches, self.world))
