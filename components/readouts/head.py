"""A score that is no word: a token of its own is read after the question, and a small head turns what the language model makes of it into a
mean and a variance.

In training the head minimises beta-NLL (Seitzer et al., ICLR 2022, arXiv 2203.09168) with the labels' own variance; in use one forward
pass gives a score and its standard deviation, and nothing is generated.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.prompts import LEVELS, Dialogue, nearest_level, say_level
from components.readouts.base import READOUTS, Label, Readout, Say, Talk, Target
from components.tasks import RoiScore, Task

_LOG_VARIANCES = (-9.0, 0.0)  # standard deviations of 0.01 to 1
_FIRST_STD = 0.2  # about what is said before anything has been learned, well inside of the bounds


@READOUTS.register("head")
class HeadReadout(Readout):
    """Regression on a dedicated token.

    Args:
        hidden: of the head; 0 for the width of the language model.
        label_std: standard deviation assumed where a label gives none, in [0, 1].
    """

    tasks = ("quality", "importance")

    def __init__(self, dialogue: Dialogue, width: int = 0, /, *, hidden: int = 0, label_std: float = 0.0) -> None:
        super().__init__(dialogue, width)
        if width < 1:
            raise ValueError(f"readout 'head' reads states of the language model, so it is wired with their width; got {width}")
        if hidden < 0 or not 0 <= label_std <= 1:
            raise ValueError(
                f"hidden is a width (0 for the language model's), label_std a share of the scale; got {hidden} and {label_std}"
            )
        self.label_std = label_std
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        last = nn.Linear(hidden or width, 2)  # -> logit of the mean, logarithm of the variance
        with torch.no_grad():
            last.bias[1] = 2 * math.log(_FIRST_STD)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden or width), nn.GELU(), last)

    def check(self, task: Task) -> None:
        """Any tokenizer will do."""
        if task not in self.tasks:
            raise ValueError(f"readout 'head' serves {', '.join(self.tasks)}, not {task}: use 'text' for it")

    def target(self, task: Task, label: Label) -> Target | None:
        if label.value is None or math.isnan(label.value):
            return None
        std = self.label_std if label.std is None or math.isnan(label.std) else label.std
        return Target((), value=label.value, std=std)

    def regress(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States (N, D) at the token -> means in [0, 1] and logarithms of variances, (N,) float32 each."""
        mean, log_variance = self.mlp(states.to(next(self.mlp.parameters()).dtype)).float().unbind(-1)
        return mean.sigmoid(), _bounded(log_variance, *_LOG_VARIANCES)

    def talk(self, task: Task) -> Talk:
        heard = yield Say(state=True)
        assert heard.state is not None
        mean, log_variance = self.regress(heard.state[None])
        value, std = float(mean), float((log_variance / 2).exp())
        return RoiScore(task, value, std, say_level(task, nearest_level(value, len(LEVELS[task]))))


def _bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Into [low, high] by two soft bends, so that beyond a bound there is still a gradient that leads back; a clamp has none."""
    return low + F.softplus(high - F.softplus(high - x) - low)
