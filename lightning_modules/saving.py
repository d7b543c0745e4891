"""When a training saves: at intervals, at its end, and when it is told to go (SIGTERM, SIGUSR1)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lightning_modules.ranks import STATUS, Ranks

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptedError(SystemExit):
    """A training was told to go and has saved its state; the process ends with `STATUS`."""


class Saving(Callback):
    """Keeps one checkpoint, that of the last step that is a multiple of `every`, and in the end that of the last step.

    A step is saved before the next one begins: then all that belongs to it, its validation too, has been logged, and a resumed run
    repeats nothing and misses nothing. On SIGTERM or SIGUSR1 to any rank the step is finished, the state saved, and the training left
    with status 75; on SIGUSR1 under SLURM the job is put back into its queue.

    Args:
        path: of the checkpoint.
        every: steps between checkpoints.
    """

    def __init__(self, path: Path, every: int, ranks: Ranks) -> None:
        self.path, self.every, self.ranks = path, every, ranks
        self._told = self._saved = 0  # a signal; the last step that is saved
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listens, in place of Lightning, whose handlers act in the middle of a step."""
        self._saved = trainer.global_step
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._tell)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Saves the step before, where this batch begins another."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        told = self.ranks.most(self._told)
        if trainer.global_step > self._saved and (told or trainer.global_step % self.every == 0):
            self._save(trainer)
        self._leave_if(told, trainer.global_step)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Saves the last step."""
        self._save(trainer)
        self._leave_if(self.ranks.most(self._told), trainer.global_step)
        self._stop_listening()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leaves the signals as they were."""
        self._stop_listening()

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # what was logged before the checkpoint must not be lost with what comes after
        trainer.save_checkpoint(self.path)
        self._saved = trainer.global_step

    def _leave_if(self, told: int, step: int) -> None:
        if not told:
            return
        name = signal.Signals(told).name
        if self.ranks.first:
            print(f"\n{name}: saved at step {step} in {self.path}; the same command goes on from there", file=sys.stderr, flush=True)
            if told == signal.SIGUSR1 and (job := _slurm_job()):
                _requeue(job)
        raise PreemptedError(STATUS)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = number

    def _stop_listening(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _slurm_job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def _requeue(job: str) -> None:
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    told = f"job {job} was put back into its queue" if done.returncode == 0 else f"scontrol requeue {job} failed: {done.stderr.strip()}"
    print(told, file=sys.stderr, flush=True)
