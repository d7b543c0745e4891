"""Level words, read as a distribution: one forward pass gives a score and its uncertainty, nothing is generated.

In training the level word's target is a distribution over the five words whose mean is the label (as in DeQA-Score; our closed
form is in `soft_levels`). In use the five words' probabilities after the answer's stem give the mean and standard deviation
(reference facts 1.13; Q-Align's rule, with levels at 0, 1/4, ... 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from components.prompts import LEVELS, Dialogue, nearest_level, say_level
from components.readouts.base import READOUTS, Label, Readout, Say, Talk, Target
from components.tasks import RoiScore, Task


@READOUTS.register("levels")
class LevelReadout(Readout):
    """Expectation and standard deviation over the level words.

    Args:
        soft: teach the whole distribution; False teaches the nearest word alone (Q-Align's one-hot labels).
        label_std: standard deviation assumed where a label gives none, in [0, 1].
    """

    tasks = ("quality", "importance")

    def __init__(self, dialogue: Dialogue, width: int = 0, /, *, soft: bool = True, label_std: float = 0.0) -> None:
        super().__init__(dialogue, width)
        if not 0 <= label_std <= 1:
            raise ValueError(f"label_std is a share of the scale, in [0, 1], got {label_std}")
        self.soft, self.label_std = soft, label_std

    def check(self, task: Task) -> None:
        """The level words' ids must be found, and differ."""
        if task not in self.tasks:
            raise ValueError(f"readout 'levels' serves {', '.join(self.tasks)}, not {task}: use 'text' for it")
        self.dialogue.levels(task)

    def target(self, task: Task, label: Label) -> Target | None:
        if label.value is None or math.isnan(label.value):
            return None
        count = len(LEVELS[task])
        ids = self.dialogue.answer(task, say_level(task, nearest_level(label.value, count)))
        if not self.soft:
            return Target(ids)
        levels = self.dialogue.levels(task)
        std = self.label_std if label.std is None or math.isnan(label.std) else label.std
        return Target(ids, len(levels.stem), levels.ids, soft_levels(label.value, std, count))

    def talk(self, task: Task) -> Talk:
        levels = self.dialogue.levels(task)
        heard = yield Say(levels.stem, levels.ids)
        highest = max(heard.logits)
        weights = [math.exp(x - highest) for x in heard.logits]
        probabilities = [w / sum(weights) for w in weights]
        best = max(range(len(weights)), key=weights.__getitem__)
        names = dict(zip(LEVELS[task], probabilities, strict=True))
        return RoiScore(task, *moments(probabilities), say_level(task, best), names)


def moments(probabilities: Sequence[float]) -> tuple[float, float]:
    """Probabilities of levels at 0, 1 / (L - 1), ... 1 -> mean and standard deviation."""
    values = [i / (len(probabilities) - 1) for i in range(len(probabilities))]
    mean = sum(p * v for p, v in zip(probabilities, values, strict=True))
    return mean, math.sqrt(sum(p * (v - mean) ** 2 for p, v in zip(probabilities, values, strict=True)))


def soft_levels(value: float, std: float, count: int = 5) -> tuple[float, ...]:
    """The distribution over `count` equally spaced levels of a score that is Gaussian around `value` and clipped to [0, 1].

    A score between two levels is shared between them in proportion to its nearness (a hat function per level), so the mean of
    the distribution is exactly the mean of the clipped score. With `std` 0 it is `value` itself, split over its two neighbours.
    The integral of a hat against the Gaussian is a second difference of E[max(0, x - level)], which is known in closed form.
    """
    value = min(1.0, max(0.0, value))
    step = 1 / (count - 1)
    beyond = [_expected_excess(value, std, i * step) for i in range(count)]
    # E[min(1, excess over level i / step)]: how much of the score lies beyond level i, counted in steps up to one
    passed = [1.0, *((beyond[i] - beyond[i + 1]) / step for i in range(count - 1)), 0.0]
    return tuple(max(0.0, passed[i] - passed[i + 1]) for i in range(count))


def _expected_excess(mean: float, std: float, level: float) -> float:
    """E[max(0, x - level)] for Gaussian x."""
    gap = mean - level
    if std == 0:
        return max(0.0, gap)
    z = gap / std
    return gap * 0.5 * (1 + math.erf(z / math.sqrt(2))) + std * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
