"""Adapters merged into the weights that they were trained on, exactly, and shown to be.

Of a linear map with weight W (out, in), the merged one is W + scale B A, and with DoRA each of its rows scaled to the length that was
trained. It is computed in float32 and rounded once. A quantised W is unpacked and stays unpacked: packing the sum again, as `peft` would,
rounds away more than most adapters have learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

_ADAPTER = "default"  # peft's name for the only one


class MergeError(ValueError):
    """Adapters cannot be merged, or what came out is not what was trained."""


@dataclass(frozen=True)
class Agreement:
    """How far the logits of a merged model are from those of the unmerged one.

    Attributes:
        error: root mean square of the difference, over the standard deviation of the unmerged model's logits.
        effect: the same of the difference that the adapters make.
        share: of what the adapters do to the logits that the merged model does too: the projection of its difference from the model without
            them on theirs. 1 for a merge that is right but for rounding, which points elsewhere; s where the adapters were scaled by s.
        answers: largest difference of a score. texts: how many generated answers differ.
    """

    error: float
    effect: float
    share: float
    answers: float
    texts: int


def adapters(model: nn.Module) -> dict[str, Any]:
    """Full name -> linear map with a LoRA adapter."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model as it was before adapters were trained, for as long as it lasts."""
    layers = adapters(model).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge(model: nn.Module, dtype: torch.dtype) -> int:
    """Replaces every map with an adapter by a plain one in `dtype`, and what is quantised beside them by what it stands for; returns how
    many had an adapter.

    Raises:
        MergeError: there are none, or a weight is not finite or has not changed by it.
    """
    layers = adapters(model)
    if not layers:
        raise MergeError("there are no adapters to merge: the language model was trained in full, or not at all (model.llm.adaptation)")
    idle, lost = [], []
    for name, layer in tqdm(layers.items(), desc="merging", unit="map"):
        before, after = weights(layer)
        if not torch.isfinite(after).all():
            raise MergeError(f"{name}: its adapter is not finite. Take an earlier checkpoint")
        if torch.equal(before, after):
            idle.append(name)
        elif torch.equal(before.to(dtype), after.to(dtype)):
            lost.append(name)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _plain(layer.base_layer, after.to(dtype)))
    if idle:
        raise MergeError(
            f"{len(idle)} of {len(layers)} adapters change nothing ({_listed(idle)}): they were not trained. Nothing was written"
        )
    if lost:
        raise MergeError(
            f"{len(lost)} of {len(layers)} weights do not change in {_told(dtype)}, which rounds their adapters away ({_listed(lost)}): "
            "write in --dtype float32. Nothing was written"
        )
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and _is_packed(module):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _plain(module, _unpacked(module).to(dtype)))
    return len(layers)


@torch.no_grad()
def weights(layer: Any) -> tuple[Tensor, Tensor]:
    """The weight of a map without and with its adapter, float32, as the map stores it ((out, in), or (in, out) of a Conv1D)."""
    base = _unpacked(layer.base_layer).float()
    turned = layer.fan_in_fan_out
    delta = layer.lora_B[_ADAPTER].weight.float() @ layer.lora_A[_ADAPTER].weight.float() * layer.scaling[_ADAPTER]  # (out, in)
    merged = (base.T if turned else base) + delta
    if _ADAPTER in layer.lora_magnitude_vector:
        length = layer.lora_magnitude_vector[_ADAPTER].weight.float()  # (out,)
        merged = merged * (length / merged.norm(dim=1))[:, None]
    return base, merged.T.contiguous() if turned else merged


def agreement(unmerged: tuple[Tensor, list[Any]], plain: Tensor, merged: tuple[Tensor, list[Any]]) -> Agreement:
    """Compares logits (N, V) and answers of the unmerged and the merged model; `plain` are the logits without adapters."""
    trained, without = unmerged[0].double(), plain.double()
    error, effect = (float((x.double() - trained).square().mean().sqrt() / trained.std()) for x in (merged[0], plain))
    done = trained - without
    share = float(((merged[0].double() - without) * done).sum() / done.square().sum())
    pairs = list(zip(unmerged[1], merged[1], strict=True))
    values = [abs(a.value - b.value) for a, b in pairs if a.value is not None and b.value is not None]
    return Agreement(error, effect, share, max(values, default=0.0), sum(a.text != b.text for a, b in pairs))


def _is_packed(linear: nn.Module) -> bool:
    weight: Any = linear.weight
    return hasattr(weight, "quant_state") or weight.dtype == torch.int8


def _unpacked(linear: nn.Module) -> Tensor:
    """A map's weight as it stands, or what its packed one stands for."""
    weight: Any = linear.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    if weight.dtype == torch.int8:
        from bitsandbytes.functional import int8_vectorwise_dequant

        layer: Any = linear
        return int8_vectorwise_dequant(weight.data, layer.state.SCB if weight.SCB is None else weight.SCB)  # it moves at the first use
    return weight.data


def _plain(linear: nn.Module, weight: Tensor) -> nn.Module:
    """`linear` unquantised, with another weight."""
    bias: Any = linear.bias
    if type(linear).__name__ != "Conv1D":
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
        linear = plain
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data.to(weight.dtype), requires_grad=False)
    return linear


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _told(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
