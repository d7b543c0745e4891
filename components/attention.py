"""Packed rows for the attention of `transformers`: "<name>_by_branch" is attention "<name>" that knows which branch a column is of.

A model of `transformers` makes its masks by asking a registered function for the mask of a rule (causal, within a window, within a chunk,
...), and hands what it gets to a registered attention, layer by layer. Both are registered here. So each layer keeps its own rule, and
what the rule is need not be known. Outside of `reading` both are what they are under the plain name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, eager_mask, flex_attention_mask, sdpa_mask

from components.rows import Pieces, Rows, Rule

Attention = Literal["sdpa", "eager", "flex"]
PLAIN: dict[Attention, str] = {"sdpa": "sdpa", "eager": "eager", "flex": "flex_attention"}
BY_BRANCH: dict[Attention, str] = {key: f"{name}_by_branch" for key, name in PLAIN.items()}
Mask = Tensor | Pieces | BlockMask


@dataclass
class Reading:
    """What a forward pass made of packed rows.

    Attributes:
        masks: that were asked for. used: attention modules, each with the mask it was given.
    """

    rows: Rows
    masks: list[Mask] = field(default_factory=list)
    used: list[tuple[nn.Module, Any]] = field(default_factory=list)


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(rows: Rows | None) -> Iterator[Reading | None]:
    """For as long as it lasts, models built with attention by branch read these rows; None for ordinary ones."""
    token = _reading.set(None if rows is None else Reading(rows))
    try:
        yield _reading.get()
    finally:
        _reading.reset(token)


def _sdpa_mask(rows: Rows, rule: Rule, *, dtype: torch.dtype, device: torch.device, local_size: int | None = None, **_: Any) -> Pieces:
    kind = rows.branch.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    plain: Any = causal_mask_function
    reach = local_size or (torch.inf if rule is plain else 0)
    return rows.pieces(rule, dtype, reach).to(device)


def _eager_mask(rows: Rows, rule: Rule, *, dtype: torch.dtype, device: torch.device, **_: Any) -> Tensor:
    sees = rows.table(rule).to(device)
    return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)


def _flex_mask(rows: Rows, rule: Rule, *, device: torch.device, **_: Any) -> BlockMask:
    return rows.blocks(rule).to(device)


def _sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
    if not isinstance(attention_mask, Pieces):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    keys, values = key.split(attention_mask.stretches, 2), value.split(attention_mask.stretches, 2)
    queries = query.split([piece.length for piece in attention_mask.pieces], 2)
    out = []
    for q, piece in zip(queries, attention_mask.pieces, strict=True):
        k, v = _joined(key, keys, piece.sources), _joined(value, values, piece.sources)
        out.append(sdpa_attention_forward(module, q, k, v, piece.mask, **options)[0])
    return torch.cat(out, 1), None


def _joined(whole: Tensor, stretches: Sequence[Tensor], sources: Sequence[int]) -> Tensor:
    """Stretches of the columns (B, H, S, d) behind each other, copied only where some are left out."""
    if len(sources) == len(stretches):
        return whole
    return stretches[sources[0]] if len(sources) == 1 else torch.cat([stretches[i] for i in sources], 2)


def _eager(module: nn.Module, *args: Any, **options: Any) -> Any:
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **options)  # a family's own


def _flex(module: nn.Module, query: Tensor, *args: Any, **options: Any) -> Any:
    with _compiled_on(query.device):
        return flex_attention_forward(module, query, *args, **options)


def _flex_plain_mask(*, device: torch.device, **options: Any) -> BlockMask:
    with _compiled_on(device):
        return flex_attention_mask(device=device, **options)


def _compiled_on(device: torch.device) -> Any:
    """On a CPU, where it can only score, it would be compiled for longer than it works."""
    return torch.compiler.set_stance("force_eager" if device.type in ("cpu", "meta") else "default")


def _registered(key: Attention, make: Callable[..., Mask], plain_mask: Callable[..., Any], attend: Callable[..., Any]) -> None:
    def mask(*args: Any, **options: Any) -> Any:
        now = _reading.get()
        if now is None:
            return plain_mask(*args, **options)
        if options.get("use_vmap"):
            raise ValueError("a model whose mask is not a rule of positions alone cannot read packed rows")
        made = make(now.rows, options.pop("mask_function"), **options)
        now.masks.append(made)
        return made

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> Any:
        now = _reading.get()
        if now is not None:
            now.used.append((module, attention_mask))
        return attend(module, query, key, value, attention_mask, **options)

    AttentionMaskInterface.register(BY_BRANCH[key], mask)
    AttentionInterface.register(BY_BRANCH[key], attention)


_registered("sdpa", _sdpa_mask, sdpa_mask, _sdpa)
_registered("eager", _eager_mask, eager_mask, _eager)
_registered("flex", _flex_mask, _flex_plain_mask, _flex)
