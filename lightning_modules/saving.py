"""When a training saves: at intervals, at its end, and when it is told to go (SIGTERM, SIGUSR1)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lightning_modules.ranks import Ranks

STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptedError(SystemExit):
    """A training was told to go and has saved its state; it exits with `STATUS`."""

    def __init__(self, message: str) -> None:
        super().__init__(STATUS)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Saving(Callback):
    """Keeps one checkpoint, that of the last step that is a multiple of `every`, and the last step's.

    A step that ends in a validation is saved after it, so that a resumed run need not repeat it. On SIGTERM or SIGUSR1 to any rank the
    step is finished, the state saved, and the training left with status 75; on SIGUSR1 under SLURM the job is put back into its queue.

    Args:
        path: of the checkpoint.
        every, validate: steps between checkpoints, and between validations.
    """

    def __init__(self, path: Path, every: int, validate: int, ranks: Ranks) -> None:
        self.path, self.every, self.validate, self.ranks = path, every, validate, ranks
        self._told = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listens, in place of Lightning, whose handlers act in the middle of a step."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._tell)

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Saves where a step has ended and no validation follows."""
        step = trainer.global_step
        ended = (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if ended and not self._validates(step):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Saves where the validation belongs to a step that would have been saved."""
        self._save_if_due(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Saves the last step."""
        self._save(trainer)
        self._stop_listening()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leaves the signals as they were."""
        self._stop_listening()

    def _validates(self, step: int) -> bool:
        return step % self.validate == 0

    def _save_if_due(self, trainer: Trainer) -> None:
        told = self.ranks.most(self._told)
        if told or trainer.global_step % self.every == 0:
            self._save(trainer)
        if told:
            raise PreemptedError(self._farewell(trainer.global_step, signal.Signals(told)))

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # what was logged before the checkpoint must not be lost with what comes after
        trainer.save_checkpoint(self.path)

    def _farewell(self, step: int, told: signal.Signals) -> str:
        line = f"{told.name}: saved at step {step} in {self.path}; the same command goes on from there"
        if told == signal.SIGUSR1 and self.ranks.first and (job := _slurm_job()):
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            line += (
                f". Job {job} was put back into its queue" if done.returncode == 0 else f". scontrol requeue failed: {done.stderr.strip()}"
            )
        return line

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told = number

    def _stop_listening(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _slurm_job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
