"""How ranks share a training: each with the whole model (DDP), or each with a shard of every parameter (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from components import checkpoints
from components.batch import Batch
from components.scorers.base import Scorer
from lightning_modules.sharing import Sharing


def strategy(sharing: Sharing, world: int) -> Strategy | str:
    """What Lightning is to use.

    "auto" is DDP where there are several ranks. DDP looks for unused parameters in every step: a batch whose images have no region, or
    no region with a known distortion, leaves some without a gradient, and the ranks would otherwise wait for it forever. Gradients are
    views of what the ranks exchange, which would else be a second copy of them all.
    """
    if sharing == "fsdp":
        return Sharded(world)
    return DDPStrategy(find_unused_parameters=True, gradient_as_bucket_view=True) if world > 1 or sharing == "ddp" else "auto"


class AtomicIO(CheckpointIO):
    """Checkpoints that appear when they are complete, and are read whatever strategy wrote them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See `components.checkpoints`."""
        checkpoints.write_file(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Whole tensors on the CPU."""
        return checkpoints.read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing keeps more than one."""


class Sharded(ModelParallelStrategy):
    """FSDP2 over all ranks, with checkpoints to which each rank adds its rows."""

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning's own strategy fills model and optimizer while it reads; this one hands them over."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards; which of them are kept is the module's to say."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Copies into this rank's shards."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's shards, in the optimizer's own order of parameters, which no number of ranks changes."""
        return dict(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """As the strategies that do not shard."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """See `components.checkpoints`."""
        checkpoints.write_shards(Path(filepath), checkpoint)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What any strategy wrote, in the shards of this one."""
        parameters = self._parameters()

        def place(name: str, meta: Any) -> Tensor:
            like = _owner(name, parameters)
            return torch.zeros_like(like, dtype=meta.properties.dtype) if like is not None else checkpoints.whole(name, meta)

        found = checkpoints.read(Path(checkpoint_path), place)
        return {key: _sharded_like(inner, key, parameters) for key, inner in found.items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Statistics (batch norm) are those of rank 0 on every rank, as in DDP."""
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            dist.broadcast(buffer, 0)

    def _parameters(self) -> dict[str, Tensor]:
        """Name in a checkpoint, without the optimizer's last key -> parameter."""
        assert self.lightning_module is not None
        named: dict[str, Tensor] = {f"state_dict.{name}": p for name, p in self.lightning_module.named_parameters()}
        for number, optimizer in enumerate(self.optimizers):
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            named |= {f"optimizer_states.{number}.state.{place}": p for place, p in enumerate(trained)}
        return named


def _owner(name: str, parameters: Mapping[str, Tensor]) -> Tensor | None:
    return parameters.get(name, parameters.get(name.rpartition(".")[0]))


def _sharded_like(value: Any, name: str, parameters: Mapping[str, Tensor]) -> Any:
    """`value` with each whole tensor that belongs to a sharded parameter, and has its shape, sharded like it."""
    if isinstance(value, Mapping):
        return {key: _sharded_like(inner, f"{name}.{key}", parameters) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sharded_like(inner, f"{name}.{place}", parameters) for place, inner in enumerate(value)]
    owner = _owner(name, parameters) if isinstance(value, Tensor) and not isinstance(value, DTensor) else None
    if isinstance(owner, DTensor) and value.shape == owner.shape:
        return distribute_tensor(value.to(owner.device), owner.device_mesh, owner.placements, src_data_rank=None)
    return value


def shard(scorer: Scorer, mesh: DeviceMesh, precision: str) -> None:
    """Divides a scorer's parameters among the ranks of `mesh`: each module of `scorer.blocks` is gathered when it is at work, the rest,
    which is used outside of any module's forward, for the whole of `loss`.

    Args:
        precision: as `trainer.precision`; with bf16-mixed, which runs under autocast, blocks are gathered in the precision that autocast
            would cast them to. Those with statistics of their own (batch norm), and the rest, are gathered in single precision.
    """
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for parameter in scorer.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP refuses channels_last
    blocks = [module for module in scorer.modules() if isinstance(module, scorer.blocks)]
    inside = {id(m) for block in blocks for m in block.modules()}
    for block in reversed(blocks):  # inner ones first
        cast = precision == "bf16-mixed" and not any(b.is_floating_point() for b in block.buffers())
        fully_shard(block, mesh=mesh, mp_policy=half if cast else MixedPrecisionPolicy())
    fully_shard(scorer, mesh=mesh)
    outside = [m for m in scorer.modules() if id(m) not in inside]
    scorer.loss = _anchored(scorer, outside)  # type: ignore[method-assign]
    register_fsdp_forward_method(scorer, "loss")


def _anchored(scorer: Scorer, outside: list[nn.Module]) -> Any:
    """The scorer's loss, in which every parameter outside the blocks takes part: ranks reduce the gradients of these together, so none
    may be without one because of what its images lack."""
    loss = scorer.loss

    def anchored(batch: Batch) -> dict[str, Tensor]:
        losses = loss(batch)
        if not torch.is_grad_enabled():
            return losses
        nothing = [p.sum() * 0 for m in outside for p in m._parameters.values() if p is not None and p.requires_grad]
        return {**losses, "loss": losses["loss"] + torch.stack([x.float() for x in nothing]).sum()} if nothing else losses

    return anchored
