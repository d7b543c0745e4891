"""The Lightning data module: a data set in a scorer's geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from components.batch import Batch, join
from components.preprocess import Preprocess
from datamodules.collate import Collate
from datamodules.datasets.base import RoiDataset
from datamodules.records import RoiSample, Split
from datamodules.remembered import Remembered
from datamodules.sampler import CursorBatchSampler


class CursorLoader(DataLoader[RoiSample]):
    """A loader whose batch sampler begins where training stands; so it has no state of its own to save or restore."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class RoiIQA(L.LightningDataModule):
    """Batches of images with all their regions.

    Args:
        batch_size: images per training step.
        steps: training steps in all; training is one Lightning epoch of that length.
        workers: loader processes; 0 loads in the main process.
    """

    def __init__(
        self,
        dataset: RoiDataset,
        preprocess: Preprocess,
        crop_size: int,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        workers: int = 0,
        eval_batch_size: int = 8,
    ) -> None:
        super().__init__()
        self.dataset, self.preprocess, self.crop_size = dataset, preprocess, crop_size
        self.batch_size, self.steps, self.seed, self.workers = batch_size, steps, seed, workers
        self.eval_batch_size = eval_batch_size
        self._remembered: Remembered | None = None

    def prepare_data(self) -> None:
        self.dataset.prepare()

    def remember(self, precompute: Callable[[Batch], Batch]) -> None:
        """Lets training read each image's `precompute`d batch from memory instead of its pixels.

        The half-precision features of an image of 256 pixels take half a megabyte with quickstart's encoder, its regions as much again.
        """
        self._remembered = Remembered(
            self.dataset.split("train"), Collate(self.preprocess, self.crop_size), precompute, self.eval_batch_size
        )

    def train_dataloader(self) -> DataLoader[RoiSample]:
        samples = self._remembered or self.dataset.split("train")
        start = self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0
        order = CursorBatchSampler(len(samples), self.batch_size, self.steps, self.seed, start)
        return CursorLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=join if self._remembered else Collate(self.preprocess, self.crop_size),
            num_workers=0 if self._remembered else self.workers,
            persistent_workers=self.workers > 0 and not self._remembered,
        )

    def val_dataloader(self) -> DataLoader[RoiSample]:
        return self.loader("val")

    def loader(self, split: Split, whole: bool = False) -> DataLoader[RoiSample]:
        """The samples of a split in order; `whole` asks about the whole images in place of their regions (see `Collate`)."""
        return DataLoader(
            self.dataset.split(split),  # type: ignore[arg-type]
            batch_size=self.eval_batch_size,
            collate_fn=Collate(self.preprocess, self.crop_size, whole),
            num_workers=self.workers,
        )

    def transfer_batch_to_device(self, batch: Batch, device, dataloader_idx: int) -> Batch:  # type: ignore[no-untyped-def]
        return batch.to(device)
