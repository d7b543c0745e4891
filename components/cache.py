"""A key-value cache of packed rows: it keeps every column, and knows whose each is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers import PretrainedConfig as Architecture
from transformers.cache_utils import DynamicLayer

from components.rows import Rows

ROOM = 8  # a layer that grows makes room for one column more in so many
SPARE = 4  # of an image's columns, one in so many more may be kept as room for what is asked about it
Room = tuple[Tensor, Tensor]  # keys and values, (B, H, C, d)


class RoomyLayer(DynamicLayer):
    """As `DynamicLayer`, but into room that was made ahead: an answer that is said word by word does not copy all columns before it with
    each word. While gradients are kept, which writing in place would spoil, it is a `DynamicLayer`.

    The room of a fork that is done with is lent to the next one (`give_back`): who asks about an image again and again copies its columns
    once."""

    def __init__(self) -> None:
        super().__init__()
        self._room: Room | None = None  # with columns for some more
        self._idle: list[Room] = []  # one at most: begins with this layer's columns, and no fork writes behind them
        self._lender: tuple[RoomyLayer, list[Room]] | None = None  # of a fork

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See the class. What is returned are views that later columns do not change."""
        known = self.get_seq_length()
        self._idle = []  # what stands behind the columns is now of this layer
        if torch.is_grad_enabled() or not known or self.keys is None or self.values is None:
            self._room = None
            return super().update(key_states, value_states, *args, **kwargs)
        length = known + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < length:
            self._room = self._borrowed(length) or (_grown(self.keys, length), _grown(self.values, length))
        room_keys, room_values = self._room
        room_keys[..., known:length, :], room_values[..., known:length, :] = key_states, value_states
        self.keys, self.values = room_keys[..., :length, :], room_values[..., :length, :]
        return self.keys, self.values

    def fork(self) -> RoomyLayer:
        """Another layer with the same columns, which both may extend; the room stays with this one."""
        forked = copy.copy(self)
        forked._room, forked._idle, forked._lender = None, [], (self, self._idle)
        return forked

    def give_back(self) -> None:
        """Says that this fork is not read any more: its room is lent to the next, unless it has far more columns than those that are
        shared. These stand in it from here on, so that they are not kept twice."""
        room, self._room = self._room, None
        if room is None or self._lender is None:
            return
        lender, idle = self._lender
        known = lender.get_seq_length()
        if idle or lender._idle is not idle or lender._room is not None or room[0].shape[-2] > known + known // SPARE:
            return
        lender.keys, lender.values = (columns[..., :known, :] for columns in room)
        idle.append(room)

    def _borrowed(self, length: int) -> Room | None:
        """The room that an earlier fork gave back, if it is large enough; its first columns are those that are known here."""
        idle = [] if self._room is not None or self._lender is None else self._lender[1]
        try:
            return idle.pop() if idle[0][0].shape[-2] >= length else None
        except IndexError:  # nobody gave one back, or another thread has it
            return None


def _grown(columns: Tensor, length: int) -> Tensor:
    """(B, H, S, d) -> the same columns in a tensor for `length` and some more."""
    room = columns.new_empty(*columns.shape[:-2], length + -(-length // ROOM), columns.shape[-1])
    room[..., : columns.shape[-2], :] = columns
    return room


class RowCache(DynamicCache):
    """As `DynamicCache`, but without forgetting: a layer with a window would keep the last columns, which are not the nearest positions
    where branches stand side by side."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(config=architecture)
        self.layers = [
            RoomyLayer() if getattr(layer, "is_sliding", False) or type(layer) is DynamicLayer else layer for layer in self.layers
        ]
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
        """Keys and values are shared until one of the two is extended; a state, which is written over, is copied."""
        forked = copy.copy(self)
        forked.layers = [layer.fork() if isinstance(layer, RoomyLayer) else copy.deepcopy(layer) for layer in self.layers]
        return forked

    def give_back(self) -> None:
        """Says that this fork is not read any more, see `RoomyLayer.give_back`."""
        for layer in self.layers:
            if isinstance(layer, RoomyLayer):
                layer.give_back()
