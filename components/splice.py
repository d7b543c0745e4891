"""Token sequences for many (region, question) pairs of an image: one prefix, a branch per pair.

A row is `prefix | branch | branch | ... | padding`. A branch sees the prefix and itself, and its positions go on where the prefix
ends, so each branch is read exactly as if it stood alone after the prefix: the same logits and the same loss as one sequence per
pair, without reading the image's tokens again for each. One sequence per pair, `prefix | branch | padding`, is the other packing:
the published way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.prompts import IMAGE, REGION
from components.readouts.base import Target

PADDING = -1
Packing = Literal["image", "none"]


@dataclass(frozen=True)
class Branch:
    """A question about region `region` (its index in the image), beginning with the REGION slot, and what to answer."""

    region: int
    question: tuple[int, ...]
    target: Target


@dataclass(frozen=True)
class Packed:
    """P rows of T tokens about B images, slots expanded.

    Attributes:
        image: (P,) long, the image of each row, ascending.
        ids: (P, T) long; 0 at slots and padding.
        positions: (P, T) long.
        branch: (P, T) long: 0 in the prefix, 1, 2, ... in the branches, -1 in the padding.
        image_slots: (N,) long, the columns of the image's tokens, the same in every row.
        region_slots: (S, 4) long: row, column, region, index of the token within the region.
        hard: (M, 3) long: row, column, id that comes next.
        answers: how many answers are taught.
        soft: (Q, 2) long: row, column; `soft_ids` and `soft_probabilities` are (Q, L).
        plain: no row has two branches: each is an ordinary causal sequence.
    """

    image: Tensor
    ids: Tensor
    positions: Tensor
    branch: Tensor
    image_slots: Tensor
    region_slots: Tensor
    hard: Tensor
    soft: Tensor
    soft_ids: Tensor
    soft_probabilities: Tensor
    answers: int
    plain: bool

    def mask(self) -> Tensor:
        """(P, T, T) bool: row i may look at column j. Padding looks at itself alone, so that no row of it is empty."""
        size = self.branch.shape[1]
        earlier = torch.ones(size, size, dtype=torch.bool, device=self.branch.device).tril()
        column, row = self.branch[:, None, :], self.branch[:, :, None]
        itself = torch.eye(size, dtype=torch.bool, device=self.branch.device)
        return earlier & ((column == 0) | (column == row)) & (row != PADDING) | itself


def expand(ids: Sequence[int], image_tokens: int, region_tokens: int) -> list[int]:
    """Repeats each slot as often as it has tokens."""
    times = {IMAGE: image_tokens, REGION: region_tokens}
    return [i for i in ids for _ in range(times.get(i, 1))]


def pack(
    prefix: Sequence[int],
    images: Sequence[Sequence[Branch]],
    image_tokens: int,
    region_tokens: int,
    device: torch.device | str = "cpu",
    packing: Packing = "image",
) -> Packed:
    """Writes the branches of B images into rows, each after the common prefix.

    Args:
        packing: "image" gives a row to each image, "none" one to each branch. An image without branches keeps a row of its prefix.
    """
    head = expand(prefix, image_tokens, region_tokens)
    shares = [(b, share) for b, branches in enumerate(images) for share in _shares(branches, packing)]
    rows = [_Row(head) for _ in shares]
    for row, (_, branches) in zip(rows, shares, strict=True):
        for number, branch in enumerate(branches, 1):
            row.add(number, branch, len(head), region_tokens)
    longest = max(len(row.ids) for row in rows)

    def table(name: str, fill: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [fill] * (longest - len(row.ids)) for row in rows], device=device)

    def joined(name: str, width: int) -> Tensor:
        found = [(b, *entry) for b, row in enumerate(rows) for entry in getattr(row, name)]
        return torch.tensor(found, dtype=torch.long, device=device).reshape(-1, width)

    ids = table("ids", 0)
    levels = [entry for row in rows for entry in row.levels]
    return Packed(
        image=torch.tensor([b for b, _ in shares], device=device),
        ids=ids.clamp_min(0),
        positions=table("positions", 0),
        branch=table("branch", PADDING),
        image_slots=torch.tensor([i for i, token in enumerate(head) if token == IMAGE], dtype=torch.long, device=device),
        region_slots=joined("slots", 4),
        hard=joined("hard", 3),
        soft=joined("soft", 2),
        soft_ids=torch.tensor([ids for ids, _ in levels], dtype=torch.long, device=device),
        soft_probabilities=torch.tensor([p for _, p in levels], device=device),
        answers=sum(len(branches) for branches in images),
        plain=all(len(share) <= 1 for _, share in shares),
    )


def _shares(branches: Sequence[Branch], packing: Packing) -> list[Sequence[Branch]]:
    """What each row of an image holds."""
    return [branches] if packing == "image" or not branches else [[branch] for branch in branches]


class _Row:
    def __init__(self, head: list[int]) -> None:
        self.ids, self.branch, self.positions = list(head), [0] * len(head), list(range(len(head)))
        self.slots: list[tuple[int, int, int]] = []
        self.hard: list[tuple[int, int]] = []
        self.soft: list[tuple[int]] = []
        self.levels: list[tuple[tuple[int, ...], tuple[float, ...]]] = []

    def add(self, number: int, branch: Branch, after: int, region_tokens: int) -> None:
        question = expand(branch.question, 0, region_tokens)
        start = len(self.ids)
        self.slots += [(start + k, branch.region, k) for k in range(region_tokens)]
        answer_from = start + len(question)
        target = branch.target
        for i, token in enumerate(target.ids):
            if i == target.soft_at:
                self.soft.append((answer_from + i - 1,))
                self.levels.append((target.soft_ids, target.soft_probabilities))
            else:
                self.hard.append((answer_from + i - 1, token))
        tokens = [*question, *target.ids[:-1]]  # nothing follows the last token
        self.ids += tokens
        self.branch += [number] * len(tokens)
        self.positions += range(after, after + len(tokens))


def splice(embeddings: Tensor, packed: Packed, image_tokens: Tensor, region_tokens: Tensor) -> Tensor:
    """Puts image and region tokens into their slots.

    Args:
        embeddings: (P, T, D) of `packed.ids`.
        image_tokens: (B, N, D). region_tokens: (B, R, K, D).

    Returns:
        (P, T, D), of the embeddings' dtype.
    """
    embeddings = embeddings.clone()
    embeddings[:, packed.image_slots] = image_tokens[packed.image].to(embeddings.dtype)
    row, column, region, token = packed.region_slots.unbind(1)
    embeddings[row, column] = region_tokens[packed.image[row], region, token].to(embeddings.dtype)
    return embeddings


def language_loss(logits: Tensor, columns: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the packed targets, in float32.

    Args:
        logits: (P, N, V) at the columns `columns` (N,), sorted.

    Returns:
        The sums over plain targets and over soft targets.
    """
    row, column, wanted = packed.hard.unbind(1)
    plain = logits[row, torch.searchsorted(columns, column.contiguous())]
    hard = F.cross_entropy(plain.float(), wanted, reduction="sum")
    row, column = packed.soft.unbind(1)
    if not len(row):
        return hard, hard.new_zeros(())
    log_p = logits[row, torch.searchsorted(columns, column.contiguous())].float().log_softmax(-1).gather(1, packed.soft_ids)  # (Q, L)
    return hard, -(packed.soft_probabilities * log_p).sum()


def supervised_columns(packed: Packed) -> Tensor:
    """(N,) long, sorted: the columns of any row that carry a target."""
    return torch.cat([packed.hard[:, 1], packed.soft[:, 1]]).unique()
