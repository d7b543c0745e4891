"""What watches a training: losses and gradients that are no numbers, parts that learn nothing, the memory that it took.

All of it looks at tensors where they are. A step costs one reading from the device, of one number; clipping needs the same norms.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from components.batch import Batch
from lightning_modules.plan import GIB, Plan
from lightning_modules.resident import resident_peak
from lightning_modules.runs import NonFiniteError, Run, write_json
from lightning_modules.scorer import ScorerModule, scaled

NONFINITE = "nonfinite.json"
_FIRST = 3  # optimizer steps; LoRA's first factor gets its first gradient at the second
_NAMED = 3  # parameters named of a part


class StopAtNonFinite(Callback):
    """Stops before an update with a loss or a gradient that is no number, and writes down what was trained on.

    The weights are then those of the step before, and the last checkpoint is untouched. Under DDP and FSDP all ranks stop at the same
    step, each with a file of its own. With a loss scaler (precision 16-mixed), which
    meets infinite gradients every day, only the loss is watched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids: list[Any] = []  # not the batches: these would hold their memory until the update
        self._losses: list[Mapping[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._ids.append(batch.ids)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._losses.append(_conducted(pl_module).losses)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        norms = (
            {} if scaled(trainer) else {name: _norm(part) for name, part in _conducted(pl_module).scorer.parts().items() if _trained(part)}
        )
        watched = torch.stack([*(x["loss"].detach().float() for x in self._losses), *norms.values()])
        bad = (~torch.isfinite(watched).all()).float()
        if dist.is_initialized():
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        if bad.item():
            self._stop(trainer, pl_module, norms)
        self._ids, self._losses = [], []

    def _stop(self, trainer: Trainer, pl_module: LightningModule, norms: Mapping[str, Tensor]) -> None:
        losses = [{k: _number(v) for k, v in x.items()} for x in self._losses]
        what = "loss" if any(isinstance(x["loss"], str) for x in losses) else "gradient"
        found = {
            "step": trainer.global_step,
            "what": what,
            "batches": [{"ids": ids, "losses": x} for ids, x in zip(self._ids, losses, strict=True)],
            "gradient_norms": {name: _number(norm) for name, norm in norms.items()},
            "parameters": [
                n
                for n, p in _conducted(pl_module).scorer.named_parameters()
                if p.grad is not None and not torch.isfinite(_local(p.grad)).all()
            ],
        }
        rank = f".rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"{Path(NONFINITE).stem}{rank}.json"
        write_json(path, found)
        raise NonFiniteError(_told(found, path))


class WarnWithoutGradient(Callback):
    """After the first steps, names each trainable part in which parameters have got no gradient but zero: they learn nothing. What a part
    itself declares `idle` is not named."""

    def __init__(self, steps: int = _FIRST) -> None:
        self.steps = steps
        self._seen: dict[str, Tensor] = {}
        self._done = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self._done >= self.steps:
            return
        with torch.no_grad():
            for name, p in _conducted(pl_module).scorer.named_parameters():
                if p.requires_grad:
                    moved = _local(p).new_zeros(()) if p.grad is None else _local(p.grad).detach().ne(0).any().float()
                    self._seen[name] = torch.maximum(self._seen.get(name, moved), moved)
        self._done += 1
        if self._done == self.steps:
            self._warn(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if 0 < self._done < self.steps:
            self._warn(trainer, pl_module)

    def _warn(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._seen:
            return
        moved = torch.stack(list(self._seen.values()))
        if dist.is_initialized():  # a shard may be still where another is not
            dist.all_reduce(moved, dist.ReduceOp.MAX)
        idle = {name for name, value in zip(self._seen, moved.tolist(), strict=True) if not value}
        self._seen = {}
        if idle and trainer.is_global_zero:
            whose = {p: name for name, p in _conducted(pl_module).scorer.named_parameters()}
            for name, part in _conducted(pl_module).scorer.parts().items():
                known = getattr(part, "idle", ())
                inside = [whose[p] for n, p in part.named_parameters() if p.requires_grad and not n.startswith(known)]
                if still := [n for n in inside if n in idle]:
                    warnings.warn(_idle(name, still, len(inside), self._done), stacklevel=2)


class RecordMemory(Callback):
    """Notes the peak of the training's memory in run.json and prints it: on a GPU that of its allocator, beside what was planned where the
    plan counts all of it; on a CPU that of the whole process, which no plan predicts.

    Args:
        planned: makes the plan; asked at the end, and on a GPU only, because that takes some seconds.
    """

    def __init__(self, run: Run, planned: Callable[[], Plan]) -> None:
        self.run, self.planned = run, planned

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = peak(pl_module.device)
        if dist.is_initialized():
            values = torch.tensor(list(found.values()), device=pl_module.device)
            dist.all_reduce(values, dist.ReduceOp.MAX)
            found = dict(zip(found, values.tolist(), strict=True))
        if trainer.is_global_zero and self.run.record.exists():
            if pl_module.device.type == "cuda":
                plan = self.planned()
                if not plan.uncounted:
                    found |= {"planned_allocated_gib": plan.training.tensors / GIB, "planned_total_gib": plan.training.total / GIB}
            note(self.run, {"memory": {name: round(value, 3) for name, value in found.items()}})
            told = ", ".join(f"{name.removesuffix('_gib').replace('_', ' ')} {value:.2f} GiB" for name, value in found.items())
            print(f"peak memory: {told}")


def peak(device: torch.device) -> dict[str, float]:
    """GiB at the worst moment so far: of the allocator on a GPU; on a CPU of the process since it began, libraries and data included."""
    if device.type == "cuda":
        return {
            "gpu_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
            "gpu_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
        }
    return {"process_resident_gib": resident_peak() / GIB}


def note(run: Run, more: Mapping[str, Any]) -> None:
    """Adds keys to run.json."""
    write_json(run.record, {**json.loads(run.record.read_text()), **more})


def _conducted(module: LightningModule) -> ScorerModule:
    assert isinstance(module, ScorerModule)
    return module


def _norm(part: nn.Module) -> Tensor:
    """Euclidean norm of a part's gradients, () float32; of this rank's shard where they are sharded."""
    found = [_local(p.grad) for p in part.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(found).float() if found else next(part.parameters()).new_zeros((), dtype=torch.float32)


def _local(x: Tensor) -> Tensor:
    """The shard of a sharded tensor that is here."""
    return x.to_local() if hasattr(x, "to_local") else x


def _trained(part: nn.Module) -> bool:
    return any(p.requires_grad for p in part.parameters())


def _number(x: Tensor) -> float | str:
    """JSON has no NaN."""
    value = float(x.detach())
    return value if math.isfinite(value) else str(value)


def _told(found: Mapping[str, Any], path: Path) -> str:
    losses = "; ".join(", ".join(f"{k} {v}" for k, v in batch["losses"].items()) for batch in found["batches"])
    norms = ", ".join(f"{name} {norm}" for name, norm in found["gradient_norms"].items())
    regions = ", ".join(i for batch in found["batches"] for image in batch["ids"] for i in image)
    return (
        f"the {found['what']} is not finite at step {found['step']} (losses: {losses}; gradient norms: {norms or 'not looked at'}). "
        f"Regions of this step: {regions} (written to {path}). "
        "Lower optim.lr, raise optim.warmup, or train in precision 32-true or bf16-mixed; the last checkpoint is kept"
    )


def _idle(part: str, still: list[str], of: int, steps: int) -> str:
    named = ", ".join(still[:_NAMED]) + (f" and {len(still) - _NAMED} more" if len(still) > _NAMED else "")
    whole = "it learns nothing" if len(still) == of else "these learn nothing"
    return f"{part}: {len(still)} of {of} trainable parameters got no gradient in the first {steps} steps ({named}): {whole}"
