"""A key-value cache of packed rows: it keeps every column, and knows whose each is."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers import PretrainedConfig as Architecture
from transformers.cache_utils import DynamicLayer

from components.rows import Rows


class RowCache(DynamicCache):
    """As `DynamicCache`, but without forgetting: a layer with a window would keep the last columns, which are not the nearest positions
    where branches stand side by side."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(config=architecture)
        self.layers = [DynamicLayer() if getattr(layer, "is_sliding", False) else layer for layer in self.layers]
        self.rows: Rows | None = None
        self.branched = False

    def read(self, branch: Tensor | None, positions: Tensor) -> Rows | None:
        """Notes new columns, (B, T) each. Returns all columns, or None where none of them is of a branch."""
        new = torch.zeros_like(positions) if branch is None else branch
        known = [(new, positions)] if self.rows is None else [(self.rows.branch, self.rows.positions), (new, positions)]
        self.branched |= branch is not None
        self.rows = Rows(torch.cat([b for b, _ in known], 1), torch.cat([p for _, p in known], 1), positions.shape[1])
        return self.rows if self.branched else None

    def fork(self) -> RowCache:
        """A layer of keys and values is extended by making new tensors, so that a copy of its object is enough; a state is written over."""
        forked = copy.copy(self)
        forked.layers = [copy.copy(layer) if isinstance(layer, DynamicLayer) else copy.deepcopy(layer) for layer in self.layers]
        return forked
