"""The contract of a readout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

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


class Say(NamedTuple):
    """How the answer about a region goes on.

    Attributes:
        ids: said now, read by the model. The first may be none: the question has just been read; those after it must be some.
        among: ids whose logits, of what follows, are wanted; None where it is only wanted which id of the vocabulary follows.
    """

    ids: tuple[int, ...] = ()
    among: tuple[int, ...] | None = None


class Heard(NamedTuple):
    """What follows what was said.

    Attributes:
        best: the most probable id, of `Say.among` or of all that may be said.
        logits: of `Say.among`, in its order.
    """

    best: int
    logits: tuple[float, ...]


Talk = Generator[Say, Heard, RoiScore]


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
    def talk(self, task: Task) -> Talk:
        """The answer about one region that was just asked: says what it is taken to have answered so far, hears what would follow, and
        so on until it returns the score. Many talks are carried on at once (`components.reading.converse`)."""

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""
        return {}


READOUTS: Registry[Readout] = Registry("readout", __package__, Readout)
