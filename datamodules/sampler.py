"""The order of the samples: a seeded permutation per epoch and an integer cursor, so that resuming is exact."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class CursorBatchSampler(Sampler[list[int]]):
    """Yields `steps` batches of `batch_size` indices, from step `start` on.

    Epoch e visits the samples in the order of permutation (seed, e); a batch may straddle two epochs. Step s is the same batch
    whether the steps before it were drawn or not.
    """

    def __init__(self, samples: int, batch_size: int, steps: int, seed: int, start: int = 0) -> None:
        if samples < 1 or batch_size < 1 or steps < 1:
            raise ValueError(f"samples, batch_size and steps must be at least 1, got {samples}, {batch_size}, {steps}")
        self.samples, self.batch_size, self.steps, self.seed, self.start = samples, batch_size, steps, seed, start

    def __len__(self) -> int:
        """All steps, those before `start` included: the trainer counts from zero."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.samples != epoch:
                    epoch = position // self.samples
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
                batch.append(int(order[position % self.samples]))
            yield batch
