"""How long a scorer takes, so that two of them can be compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from components.batch import Batch


class Stopwatch:
    """How long a scorer takes for its answers about regions: reading, transfers and the whole-image control are not in it.

    Attributes:
        seconds: in all; a GPU's queue is waited for.
        regions: how many were answered in that time.
    """

    def __init__(self) -> None:
        self.seconds, self.regions = 0.0, 0

    @property
    def ms_per_region(self) -> float | None:
        """Milliseconds, the image's share included; None where there were no regions."""
        return 1e3 * self.seconds / self.regions if self.regions else None

    @contextmanager
    def running(self, batch: Batch) -> Iterator[None]:
        """Counts what happens inside as spent on the regions of `batch`."""
        _wait(batch.images.device)
        began = time.perf_counter()
        yield
        _wait(batch.images.device)
        self.seconds += time.perf_counter() - began
        self.regions += int(batch.regions.valid.sum())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
