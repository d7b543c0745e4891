"""Token sequences for many (region, question) pairs of an image: one prefix, a branch per pair.

A row is `prefix | branch | branch | ... | padding`. A branch sees the prefix and itself, and its positions go on where the prefix
ends, so each branch is read exactly as if it stood alone after the prefix: the same logits and the same loss as one sequence per
pair, without reading the image's tokens again for each. One sequence per pair, `prefix | branch | padding`, is the other packing:
the published way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from components.llm_adapters.base import PADDING
from components.prompts import IMAGE, REGION
from components.readouts.base import Target
from components.tasks import TASKS, Task

Packing = Literal["image", "none"]


@dataclass(frozen=True)
class Branch:
    """A question about region `region` (its index in the image), beginning with the REGION slot, and what to answer.

    Attributes:
        task: what it is about. judgment: a question beside the task's own (`components.judgments`).
    """

    region: int
    question: tuple[int, ...]
    target: Target
    task: Task = "quality"
    judgment: bool = False

    def tokens(self, region_tokens: int) -> int:
        """How many it takes in a row: the slot stands for all tokens of the region, and the answer's last id is not read."""
        return region_tokens - 1 + len(self.question) + len(self.target.ids[:-1])


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
        answers: how many answers are taught, judgments not counted.
        soft: (Q, 2) long: row, column; `soft_ids` and `soft_probabilities` are (Q, L).
        score: (N, 2) long: row, column of a readout's own token; `score_values` are (N, 2), the value and its standard deviation.
        hard_answer, soft_answer, score_answer: (M,), (Q,) and (N,) long: which answer the target belongs to, of the A branches of all
            images in order.
        topic: (A,) long, the same for answers about one image and task. judgment: (A,) bool, see `Branch`.
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
    score: Tensor
    score_values: Tensor
    hard_answer: Tensor
    soft_answer: Tensor
    score_answer: Tensor
    topic: Tensor
    judgment: Tensor
    answers: int
    plain: bool


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

    def answers(name: str) -> Tensor:
        before = itertools.accumulate((row.branch[-1] for row in rows), initial=0)  # a row's last token is its last branch's
        found = [first + i for first, row in zip(before, rows, strict=False) for i in getattr(row, name)]
        return torch.tensor(found, dtype=torch.long, device=device)

    ids = table("ids", 0)
    levels = [entry for row in rows for entry in row.levels]
    asked = [(b, branch) for b, branches in enumerate(images) for branch in branches]
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
        score=joined("score", 2),
        score_values=torch.tensor([v for row in rows for v in row.values], device=device).reshape(-1, 2),
        hard_answer=answers("hard_answer"),
        soft_answer=answers("soft_answer"),
        score_answer=answers("score_answer"),
        topic=torch.tensor([b * len(TASKS) + TASKS.index(branch.task) for b, branch in asked], dtype=torch.long, device=device),
        judgment=torch.tensor([branch.judgment for _, branch in asked], dtype=torch.bool, device=device),
        answers=sum(not branch.judgment for _, branch in asked),
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
        self.hard_answer: list[int] = []
        self.soft_answer: list[int] = []
        self.levels: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
        self.score: list[tuple[int]] = []
        self.score_answer: list[int] = []
        self.values: list[tuple[float, float]] = []

    def add(self, number: int, branch: Branch, after: int, region_tokens: int) -> None:
        question = expand(branch.question, 0, region_tokens)
        start = len(self.ids)
        self.slots += [(start + k, branch.region, k) for k in range(region_tokens)]
        answer_from = start + len(question)
        target = branch.target
        if target.value is not None:
            self.score.append((answer_from - 1,))
            self.score_answer.append(number - 1)
            self.values.append((target.value, target.std))
        for i, token in enumerate(target.ids):
            if i == target.soft_at:
                self.soft.append((answer_from + i - 1,))
                self.soft_answer.append(number - 1)
                self.levels.append((target.soft_ids, target.soft_probabilities))
            else:
                self.hard.append((answer_from + i - 1, token))
                self.hard_answer.append(number - 1)
        tokens = [*question, *target.ids[:-1]]  # nothing follows the last token
        self.ids += tokens
        self.branch += [number] * len(tokens)
        self.positions += range(after, after + len(tokens))


def splice(embeddings: Tensor, packed: Packed, image_tokens: Tensor, region_tokens: Tensor, own: Tensor | None = None) -> Tensor:
    """Puts image and region tokens, and the readouts' own, into their slots.

    Args:
        embeddings: (P, T, D) of `packed.ids`.
        image_tokens: (B, N, D). region_tokens: (B, R, K, D).
        own: (N, D), at `packed.score`; None where there are none.

    Returns:
        (P, T, D), of the embeddings' dtype.
    """
    embeddings = embeddings.clone()
    embeddings[:, packed.image_slots] = image_tokens[packed.image].to(embeddings.dtype)
    row, column, region, token = packed.region_slots.unbind(1)
    embeddings[row, column] = region_tokens[packed.image[row], region, token].to(embeddings.dtype)
    if own is not None:
        embeddings[packed.score[:, 0], packed.score[:, 1]] = own.to(embeddings.dtype)
    return embeddings


def supervised_columns(packed: Packed) -> Tensor:
    """(N,) long, sorted: the columns of any row that carry a target."""
    return torch.cat([packed.hard[:, 1], packed.soft[:, 1], packed.score[:, 1]]).unique()
