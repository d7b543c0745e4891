"""The contract of a readout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from components.batch import Distortions, RoiScore, Task
from components.prompts import Dialogue
from components.registry import Registry


@dataclass(frozen=True)
class Target:
    """What the model should say.

    Attributes:
        ids: of the answer, end-of-sequence included.
        soft_at: index into `ids` of a token whose target is a distribution; None where all targets are plain ids.
        soft_ids, soft_probabilities: that distribution's support and weights.
    """

    ids: tuple[int, ...]
    soft_at: int | None = None
    soft_ids: tuple[int, ...] = ()
    soft_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class Label:
    """What is known of a region for one task; `value` and `std` in [0, 1] for a score, `distortions` for the distortion task."""

    value: float | None = None
    std: float | None = None
    distortions: Distortions | None = None


class Reader(Protocol):
    """N regions that were just asked one question, the image before them already read."""

    def after(self, ids: Sequence[int]) -> Tensor:
        """(N, V) logits of the token that follows once `ids` have been said in answer."""

    def generate(self, limit: int) -> list[list[int]]:
        """N greedy answers of at most `limit` ids, without the end-of-sequence id."""


class Readout(nn.Module, ABC):
    """Wired: the `dialogue` (tokenizer and conversation) it speaks in."""

    tasks: tuple[Task, ...]

    @abstractmethod
    def __init__(self, dialogue: Dialogue, /) -> None:
        super().__init__()
        self.dialogue = dialogue

    @abstractmethod
    def check(self, task: Task) -> None:
        """Raises ValueError where this readout, with this tokenizer, cannot serve `task`; called at construction."""

    @abstractmethod
    def target(self, task: Task, label: Label) -> Target | None:
        """What to teach, or None where the label is unknown."""

    @abstractmethod
    def read(self, task: Task, reader: Reader) -> list[RoiScore]:
        """The N answers."""

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""
        return {}


READOUTS: Registry[Readout] = Registry("readout", __package__, Readout)
