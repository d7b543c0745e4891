"""Training images whose costly, unchanging part was computed once: what a frozen vision encoder sees of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from components.batch import Batch, split
from components.registry import ConfigError
from datamodules.collate import Collate
from datamodules.datasets.base import Samples

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
ROOM = 0.8  # share of the free memory that may be taken


class Remembered(Dataset[Batch]):
    """Item i is the `precompute`d batch of sample i alone, in memory; `components.batch.join` makes training batches of them.

    Args:
        precompute: see `Scorer.precompute`.
        batch_size: images at a time.

    Raises:
        ConfigError: memory would not hold them all.
    """

    def __init__(self, samples: Samples, collate: Collate, precompute: Callable[[Batch], Batch], batch_size: int) -> None:
        loader = DataLoader(samples, batch_size, collate_fn=collate)  # type: ignore[arg-type,var-annotated]
        self.batches: list[Batch] = []
        with tqdm(total=len(samples), unit="image", desc="encoding images") as bar:
            for batch in loader:
                self.batches += [one.to("cpu") for one in split(precompute(batch))]
                if not bar.n:
                    _check_room(self.batches, len(samples))
                bar.update(len(batch.images))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def _check_room(first: list[Batch], count: int) -> None:
    each = sum(map(_size, first)) / len(first)
    free = available_memory()
    if free is not None and each * count > ROOM * free:
        raise ConfigError(
            f"trainer.cache_features: {count:,} images of {each / 2**20:.1f} MiB each need {each * count / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free: set it to disk or off, or lower data.train"
        )


def available_memory() -> int | None:
    """Bytes that could be taken without swapping, by the system and by the control group; None where neither says."""
    found = []
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)


def _size(batch: Batch) -> int:
    regions = [getattr(batch.regions, f.name) for f in dataclasses.fields(batch.regions)]
    return sum(x.nbytes for x in [batch.images, *regions, *(batch.pyramid.maps if batch.pyramid else ())])
