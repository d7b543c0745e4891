"""Trains any scorer: `loss` down, checkpoints of what is trainable."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from components.batch import Batch
from components.foundation import Foundations, check_foundations
from components.scorers.base import Scorer
from lightning_modules.optim import Kind, make_optimizer, parameter_groups, repage, scale_gradients
from lightning_modules.strategy import shard

PREFIX = "scorer."  # of the scorer's tensors in a checkpoint
_WEIGHT = "images"  # beside the sums of losses: of how many


class ScorerModule(L.LightningModule):
    """Conducts the training of a scorer.

    Args:
        scorer: built, not yet loaded: its trained weights are read once, in `configure_model`.
        steps: optimizer steps of the whole training, for the schedule.
        seed: with the micro-batch's number, of all that a training step draws (dropout). Trained on a `datamodules.roi_iqa.RoiIQA`,
            which numbers them.
    """

    strict_loading = False  # frozen weights are not in the checkpoint; `on_load_checkpoint` checks the rest

    def __init__(
        self,
        scorer: Scorer,
        *,
        steps: int,
        seed: int = 0,
        lr: float = 1e-3,
        lr_scale: dict[str, float] | None = None,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup: int = 50,
        final: float = 0.02,
        optimizer: Kind = "adamw",
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.seed, self.steps = seed, steps
        self.lr, self.lr_scale, self.weight_decay = lr, lr_scale or {}, weight_decay
        self.betas, self.warmup, self.final, self.optimizer = betas, warmup, final, optimizer
        self._loaded = self._sharded = False
        self._validated: dict[str, Any] = {}
        self._sums: dict[str, Any] = {}  # over the answers of the step that is being taken: of each loss, and last their number
        self._complete = False  # whether the step's batches are all there
        self._unit = 1.0  # of answers, by which a batch's loss is told to the backward pass
        self.losses: dict[str, Tensor] = {}  # of the last training batch, detached
        self._foundations: Foundations = {}
        self.regions = 0  # of an image of the last training batch, at most

    def configure_model(self) -> None:
        if not self._loaded:
            self.scorer.load_pretrained()
            self._foundations = self.scorer.foundations()
            self._loaded = True
        if self.device_mesh is not None and not self._sharded:
            shard(self.scorer, self.device_mesh["data_parallel"], self.trainer.precision)
            self._sharded = True

    def on_fit_start(self) -> None:
        self.scorer.train()  # Lightning keeps the mode it finds, and a frozen part belongs in eval mode

    def on_train_start(self) -> None:
        repage(self.trainer.optimizers[0])
        self._unit = self._most_answers() if self._batches > 1 and scaled(self.trainer) else 1.0
        self._sums = {}

    def _most_answers(self) -> float:
        """At least as many as a batch can have, so that the sum over its answers is no larger for the loss scaler than a mean, whose
        gradients half precision can hold. A power of two: dividing by it rounds nothing."""
        regions = self.trainer.datamodule.most_regions()  # type: ignore[attr-defined]
        return float(2 ** math.ceil(math.log2(max(1, regions * len(self.scorer.tasks)))))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # resuming draws what not stopping would have, and any number of ranks what one rank would have
        number = self.trainer.datamodule.number(batch_idx)  # type: ignore[attr-defined]
        torch.manual_seed(hash((self.seed, number)) % 2**63)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """What is minimised, as `Scorer.loss` says it."""
        return self.scorer.loss(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.regions = batch.regions.valid.shape[1]
        losses = self.objective(batch)
        self.losses = {k: v.detach() for k, v in losses.items()}  # for who watches
        weight = self._weight(self.losses)
        for name, value in {**self.losses, "answers": torch.ones_like(weight)}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
        self._complete = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        return losses["loss"] * (weight / self._unit)

    def _weight(self, losses: dict[str, Tensor]) -> Tensor:
        """The answers of a micro-batch, where a step is made of several: its mean over all answers is not the mean of their means."""
        return torch.ones_like(losses["loss"]) if self._batches == 1 else losses.get("answers", torch.ones_like(losses["loss"]))

    @property
    def _batches(self) -> int:
        """Of a step, on all ranks."""
        return self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_after_backward(self) -> None:
        """At the end of a step, turns sums over its answers into means: the gradients, whose sum Lightning has divided by the number of
        batches, and the losses, which are logged. Nothing here waits for the device."""
        if not self._complete:
            return
        sums = torch.stack(list(self._sums.values()))
        if self.trainer.world_size > 1:
            dist.all_reduce(sums)  # Lightning's own waits
        means = dict(zip(self._sums, sums / sums[-1].clamp_min(1), strict=True))
        if self._batches > 1:
            scale_gradients(self.parameters(), self._unit * self._batches / sums[-1].clamp_min(1))
        self.log_dict({f"train/{k}": v for k, v in means.items() if k != "answers"}, on_step=True, batch_size=1)
        self.log("loss", means["loss"], on_step=True, prog_bar=True, logger=False, batch_size=1)
        self._sums = {}

    def on_validation_epoch_start(self) -> None:
        self._validated = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        weight = len(batch.images) if self.trainer.datamodule.counts(batch_idx) else 0  # type: ignore[attr-defined]
        for name, value in {**self.objective(batch), _WEIGHT: torch.ones((), device=self.device)}.items():
            self._validated[name] = self._validated.get(name, 0.0) + weight * value.detach().double()

    def on_validation_epoch_end(self) -> None:
        """The mean over the images of all ranks; Lightning's own would round the number of images of a rank."""
        sums = self.trainer.strategy.reduce(torch.stack(list(self._validated.values())), reduce_op="sum")
        means = dict(zip(self._validated, (sums / sums[-1]).float(), strict=True))
        self.log_dict(
            {f"val/{name}": value for name, value in means.items() if name not in (_WEIGHT, "answers")}, sync_dist=True
        )  # equal on all

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = parameter_groups(self.scorer.parts(), self.lr, self.lr_scale, self.weight_decay, self.optimizer)
        optimizer, schedule = make_optimizer(groups, self.betas, self.warmup, self.steps, self.final, self.optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        keep = {PREFIX + k for k in self.scorer.trained_keys()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in keep}
        checkpoint["foundations"] = self._foundations

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.scorer.check_trained({k.removeprefix(PREFIX): v for k, v in checkpoint["state_dict"].items()})
        check_foundations(checkpoint.get("foundations", {}), self._foundations, "this checkpoint")
        _recount(checkpoint, self.trainer.accumulate_grad_batches, self.trainer.val_check_interval)


def scaled(trainer: L.Trainer) -> bool:
    """Whether losses go through a loss scaler (precision 16-mixed)."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _recount(checkpoint: dict[str, Any], accumulate: int, validate: float | None) -> None:
    """Lightning counts batches, and takes a step at multiples of `accumulate`: makes its counts those of the steps taken, all complete.

    Args:
        validate: batches between validations. Where one is due, Lightning passes over the batch once more and counts the step then.
    """
    steps = checkpoint["global_step"]
    loop = checkpoint["loops"]["fit_loop"]
    for counted in (loop["epoch_loop.batch_progress"]["total"], loop["epoch_loop.batch_progress"]["current"]):
        counted.update(dict.fromkeys(counted, steps * accumulate))
    due = isinstance(validate, int) and steps * accumulate % validate == 0
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - due
