"""The bar of a training: rate and time left, also where it goes on."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Lightning's bar, which knows no total when a training goes on within an epoch, and would count what was done before as done now."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts where the training stands."""
        super().on_train_start(trainer, pl_module)
        bar, done = self.train_progress_bar, trainer.global_step * trainer.accumulate_grad_batches
        bar.reset(trainer.num_training_batches)
        bar.initial = bar.n = bar.last_print_n = done
        bar.set_description(f"Epoch {trainer.current_epoch}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the logger's version, which is the end of a folder's name here."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
