from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from components.preprocess import Preprocess
from components.registry import ConfigError
from components.scorers.base import SCORERS
from datamodules.datasets.photographs import Photographs
from datamodules.roi_iqa import RoiIQA

PREPROCESS = Preprocess(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def data(steps: int = 6, batch_size: int = 2, **options) -> RoiIQA:
    dataset = Photographs(size=32, train=7, val=3, test=2, regions=2, cache="")
    return RoiIQA(dataset, PREPROCESS, 8, batch_size=batch_size, steps=steps, seed=4, **options)


class Notes(L.LightningModule):
    """Learns nothing and writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, ...]] = []
        self.validated: list[tuple[str, ...]] = []

    def training_step(self, batch, index):
        self.seen.append(images(batch))
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.validated.append(images(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PowerCut(Exception):
    pass


class StopAfter(L.Callback):
    """Saves a checkpoint after some optimizer steps, as ModelCheckpoint does, and pulls the plug."""

    def __init__(self, steps: int, folder) -> None:
        self.steps, self.folder = steps, folder

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.folder / "stopped.ckpt")
            raise PowerCut


def images(batch) -> tuple[str, ...]:
    """ "train-000003-0" -> "train-000003" """
    return tuple(regions[0].rpartition("-")[0] for regions in batch.ids)


def train(folder, module: Notes, module_data: RoiIQA, ckpt_path=None, **options) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, module_data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_batches_are_in_the_scorers_geometry():
    loader = data().train_dataloader()
    batch = next(iter(loader))
    assert len(loader) == 6
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.regions.crops.shape[-3:] == (3, 8, 8)
    assert batch.labels.quality.shape == batch.regions.valid.shape


def test_training_shows_every_sample_once_per_epoch():
    order = list(itertools.chain(*(images(b) for b in data(steps=7).train_dataloader())))
    assert sorted(order[:7]) == sorted(order[7:]) == [f"train-{i:06d}" for i in range(7)]
    assert order[:7] != order[7:]


def test_evaluation_goes_through_a_split_in_order():
    module_data = data(eval_batch_size=2)
    assert [images(b) for b in module_data.val_dataloader()] == [("val-000000", "val-000001"), ("val-000002",)]
    assert [images(b) for b in module_data.loader("test")] == [("test-000000", "test-000001")]


def test_the_whole_image_control():
    plain, whole = (next(iter(data().loader("test", whole=w))) for w in (False, True))
    torch.testing.assert_close(whole.images, plain.images)
    assert whole.regions.valid.tolist() == [[True]] * len(plain.images)
    assert whole.regions.masks.all()


def test_workers_change_nothing():
    alone, helped = data(steps=3).train_dataloader(), data(steps=3, workers=2).train_dataloader()
    for a, b in zip(alone, helped, strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.regions.masks, b.regions.masks)


@pytest.mark.parametrize(("accumulate", "done", "max_tokens"), [(1, 1, 0), (2, 2, 0), (2, 1, 400)])
def test_training_that_was_stopped_goes_on_where_it_was(tmp_path, accumulate, done, max_tokens):
    options = {"max_tokens": max_tokens, "row_tokens": tokens}
    whole = Notes()
    train(tmp_path, whole, data(**options), accumulate_grad_batches=accumulate, limit_val_batches=0)
    assert len(whole.seen) == 6 * accumulate

    first, second = Notes(), Notes()
    with pytest.raises(PowerCut):
        train(
            tmp_path, first, data(**options), callbacks=[StopAfter(done, tmp_path)], accumulate_grad_batches=accumulate, limit_val_batches=0
        )
    train(tmp_path, second, data(**options), tmp_path / "stopped.ckpt", accumulate_grad_batches=accumulate, limit_val_batches=0)
    assert len(first.seen) == done * accumulate
    assert first.seen + second.seen == whole.seen


def test_lightning_prepares_trains_and_validates(tmp_path, monkeypatch):
    module, module_data, prepared = Notes(), data(steps=3), []
    monkeypatch.setattr(module_data.dataset, "prepare", lambda: prepared.append(1))
    train(tmp_path, module, module_data)
    assert prepared == [1]
    assert len(module.seen) == 3
    assert sorted(itertools.chain(*module.validated)) == ["val-000000", "val-000001", "val-000002"]


def test_a_batch_goes_to_the_device_whole():
    module_data = data()
    moved = module_data.transfer_batch_to_device(next(iter(module_data.train_dataloader())), "meta", 0)
    assert moved.images.is_meta
    assert moved.regions.masks.is_meta
    assert moved.labels.importance.is_meta


def test_a_training_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        data(steps=0)


def test_micro_batches_are_numbered_over_all_ranks_and_attempts():
    """Two ranks took 3 steps of one batch each; now one rank goes on, two batches a step."""
    module_data = data()
    module_data.trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1, global_rank=1, global_step=3)
    assert [module_data.number(b) for b in range(3)] == [1, 3, 5]
    state = module_data.state_dict()
    assert state == {"step": 3, "cursor": 6, "batches_per_step": 2}
    alone = data()
    alone.trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=2, global_rank=0, global_step=3)
    alone.load_state_dict(state)
    assert [alone.number(b) for b in range(6, 9)] == [6, 7, 8]
    assert len(alone.train_dataloader()) == 12


@pytest.mark.parametrize(
    ("world", "accumulate", "remedy"), [(1, 1, "trainer.accumulate=4 would keep it"), (3, 1, "3 ranks cannot keep it")]
)
def test_another_number_of_batches_in_a_step_is_said(world, accumulate, remedy):
    module_data = data()
    module_data.trainer = SimpleNamespace(world_size=world, accumulate_grad_batches=accumulate, global_rank=0, global_step=2)
    with pytest.warns(UserWarning, match=f"made of 4 micro-batches before, and is made of {world} from here on: {remedy}"):
        module_data.load_state_dict({"step": 2, "cursor": 8, "batches_per_step": 4})
    assert module_data.number(2 * accumulate) == 8


def test_a_checkpoint_without_a_cursor_is_refused():
    module_data = data()
    module_data.trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1, global_rank=0, global_step=2)
    with pytest.raises(ValueError, match=r"checkpoint of step 2 does not say where its data stood: an older version wrote it"):
        module_data.train_dataloader()


def tokens(regions, types):
    """100 of the image, 50 a region: what a scorer would say."""
    return 100 + 50 * regions


def test_a_budget_of_tokens_makes_batches_of_as_many_images_as_fit():
    budgeted = data(max_tokens=400, row_tokens=tokens)
    budgeted.prepare_data()
    sizes = [b.regions.valid.sum(1) for b in budgeted.train_dataloader()]
    assert len(sizes) == budgeted.steps
    assert all(len(s) * tokens(s.max(), 1) <= 400 for s in sizes)
    assert max(map(len, sizes)) > 1


def test_an_image_beyond_the_budget_is_named_with_what_helps():
    with pytest.raises(
        ConfigError, match=r"may have 160 tokens, and \d of 7 images .* train-00000\d with 2 regions up to 200.*at most 1 reg"
    ):
        data(max_tokens=160, row_tokens=tokens).prepare_data()
    with pytest.raises(ConfigError, match=r"Set it to \d+ at least$"):
        data(max_tokens=120, row_tokens=tokens).prepare_data()


def test_a_budget_of_tokens_is_refused_at_once_where_none_are_read():
    scorer = SCORERS.build({"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()})
    with pytest.raises(ConfigError, match=r"trainer.max_tokens: PooledMLP has no language model, so it reads no tokens: set it to 0"):
        data(max_tokens=400, row_tokens=scorer.row_tokens)


def test_loader_processes_do_not_outlive_a_killed_training(root):
    """Each holds memory; those of an earlier attempt would be in the way of the next. A batch that comes with more than a pipe holds keeps
    PyTorch's own watchdog from ending them: they wait to hand it over, and each has the pipe's other end."""
    code = """
import multiprocessing, os, signal
from tests.datamodules.test_roi_iqa import data
loader = data(steps=50, workers=2).train_dataloader()
collate = loader.collate_fn
loader.collate_fn = lambda samples: (collate(samples), bytes(2**20))
batches = iter(loader)
next(batches)
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as killed:
        workers = [int(pid) for pid in killed.stdout.readline().split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while (alive := [pid for pid in workers if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def running(pid) -> bool:
    """Whether there is such a process that has not ended; one that nobody has waited for has."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
