"""Which columns a token of a packed row may look at, told without a table of all rows and all columns.

A token sees the prefix and its own branch, as far as the model's own rule allows: the rule is asked about positions, not columns, because
it must hold as if the branch stood alone behind the prefix. So a sliding window counts what lies between two tokens in that sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from components.llm_adapters.base import PADDING

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # image, head, position of the row, of the column (all broadcast) -> bool
PIECE = 512  # columns attended to at once, about
_BLOCK = 128  # of FlexAttention
_ALIGNED = 16  # elements: fused kernels copy a mask whose rows begin elsewhere


@dataclass(frozen=True)
class Piece:
    """Successive new columns, and the stretches of all columns that any of them looks at.

    Attributes:
        length: T_p, how many new columns.
        sources: indices of stretches, ascending.
        mask: (B, 1, T_p, S_p) added to the scores, 0 or -inf; None for plain causal.
    """

    length: int
    sources: tuple[int, ...]
    mask: Tensor | None


@dataclass(frozen=True)
class Pieces:
    """Attention of a packed row in pieces.

    Attributes:
        stretches: lengths of the stretches into which all S columns fall.
        pieces: of the new columns, in order.
    """

    stretches: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def to(self, device: torch.device) -> Pieces:
        """With the masks on a device."""
        moved = [p if p.mask is None else replace(p, mask=p.mask.to(device)) for p in self.pieces]
        return replace(self, pieces=tuple(moved))


@dataclass(frozen=True)
class Rows:
    """B packed rows of S columns, the last `new` of which are being read.

    Attributes:
        branch: (B, S) long, see `LLMAdapter.forward`.
        positions: (B, S) long; those of a prefix ascend, as do those of a branch.
    """

    branch: Tensor
    positions: Tensor
    new: int

    @property
    def length(self) -> int:
        """S."""
        return self.branch.shape[1]

    def sees(self, rule: Rule, rows: Tensor, columns: Tensor) -> Tensor:
        """rows (T',) and columns (S',), indices of columns -> (B, 1, T', S') bool. Padding sees itself, so that no row is empty."""
        images = torch.arange(len(self.branch), device=rows.device)[:, None, None, None]
        own, other = self.branch[:, None, rows, None], self.branch[:, None, None, columns]  # (B, 1, T', 1), (B, 1, 1, S')
        allowed = rule(images, torch.zeros_like(images), self.positions[:, None, rows, None], self.positions[:, None, None, columns])
        return allowed & ((other == 0) | (other == own)) & (own != PADDING) | (rows[:, None] == columns)

    def table(self, rule: Rule) -> Tensor:
        """(B, 1, T, S) bool."""
        every = torch.arange(self.length, device=self.branch.device)
        return self.sees(rule, every[self.length - self.new :], every)

    def pieces(self, rule: Rule, dtype: torch.dtype, reach: float) -> Pieces:
        """Attention in pieces of about `PIECE` columns.

        Args:
            dtype: of the masks.
            reach: a rule between positions that differ by less is plain causal.
        """
        edges, prefix, spread = self._edges
        every = torch.arange(self.length, device=self.branch.device)
        found = []
        for i, (start, stop) in enumerate(itertools.pairwise(edges)):
            if start < self.length - self.new:
                continue
            if start == 0 and stop <= prefix and spread < reach:
                found.append(Piece(stop - start, (i,), None))
                continue
            first = min(self._firsts[start:stop])
            sources = tuple(j for j in range(i + 1) if edges[j] < prefix or edges[j + 1] > first)
            columns = torch.cat([every[edges[j] : edges[j + 1]] for j in sources])
            found.append(Piece(stop - start, sources, _added(self.sees(rule, every[start:stop], columns), dtype)))
        return Pieces(tuple(b - a for a, b in itertools.pairwise(edges)), tuple(found))

    def blocks(self, rule: Rule) -> BlockMask:
        """For FlexAttention, made strip by strip."""
        device, width = self.branch.device, -(-self.length // _BLOCK) * _BLOCK
        before = self.length - self.new
        spare = (0, width + _BLOCK - self.length)
        branch = torch.nn.functional.pad(self.branch, spare, value=PADDING)  # kernels may ask about columns beyond the last
        positions = torch.nn.functional.pad(self.positions, spare)
        padded = Rows(branch, positions, self.new)
        columns = torch.arange(width, device=device)
        inside = columns < self.length
        some, whole = [], []
        for start in range(before, self.length, _BLOCK):
            rows = torch.arange(start, start + _BLOCK, device=device)
            strip = padded.sees(rule, rows, columns) & inside & (rows < self.length)[:, None]  # (B, 1, block, width)
            strip = strip.unflatten(-1, (-1, _BLOCK))
            some.append(strip.any(-1).any(-2))
            whole.append(strip.all(-1).all(-2))
        partly, wholly = torch.stack(some, 2) & ~torch.stack(whole, 2), torch.stack(whole, 2)  # (B, 1, T / block, S / block)

        def allowed(image: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            row = row + before
            own, other = branch[image, row], branch[image, column]
            near = rule(image, head, positions[image, row], positions[image, column])
            return near & ((other == 0) | (other == own)) & (own != PADDING) | (row == column)

        return BlockMask.from_kv_blocks(
            *_listed(partly), *_listed(wholly), BLOCK_SIZE=_BLOCK, mask_mod=allowed, seq_lengths=(self.new, self.length)
        )

    @cached_property
    def _firsts(self) -> list[int]:
        """The first column, in any row, of the branches that stand at each column; a prefix's or padding's is the column itself."""
        every = torch.arange(self.length, device=self.branch.device).expand_as(self.branch)
        numbers = self.branch.clamp_min(0)
        begin = every.new_full((len(numbers), int(numbers.max()) + 1), self.length).scatter_reduce(1, numbers, every, "amin")
        return torch.where(self.branch > 0, begin.gather(1, numbers), every).amin(0).tolist()

    @cached_property
    def _edges(self) -> tuple[list[int], int, int]:
        """Where the stretches begin and the last ends; the length of the prefix that all rows share, and how far its positions reach."""
        plain = (self.branch == 0).all(0)
        prefix = int(plain.long().cumprod(0).sum())
        spread = int(self.positions[:, :prefix].amax() - self.positions[:, :prefix].amin()) if prefix else 0
        begins = torch.ones_like(self.branch, dtype=torch.bool)
        begins[:, 1:] = (self.branch[:, 1:] != self.branch[:, :-1]) | (self.branch[:, 1:] == PADDING)
        starts = [i for i, begin in enumerate(begins.all(0).tolist()) if begin]
        edges = sorted({0, prefix, self.length - self.new})
        while edges[-1] < self.length:
            within = [s for s in starts if edges[-1] < s <= edges[-1] + PIECE]
            rest = self.length - edges[-1]
            edges.append(self.length if rest <= PIECE else max(within, default=edges[-1] + PIECE))
        return edges, prefix, spread


def _added(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """As numbers to be added to scores."""
    *shape, width = sees.shape
    room = sees.new_zeros(*shape, -(-width // _ALIGNED) * _ALIGNED, dtype=dtype)
    return room[..., :width].masked_fill_(~sees, -torch.inf)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(..., N) bool -> how many are true, and their indices first."""
    return blocks.sum(-1, dtype=torch.int32), blocks.int().argsort(dim=-1, descending=True, stable=True).int()
