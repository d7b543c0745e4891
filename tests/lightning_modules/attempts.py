"""Trainings in processes of their own, which can be killed at a chosen moment. They start from a server that has imported everything."""

from __future__ import annotations

import dataclasses
import multiprocessing as mp
import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import torch

SMALL = [
    "trainer.steps=8",
    "trainer.batch_size=2",
    "trainer.val_every=4",
    "trainer.save_every=2",
    "trainer.log_every=1",
    "trainer.threads=1",
    "trainer.cache_features=false",
    "data.train=7",
    "data.val=3",
    "data.test=2",
    "data.size=64",
    "data.workers=0",
    "model.vision_encoder.image_size=64",
    "model.region_extractor.crop_size=32",
    "model.region_extractor.embed=16",
    "model.region_extractor.local_hidden=16",
    "model.llm.layers=2",
    "model.llm.width=32",
    "optim.warmup=1",
]
PATIENCE, GRACE = 300, 60  # seconds until all are taken for stuck, on a busy machine
LORA = ["model.llm.adaptation=lora", "model.llm.lora_dropout=0.2"]


def small(folder: Path, name: str, *more: str) -> list[str]:
    """Arguments of train.py: a training of seconds."""
    return ["quickstart", f"name={name}", f"outputs={folder}", f"data.cache={folder / 'cache'}", *SMALL, *more]


def attempt(
    arguments: list[str],
    world: int = 1,
    blow: tuple[str, int, int] | None = None,
    number: int = signal.SIGKILL,
    lacking: tuple[str, ...] = (),
) -> list[int]:
    """Runs train.py with `arguments` in `world` processes as torchrun would start them; the statuses they end with.

    Args:
        blow: (place, step, rank): where, in which step and to which rank the signal `number` is sent. Places are "loss" (in the step),
            "update" (before the optimizer's) and "write" (a checkpoint is written, but not yet in its place).
        lacking: labels that nothing is known of in every other micro-batch.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["train", "eval", "lightning.pytorch", "datamodules.roi_iqa", "lightning_modules.scorer", "peft"])
    port = free_port()
    processes = [context.Process(target=_train, args=(arguments, rank, world, port, blow, number, lacking)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE if process is processes[0] else GRACE)
    for process in processes:
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _train(arguments, rank, world, port, blow, number, lacking) -> None:
    outputs = next(a for a in arguments if a.startswith("outputs=")).removeprefix("outputs=")
    sys.stdout = sys.stderr = (Path(outputs) / f"rank-{rank}.log").open("a", buffering=1)
    if world > 1:
        shared = {
            "TORCHELASTIC_RUN_ID": "test",
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1",
        }
        os.environ.update({k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}.items()})
        arguments = [*arguments, f"trainer.devices={world}"]
    import eval as evaluation
    import train

    evaluation.evaluate_run = lambda *_: {}
    if blow and rank == blow[2]:
        _prepare_blow(blow[0], blow[1], number)
    if lacking:
        _forget(lacking)
    train.main(arguments)


def _forget(lacking) -> None:
    from lightning_modules.scorer import ScorerModule

    step = ScorerModule.training_step

    def unlabelled(self, batch, batch_idx):
        if self.trainer.datamodule.number(batch_idx) % 2:
            unknown = {name: torch.full_like(getattr(batch.labels, name), torch.nan) for name in lacking if name != "distortions"}
            if "distortions" in lacking:
                unknown["distortions"] = tuple(tuple(None for _ in image) for image in batch.labels.distortions)
            batch = dataclasses.replace(batch, labels=dataclasses.replace(batch.labels, **unknown))
        return step(self, batch, batch_idx)

    ScorerModule.training_step = unlabelled


def _prepare_blow(place: str, step: int, number: int) -> None:
    from lightning_modules.saving import Saving
    from lightning_modules.scorer import ScorerModule

    at = {"step": 0}

    def struck(original, now):
        def method(self, *args, **kwargs):
            if now(self):
                os.kill(os.getpid(), number)
            return original(self, *args, **kwargs)

        return method

    def noted(self, trainer):
        at["step"] = trainer.global_step

    if place == "loss":
        ScorerModule.training_step = struck(ScorerModule.training_step, lambda self: self.global_step == step)
    elif place == "update":
        ScorerModule.on_before_optimizer_step = struck(ScorerModule.on_before_optimizer_step, lambda self: self.global_step == step)
    else:
        Saving._save = struck(Saving._save, lambda self: False)
        save = Saving._save
        Saving._save = lambda self, trainer: (noted(self, trainer), save(self, trainer))[1]
        Path.replace = struck(Path.replace, lambda self: self.name.endswith("ckpt.draft") and at["step"] >= step)
