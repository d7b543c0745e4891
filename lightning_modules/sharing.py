"""Which trainings several GPUs can share by dividing every parameter among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from components.registry import ConfigError
from lightning_modules.optim import PLAIN

Sharing = Literal["auto", "ddp", "fsdp"]


def check_sharing(sharing: Sharing, precision: str, model: Mapping[str, Any], optimizer: str = "adamw") -> None:
    """Refuses what cannot be sharded, before weights are read.

    Raises:
        ConfigError: quantised weights, float16 or an 8-bit optimizer with fsdp.
    """
    if sharing != "fsdp":
        return
    if precision == "16-mixed":
        raise ConfigError(
            "trainer.strategy fsdp with precision 16-mixed: its scaled gradients would have to be inspected over all ranks. "
            "Use bf16-mixed, which needs no scaling, or trainer.strategy=ddp"
        )
    if optimizer not in PLAIN:
        raise ConfigError(
            f"trainer.strategy fsdp with optim.optimizer {optimizer}: its 8-bit state belongs to whole tensors. "
            "Use adamw, whose state is divided among the ranks, or trainer.strategy=ddp"
        )
    for name, node in model.items():
        if isinstance(node, Mapping) and (node.get("adaptation") == "qlora" or node.get("quantization", "none") != "none"):
            raise ConfigError(
                f"trainer.strategy fsdp with model.{name} in 4 or 8 bits: sharding would separate packed weights from the scales that "
                "unpack them. Use trainer.strategy=ddp, or adaptation lora or full with quantization none"
            )
