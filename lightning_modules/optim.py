"""Optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(parts: Mapping[str, nn.Module], lr: float, lr_scale: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """One group per part (two where biases and norms, which do not decay, stand beside weights). Frozen parameters are left out.

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
            (name, [p for p in trainable if p.ndim > 1], weight_decay),
            (f"{name} (no decay)", [p for p in trainable if p.ndim <= 1], 0.0),
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


def adamw(groups: list[dict[str, Any]], betas: tuple[float, float], warmup: int, steps: int, final: float) -> tuple[Optimizer, LambdaLR]:
    """The optimizer and its per-step schedule."""
    optimizer = AdamW(groups, betas=betas)
    return optimizer, LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, steps, final))
