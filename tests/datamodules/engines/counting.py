"""A job that engines are tried with; in a file of its own, so that other processes can import it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from datamodules.engines.base import Made, Work


class Counting(Work):
    """Shard s is a file that says s squared, and who is ready."""

    def __init__(self, folder: Path, count: int = 5, broken: int = -1, deadly: int = -1) -> None:
        self.key, self.folder, self.count, self.broken, self.deadly = str(folder), folder, count, broken, deadly
        self.ready = 0

    def __len__(self) -> int:
        return self.count

    def images(self, shard: int) -> int:
        return shard + 1

    def is_done(self, shard: int) -> bool:
        return (self.folder / f"{shard}.txt").exists()

    def get_ready(self) -> None:
        self.ready += 1

    def make(self, shard: int) -> Made:
        if shard == self.broken:
            raise LookupError(f"shard {shard} is broken")
        if shard == self.deadly:
            os._exit(9)
        threads = {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}
        (self.folder / f"{shard}.txt").write_text(f"{shard**2}, ready {self.ready}, threads {threads}")
        return Made(shard + 1, 0, ({"name": str(shard), "images": 1, "why": "odd"},) if shard % 2 else (), {"squaring": 1.0})
