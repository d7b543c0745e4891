"""python -m tests.datamodules.resuming <folder> <data>: trainings over tables that lose their power in mid-epoch and go on from their
checkpoint.

In a file of its own, so that each of several ranks can be a process that runs it, as torchrun would start them.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from components.preprocess import Preprocess
from datamodules.datasets.indexed import Indexed
from datamodules.records import ImageRecord
from datamodules.roi_iqa import RoiIQA
from datamodules.row_copies import make_copies, place_of
from datamodules.rows import parts_of
from datamodules.sampler import ShuffledOrder
from datamodules.tables import read_records, write_records

BATCH, MICRO_BATCHES, STOP = 3, 10, 4  # images; two epochs of five; where the power goes, on all ranks together
WORKERS = (0, 1, 3)
CHECKPOINT = "stopped.ckpt"
COPIED = " (copied)"  # behind a region's name in the copy of a table, and not in the table


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


def write_data(folder: Path) -> set[str]:
    """Writes two tables, and a copy of that whose images lie beside it, in which regions have other names; the other holds its images, and
    is not copied. Returns the names of the training regions as they are read where there is a copy."""
    records = read_records(parts_of(Path(Indexed.tiny()["root"])))
    inside, beside = records[:4], [replace(r, png=b"", path=f"{r.id}.png") for r in records[4:]]
    root, copies = folder / "tables", folder / "cache" / "rows"
    root.mkdir()
    for record in records[4:]:
        (root / f"{record.id}.png").write_bytes(record.png)
    write_records(root / "inside.parquet", inside)
    write_records(root / "beside.parquet", beside)
    renamed = [_renamed(record) for record in beside]
    write_records(folder / "renamed.parquet", renamed)
    make_copies([folder / "renamed.parquet"], copies)
    place_of(folder / "renamed.parquet", copies).rename(place_of(root / "beside.parquet", copies))
    return {region.id for record in (*inside, *renamed) if record.split == "train" for region in record.regions}


def _renamed(record: ImageRecord) -> ImageRecord:
    return replace(record, regions=tuple(replace(r, id=f"{r.id}{COPIED}") for r in record.regions))


def data(folder: Path, world: int, workers: int) -> RoiIQA:
    """Fifteen training samples of one region each, of what `write_data` has written; all ranks have one cache."""
    dataset = Indexed(root=str(folder / "tables"), regions=1, cache=str(folder / "cache"))
    preprocess = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return RoiIQA(dataset, preprocess, 0, batch_size=BATCH, steps=MICRO_BATCHES // world, seed=7, workers=workers)


def fit(folder: Path, read: RoiIQA, world: int, stop: int, begin: Path | None = None) -> tuple[list[str], list[int]]:
    """One attempt of this rank to train on `read`: the regions that it was shown, and the micro-batches that were asked for."""
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
        trainer.fit(module, read, ckpt_path=begin, weights_only=True)
    except PowerCut:
        pass
    finally:
        ShuffledOrder.batch = batch  # type: ignore[method-assign]
    return module.seen, asked


def attempts(folder: Path, tables: Path, world: int = 1) -> dict[str, Any]:
    """Of this rank and each number of loader processes, what was seen of `write_data`'s folder and asked for before the power went and
    after."""
    found = {}
    for workers in WORKERS:
        here = folder / str(workers)
        before, asked = fit(here, data(tables, world, workers), world, STOP // world)
        after, _ = fit(here, data(tables, world, workers), world, -1, here / CHECKPOINT)
        found[str(workers)] = {"before": before, "asked": asked, "after": after}
    return found


if __name__ == "__main__":
    folder, tables, world = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["WORLD_SIZE"])
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(attempts(folder, tables, world)))
