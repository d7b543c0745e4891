"""python -m tests.datamodules.resuming <folder>: trainings over tables that lose their power in mid-epoch and go on from their checkpoint.

In a file of its own, so that each of several ranks can be a process that runs it, as torchrun would start them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from components.preprocess import Preprocess
from datamodules.datasets.base import DATASETS
from datamodules.roi_iqa import RoiIQA
from datamodules.sampler import ShuffledOrder

BATCH, MICRO_BATCHES, STOP = 3, 10, 4  # images; two epochs of five; where the power goes, on all ranks together
WORKERS = (0, 1, 3)
CHECKPOINT = "stopped.ckpt"


class PowerCut(Exception):
    pass


class Notes(L.LightningModule):
    """Learns nothing and writes down which regions it is shown; saves a checkpoint after some steps, as ModelCheckpoint does, and stops."""

    def __init__(self, stop: int, checkpoint: Path) -> None:
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), list[str]()
        self.stop, self.checkpoint = stop, checkpoint

    def training_step(self, batch, index):
        self.seen += [region for image in batch.ids for region in image]
        return self.weight.sum()

    def on_train_batch_end(self, *rest):
        if self.trainer.global_step == self.stop:
            self.trainer.save_checkpoint(self.checkpoint)
            raise PowerCut

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(world: int, workers: int) -> RoiIQA:
    """Fifteen training samples of one region each, in tables."""
    dataset = DATASETS.build({"plugin": "indexed", **DATASETS.get("indexed").tiny(), "regions": 1, "cache": ""})
    preprocess = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return RoiIQA(dataset, preprocess, 0, batch_size=BATCH, steps=MICRO_BATCHES // world, seed=7, workers=workers)


def fit(folder: Path, world: int, workers: int, stop: int, begin: Path | None = None) -> tuple[list[str], list[int]]:
    """One attempt of this rank: the regions that it was shown, and the micro-batches that were asked for."""
    module, asked, batch = Notes(stop, folder / CHECKPOINT), list[int](), ShuffledOrder.batch
    trainer = L.Trainer(
        accelerator="cpu",
        strategy="ddp" if world > 1 else "auto",
        devices=world,
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    ShuffledOrder.batch = lambda self, number: asked.append(number) or batch(self, number)  # type: ignore[method-assign]
    try:
        trainer.fit(module, data(world, workers), ckpt_path=begin, weights_only=True)
    except PowerCut:
        pass
    finally:
        ShuffledOrder.batch = batch  # type: ignore[method-assign]
    return module.seen, asked


def attempts(folder: Path, world: int = 1) -> dict[str, Any]:
    """Of this rank and each number of loader processes, what was seen and asked for before the power went and after."""
    found = {}
    for workers in WORKERS:
        here = folder / str(workers)
        before, asked = fit(here, world, workers, STOP // world)
        after, _ = fit(here, world, workers, -1, here / CHECKPOINT)
        found[str(workers)] = {"before": before, "asked": asked, "after": after}
    return found


if __name__ == "__main__":
    folder, world = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(attempts(folder, world)))
