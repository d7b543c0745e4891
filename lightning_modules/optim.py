"""Optimizer and schedule."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from components.notices import leave_out_notices

Kind = Literal["adamw", "adam", "adamw_8bit", "paged_adamw_8bit"]
PLAIN: tuple[Kind, ...] = ("adamw", "adam")  # PyTorch's own, with both moments in the parameters' precision


def parameter_groups(
    parts: Mapping[str, nn.Module], lr: float, lr_scale: Mapping[str, float], weight_decay: float, kind: Kind = "adamw"
) -> list[dict[str, Any]]:
    """One group per part (two where biases and norms, which do not decay, stand beside weights). Frozen parameters are left out.

    Args:
        kind: with "adam" biases and norms decay, too, as they do in the published trainings that use it.

    Raises:
        ValueError: `lr_scale` names something that is not a part.
    """
    for name in lr_scale:
        if name not in parts:
            raise ValueError(f"optim.lr_scale names '{name}', but the parts are {', '.join(parts)}")
    groups = []
    for name, part in parts.items():
        trainable = [p for p in part.parameters() if p.requires_grad]
        for label, params, decay in (
            (name, [p for p in trainable if p.ndim > 1 or kind == "adam"], weight_decay),
            (f"{name} (no decay)", [p for p in trainable if p.ndim <= 1 and kind != "adam"], 0.0),
        ):
            if params:
                groups.append({"params": params, "lr": lr * lr_scale.get(name, 1.0), "weight_decay": decay, "name": label})
    return groups


def warmup_cosine(step: int, warmup: int, steps: int, final: float) -> float:
    """Factor on the learning rate: linear from 1 / warmup to 1, then half a cosine down to `final` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


_LEAST_8BIT = 4096  # elements; smaller tensors keep their moments in single precision
_LEAST_PAGED = 100_000  # elements; smaller tensors are not paged
_BLOCK = 256  # values that share a scale
_MAPS = 2 * 256 * 4  # bytes of the two tables of what a byte means, once for all tensors


def check_optimizer(kind: Kind, device: torch.device) -> None:
    """Whether `kind` can run on `device`, found out before any weight is read.

    Raises:
        ValueError: bitsandbytes is not installed, or nothing can be paged there.
    """
    if kind not in PLAIN and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"optim.optimizer {kind} is that of bitsandbytes, which is not installed: pip install -e '.[qlora]', or use adamw")
    if kind == "paged_adamw_8bit" and device.type == "cpu":
        raise ValueError(
            "optim.optimizer paged_adamw_8bit moves its state between a GPU and the CPU, and training runs on the CPU: "
            "use adamw_8bit, which has the same arithmetic, or adamw"
        )


def state_bytes(kind: Kind, parameters: Mapping[str, Tensor]) -> tuple[int, int]:
    """Bytes of the two moments of trainable `parameters`: (all, as a checkpoint holds them; on the GPU, beside what is paged)."""
    if kind in PLAIN:
        plain = sum(2 * p.numel() * p.element_size() for p in parameters.values())
        return plain, plain
    sizes = [p.numel() for p in parameters.values()]
    small = sum(8 * n for n in sizes if n < _LEAST_8BIT)
    large = [n for n in sizes if n >= _LEAST_8BIT]
    scales = sum(8 * -(-n // _BLOCK) for n in large) + (_MAPS if large else 0)
    everything = small + 2 * sum(large) + scales
    paged = sum(2 * n for n in large if n >= _LEAST_PAGED) if kind == "paged_adamw_8bit" else 0
    return everything, everything - paged


def make_optimizer(
    groups: list[dict[str, Any]], betas: tuple[float, float], warmup: int, steps: int, final: float, kind: Kind = "adamw"
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer and its per-step schedule.

    Args:
        kind: "adamw" takes decay from the weights, "adam" adds it to the gradients (L2), where the second moment divides it; with "8bit",
            both moments are kept in 8 bits, in blocks of 256 values with a scale each (arXiv 2110.02861); "paged" lets the GPU push them
            to the CPU's memory while it needs the room. Biases, norms and other small tensors keep single precision.
    """
    cls = {"adamw": AdamW, "adam": Adam}.get(kind) or _bitsandbytes(kind)
    optimizer: Optimizer = cls(groups, betas=betas)
    return optimizer, LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, steps, final))


def scale_gradients(parameters: Iterable[Tensor], factor: Tensor) -> None:
    """Multiplies every gradient by `factor` (), all at once and without reading it."""
    found = [p.grad for p in parameters if p.grad is not None]
    if found:
        torch._foreach_mul_([g.to_local() if isinstance(g, DTensor) else g for g in found], factor)


def repage(optimizer: Optimizer) -> None:
    """Pages again what a checkpoint has put on the GPU for good: bitsandbytes reads moments into plain tensors, so that a training that
    goes on would need more memory than the one that was begun. Does nothing to an optimizer that pages nothing."""
    paged: Any = optimizer
    if not getattr(paged, "is_paged", False):
        return
    for parameter, state in paged.state.items():
        for name in ("state1", "state2"):
            moment = state.get(name)
            if moment is not None and parameter.numel() >= _LEAST_PAGED and not getattr(moment, "is_paged", False):
                state[name] = paged.get_state_buffer(parameter, dtype=moment.dtype)
                state[name].copy_(moment)  # from the GPU into memory that both see; it waits


def _bitsandbytes(kind: Kind) -> Any:
    leave_out_notices()
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit  # an extra, which imports slowly

    return PagedAdamW8bit if kind == "paged_adamw_8bit" else AdamW8bit
