"""Whether a model of `transformers` would read a branch of a packed row as if it stood alone: found by reading one, not from a list."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers import PreTrainedModel as Model

from components.attention import Reading, reading
from components.rows import Rows


def unpackable(model: Model, blocks: Iterable[nn.Module]) -> str | None:
    """Why the model would not read a branch of a packed row as if it stood alone; "" if it does, None if a real pass must show it."""
    if any(DynamicCache(config=model.config).is_linear):
        return "its recurrent layers would carry one branch into the next"
    if "position_ids" not in inspect.signature(model.forward).parameters or getattr(model.config, "alibi", False):
        return "it takes positions from the columns (alibi)"
    if not model._supports_attention_backend:
        return f"transformers gives no access to its attention ({type(model).__name__})"
    return _tried(model, blocks)


@torch.no_grad()
def _tried(model: Model, blocks: Iterable[nn.Module]) -> str | None:
    """As `unpackable`, by reading a small packed row."""
    branch, positions = torch.tensor([[[0, 0, 1, 2]], [[0, 1, 2, 2]]], device="cpu")
    weight = cast(nn.Embedding, model.get_input_embeddings()).weight
    given = arguments(model, weight.new_zeros(1, 4, weight.shape[1]), positions.to(weight.device), None, 0)
    training = model.training
    model.eval()
    try:
        with reading(Rows(branch, positions, 4)) as seen:
            model(**given)
    except Exception as error:  # whatever a family does to a mask that it does not expect
        with contextlib.suppress(Exception):
            model(**given)
            return f"its layers do not take the mask of one ({type(error).__name__}: {error})"
        return None  # nor does it run without branches: experts are not told apart on the meta device
    finally:
        model.train(training)
    assert seen is not None
    return heedless(blocks, seen)


def heedless(blocks: Iterable[nn.Module], seen: Reading) -> str:
    """Which layers did not get the masks that were made for them, as they were made; "" if all did."""
    told = {id(module) for module, mask in seen.used if any(mask is made for made in seen.masks)}
    deaf = [block for block in blocks if not told & {id(m) for m in block.modules()}]
    if deaf or len(told) < len({id(module) for module, _ in seen.used}):
        return f"not all of its layers look at what a mask says ({type(deaf[0]).__name__ if deaf else 'attention'})"
    return ""


def arguments(model: Model, embeddings: Tensor, positions: Tensor, cache: Any, keep: Tensor | int) -> dict[str, Any]:
    """What the forward of a model is given: embeddings (B, T, D) and positions (B, T), and the columns whose logits to keep, 0 for all."""
    given = {"inputs_embeds": embeddings, cache_name(model): cache, "use_cache": cache is not None, "logits_to_keep": keep}
    if cache is None:
        # Given positions alone, transformers would take a restart for a new sequence and cut attention there.
        given["attention_mask"] = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool)
    if "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = positions
    return given


def cache_name(model: Model) -> str:
    """What the forward of a model calls its key-value cache: transformers 5.24 renamed it, family by family."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
