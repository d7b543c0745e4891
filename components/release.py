"""The memory of a model that is done with, given back while something still holds the model."""

from __future__ import annotations

import gc

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def release(module: nn.Module) -> None:
    """Puts a module on the meta device, and returns what it took to the device it was on: for who is to load another of its size. A
    caller's variable, a bound method or a trainer would otherwise keep it alive."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    module.zero_grad(set_to_none=True)
    shards = [p.to_local() for p in module.parameters() if isinstance(p, DTensor)]
    module.to("meta")
    for shard in shards:
        shard.untyped_storage().resize_(0)  # FSDP2 keeps its own view of it, also behind a parameter on meta
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
