"""The contract of a readout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from components.prompts import Dialogue
from components.registry import Registry
from components.tasks import Distortions, RoiScore, Task


@dataclass(frozen=True)
class Target:
    """What the model should say.

    Attributes:
        ids: of the answer, end-of-sequence included; none where the answer is a number.
        soft_at: index into `ids` of a token whose target is a distribution; None where all targets are plain ids.
        soft_ids, soft_probabilities: that distribution's support and weights.
        value: in [0, 1], what `Readout.regress` should find at the readout's own token; None for an answer in words. std: of `value`.
    """

    ids: tuple[int, ...]
    soft_at: int | None = None
    soft_ids: tuple[int, ...] = ()
    soft_probabilities: tuple[float, ...] = ()
    value: float | None = None
    std: float = 0.0


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
        state: whether the language model's last state is wanted too.
    """

    ids: tuple[int, ...] = ()
    among: tuple[int, ...] | None = None
    state: bool = False


class Heard(NamedTuple):
    """What follows what was said.

    Attributes:
        best: the most probable id, of `Say.among` or of all that may be said.
        logits: of `Say.among`, in its order.
        state: (D,) float32 after what was said last, where it was wanted: what the output embedding reads.
    """

    best: int
    logits: tuple[float, ...]
    state: Tensor | None = None


Talk = Generator[Say, Heard, RoiScore]


class Readout(nn.Module, ABC):
    """Wired: the `dialogue` (tokenizer and conversation) it speaks in, and the `width` D of the language model's states, of which one that
    speaks in words need not know.

    Attributes:
        token: (D,), an embedding of its own that is read after the question; None where it has none.
    """

    tasks: tuple[Task, ...]
    token: Tensor | None

    @abstractmethod
    def __init__(self, dialogue: Dialogue, width: int = 0, /) -> None:
        super().__init__()
        self.dialogue = dialogue
        self.register_parameter("token", None)

    @abstractmethod
    def check(self, task: Task) -> None:
        """Raises ValueError where this readout, with this tokenizer, cannot serve `task`; called at construction."""

    @abstractmethod
    def target(self, task: Task, label: Label) -> Target | None:
        """What to teach, or None where the label is unknown."""

    def regress(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (N, D) at its token -> means in [0, 1] and logarithms of their variances, (N,) each; where targets have a `value`."""
        raise NotImplementedError(f"{type(self).__name__} answers in words")

    @abstractmethod
    def talk(self, task: Task) -> Talk:
        """The answer about one region that was just asked: says what it is taken to have answered so far, hears what would follow, and
        so on until it returns the score. Many talks are carried on at once (`components.reading.converse`)."""

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""
        return {}


READOUTS: Registry[Readout] = Registry("readout", __package__, Readout)
