"""Trains a scorer with the help of another one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from components.batch import Batch
from components.distillation import Terms, check_pair, distilled
from components.scorers.mobile_iqa import MobileIQA
from lightning_modules.scorer import ScorerModule


class DistillationModule(ScorerModule):
    """Conducts the training of a student. All but the objective is `ScorerModule`'s: checkpoints hold the student alone, and so does the
    optimizer; the teacher is in eval mode whatever happens to the student.

    Args:
        teacher: trained, on the student's device when training begins.
        terms: how much each term counts.
        options: of `ScorerModule`.

    Raises:
        ConfigError: this teacher cannot teach this scorer.
    """

    scorer: MobileIQA

    def __init__(self, scorer: MobileIQA, teacher: MobileIQA, terms: Terms, **options: Any) -> None:
        super().__init__(scorer, **options)
        check_pair(scorer, teacher)
        self.teacher, self.terms = teacher.requires_grad_(False).eval(), terms

    def train(self, mode: bool = True) -> DistillationModule:
        super().train(mode)
        self.teacher.eval()
        return self

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """See `ScorerModule.objective`: the three terms."""
        return distilled(self.scorer, self.teacher, batch, self.terms)
