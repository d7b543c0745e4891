"""The Lightning data module: a data set in a scorer's geometry."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader

from components.batch import Batch, join
from components.preprocess import CropSize, Preprocess
from components.registry import ConfigError
from datamodules.budget import BudgetOrder
from datamodules.collate import Collate
from datamodules.datasets.base import RoiDataset
from datamodules.features import Kept, KeptCollate, fill, open_features
from datamodules.records import Split
from datamodules.remembered import Remembered
from datamodules.sampler import CursorBatchSampler, Order, ShuffledOrder
from datamodules.samples import RoiSample


def leave_with_starter(worker: int) -> None:
    """Ends a loader process soon after the training that started it was killed; by itself it would wait, for good, to hand over what
    nobody takes any more."""
    parent, starter = os.getppid(), multiprocessing.parent_process()  # with a fork server, these are two

    def watch() -> None:
        while os.getppid() == parent and (starter is None or starter.is_alive()):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
        batch_size: images per micro-batch.
        max_tokens: tokens per micro-batch, in place of a number of images (see `datamodules.budget`); 0 for none.
        row_tokens: see `Scorer.row_tokens`; needed for a budget of tokens.
        steps: optimizer steps in all; training is one Lightning epoch of that length.
        workers: loader processes; 0 loads in the main process.

    Raises:
        ValueError: no steps; a budget of tokens for a scorer that reads none.
    """

    def __init__(
        self,
        dataset: RoiDataset,
        preprocess: Preprocess,
        crop_size: CropSize,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        workers: int = 0,
        eval_batch_size: int = 8,
        max_tokens: int = 0,
        row_tokens: Callable[[NDArray[np.int64], int], NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.dataset, self.preprocess, self.crop_size = dataset, preprocess, crop_size
        self.batch_size, self.steps, self.seed, self.workers = batch_size, steps, seed, workers
        self.eval_batch_size = eval_batch_size
        self.max_tokens, self.row_tokens = max_tokens, row_tokens
        if max_tokens:
            self._row_tokens(np.zeros(0, np.int64))  # where there are none to count it says so now
        self._remembered: Remembered | None = None
        self._kept: Kept | None = None
        self._step = self._cursor = 0  # where this attempt began: optimizer steps, and micro-batches of all ranks

    def prepare_data(self) -> None:
        self.dataset.prepare()
        if self.max_tokens:
            self._check_budget()

    @functools.cached_property
    def _tokens(self) -> NDArray[np.int64]:
        """(N,) of the training images, at most."""
        return self._row_tokens(self.dataset.split("train").region_counts())

    def _row_tokens(self, regions: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.row_tokens is not None, "a budget of tokens needs `row_tokens`"
        return self.row_tokens(regions, self.dataset.most_types)

    def _check_budget(self) -> None:
        """Raises ConfigError where an image alone is beyond the budget."""
        tokens = self._tokens
        beyond = int((tokens > self.max_tokens).sum())
        if beyond:
            worst, samples = int(tokens.argmax()), self.dataset.split("train")
            regions = samples.region_counts()
            fit = int(np.searchsorted(self._row_tokens(np.arange(regions[worst] + 1)), self.max_tokens, "right")) - 1
            raise ConfigError(
                f"trainer.max_tokens: a batch may have {self.max_tokens:,} tokens, and {beyond:,} of {len(tokens):,} images may take more: "
                f"{samples[worst].record.id} with {regions[worst]} regions up to {tokens[worst]:,}. Set it to {tokens[worst]:,} at least"
                + (f", or give images at most {fit} regions (data.regions)" if fit > 0 else "")
            )

    def most_regions(self) -> int:
        """Of a training batch, at most."""
        regions = self.dataset.split("train").region_counts()
        if self.max_tokens:
            return int(self.max_tokens * (regions / self._tokens).max())  # a batch is as many tokens as its images take together
        return int(np.sort(regions)[-self.batch_size :].sum())

    def remember(self, precompute: Callable[[Batch], Batch]) -> None:
        """Lets training read each image's `precompute`d batch from memory instead of its pixels.

        The half-precision features of an image of 256 pixels take half a megabyte with quickstart's encoder, its regions as much again.
        """
        self._remembered = Remembered(
            self.dataset.split("train"), Collate(self.preprocess, self.crop_size), precompute, self.eval_batch_size
        )

    def keep(self, precompute: Callable[[Batch], Batch], key: str, share: tuple[int, int] = (0, 1)) -> None:
        """Lets training read from disk what a frozen vision encoder sees of each image (`datamodules.features`); made where it is missing.

        Args:
            key: `datamodules.features.fingerprint`, which names the folder within the data set's cache.
            share: of which part of it this process is to make what is missing, and of how many.

        Raises:
            ConfigError: the data set has no cache, or the disk no room.
        """
        samples, collate = self.dataset.split("train"), Collate(self.preprocess, self.crop_size)
        features = open_features(self.features_folder(key), samples, collate, precompute)
        fill(features, samples, collate, precompute, batch_size=self.eval_batch_size, workers=self.workers, share=share)
        self._kept = Kept(samples, features)

    def features_folder(self, key: str) -> Path:
        """Where the features of that fingerprint are kept. Raises ConfigError where the data set has no cache."""
        if self.dataset.cache is None:
            raise ConfigError(
                f"trainer.cache_features: disk keeps features in the data set's cache, and {type(self.dataset).__name__} has none here: "
                "give it a folder (data.cache), or use memory or off"
            )
        return self.dataset.cache / f"features-{key}"

    def order(self, samples: int) -> Order:
        """The order in which training visits that many samples."""
        if self.max_tokens:
            return BudgetOrder(self._tokens, self.max_tokens, self.seed)
        return ShuffledOrder(samples, self.batch_size, self.seed)

    def number(self, batch: int) -> int:
        """The global number of this rank's batch `batch`, as Lightning counts batches. Whatever training draws by chance hangs on it."""
        world, accumulate, rank = self._shares()
        return self._cursor + (batch - self._step * accumulate) * world + rank

    def train_dataloader(self) -> DataLoader[RoiSample]:
        samples, collate, workers = self._training()
        world, accumulate, rank = self._shares()
        if self.trainer and self.trainer.global_step != self._step:
            raise ValueError(
                f"the checkpoint of step {self.trainer.global_step} does not say where its data stood: an older version wrote it. "
                "Finish the run with that version, or give this one another name (name=...)"
            )
        end = self._cursor + (self.steps - self._step) * accumulate * world
        order = CursorBatchSampler(self.order(len(samples)), end, self._cursor, rank, world, before=self._step * accumulate)
        return CursorLoader(
            samples,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_with_starter,
        )

    def _training(self) -> tuple[Any, Callable[[Any], Batch], int]:
        """What training reads, how it becomes a batch, and how many processes read it: none of what is in memory, which each would copy."""
        collate = Collate(self.preprocess, self.crop_size)
        if self._remembered:
            return self._remembered, join, 0
        if self._kept:
            return self._kept, KeptCollate(collate), self.workers
        return self.dataset.split("train"), collate, self.workers

    def state_dict(self) -> dict[str, int]:
        """Where the data stand, for a checkpoint: it is the same for all ranks, and does not depend on their number."""
        world, accumulate, _ = self._shares()
        step = self.trainer.global_step if self.trainer else self._step
        return {"step": step, "cursor": self._cursor + (step - self._step) * accumulate * world, "batches_per_step": accumulate * world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state` says. Warns where a step will not be made of as many micro-batches as before."""
        self._step, self._cursor = state["step"], state["cursor"]
        world, accumulate, rank = self._shares()
        before, now = state["batches_per_step"], accumulate * world
        if before != now and rank == 0:
            keep = f"trainer.accumulate={before // world} would keep it" if before % world == 0 else f"{world} ranks cannot keep it"
            warnings.warn(f"a step was made of {before} micro-batches before, and is made of {now} from here on: {keep}", stacklevel=2)

    def _shares(self) -> tuple[int, int, int]:
        """Ranks, micro-batches of each in a step, and the rank of this process."""
        return (self.trainer.world_size, self.trainer.accumulate_grad_batches, self.trainer.global_rank) if self.trainer else (1, 1, 0)

    def val_dataloader(self) -> DataLoader[RoiSample]:
        """This rank's share of the split. All get as many batches, as they may have to wait for each other in each: what is missing to
        that is the last batch again, which does not count (`counts`)."""
        world, _, rank = self._shares()
        batches, missing = self._val_batches(), -len(self._val_batches()) % world
        return self.loader("val", batches=(batches + missing * batches[-1:])[rank::world])

    def counts(self, batch: int) -> bool:
        """Whether this rank's validation batch `batch` is one of the split."""
        world, _, rank = self._shares()
        return batch * world + rank < len(self._val_batches())

    def _val_batches(self) -> list[range]:
        count = len(self.dataset.split("val"))
        return [range(at, min(at + self.eval_batch_size, count)) for at in range(0, count, self.eval_batch_size)]

    def loader(self, split: Split, whole: bool = False, batches: Sequence[Sequence[int]] | None = None) -> DataLoader[RoiSample]:
        """The samples of a split in order, or those that `batches` name; `whole` asks about the whole images in place of their regions
        (see `Collate`)."""
        samples = self.dataset.split(split)
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=batches or BatchSampler(range(len(samples)), self.eval_batch_size, drop_last=False),  # type: ignore[arg-type]
            collate_fn=Collate(self.preprocess, self.crop_size, whole),
            num_workers=self.workers,
            worker_init_fn=leave_with_starter,
        )

    def transfer_batch_to_device(self, batch: Batch, device, dataloader_idx: int) -> Batch:  # type: ignore[no-untyped-def]
        return batch.to(device)
