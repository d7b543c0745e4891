"""What is asked about the regions of an image in training, and what they answer: labels -> branches of packed rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from components.batch import Labels
from components.judgments import Judgment, draw, judgments
from components.prompts import DISTORTION_TYPES, LEVELS, SCORE, SEVERITIES, Dialogue, say_distortions
from components.readouts.base import Label, Readout, Target
from components.registry import ConfigError, check_keys
from components.splice import Branch
from components.tasks import Task


class Teaching:
    """The questions of a training, and their answers as the readouts want them taught.

    Args:
        readouts: task -> readout, in the order in which the questions about a region stand.
        judged: share of the (region, task) pairs about which a judgment is asked too, in [0, 1].
        shares: task -> share of its known labels that are asked about in training, above 0, at most 1; all of those of a task that is
            not named.

    Raises:
        ConfigError: a share of a task that is not taught, or one out of its range.
    """

    def __init__(
        self, dialogue: Dialogue, readouts: Mapping[Task, Readout], judged: float = 0.0, shares: Mapping[str, float] | None = None
    ) -> None:
        self.dialogue, self.readouts, self.judged = dialogue, readouts, judged
        shares = shares or {}
        check_keys(shares, list(readouts), "task_shares")
        for task, share in shares.items():
            if not 0 < share <= 1:
                raise ConfigError(
                    f"task_shares.{task}: got {share}, expected a share above 0, at most 1; a task without readout is not taught"
                )
        self.shares = [float(shares.get(task, 1.0)) for task in readouts]

    def branches(self, labels: Labels, training: bool) -> list[list[Branch]]:
        """Each image's branches, region by region; what is not known is not asked.

        Judgments are asked in training alone, half of them true. They, and what is asked of a task of which a share is, are drawn from
        torch's own generator, which a training step seeds.
        """
        chances = torch.rand(*labels.quality.shape, len(self.readouts), 3).tolist() if training and self.judged else None
        partly = training and min(self.shares) < 1
        asked = torch.rand(*labels.quality.shape, len(self.readouts)).lt(torch.tensor(self.shares)).tolist() if partly else None
        images = []
        for b, known in enumerate(labels.distortions):
            branches = []
            for r in range(len(known)):
                for t, task in enumerate(self.readouts):
                    label = label_of(labels, b, r, task)
                    branches += self._question(r, task, label) if asked is None or asked[b][r][t] else []
                    branches += [] if chances is None else self._drawn(r, task, label, chances[b][r][t])
            images.append(branches)
        return images

    def longest(self, task: Task, region_tokens: int, types: int) -> list[int]:
        """The most tokens that each branch about one region and task can take: its question's, and its judgment's where these are asked.

        Args:
            types: the most distortions that the label of a region names.
        """
        labels = list(self._longest_labels(task, types))
        asked = [[branch for label in labels for branch in self._question(0, task, label)]]
        if self.judged:
            asked.append([self._judgment(0, judgment) for label in labels for judgment in judgments(task, label)])
        return [max(branch.tokens(region_tokens) for branch in branches) for branches in asked]

    @property
    def has_levels(self) -> bool:
        """Whether some task is taught as a distribution over its level words."""
        known = {task: readout.target(task, Label(0.5, distortions=())) for task, readout in self.readouts.items()}
        return any(target is not None and target.soft_at is not None for target in known.values())

    def _question(self, region: int, task: Task, label: Label) -> list[Branch]:
        target = self.readouts[task].target(task, label)
        own = (SCORE,) if self.readouts[task].token is not None else ()
        return [] if target is None else [Branch(region, (*self.dialogue.questions[task], *own), target, task)]

    def _judgment(self, region: int, judgment: Judgment) -> Branch:
        question, answer = self.dialogue.exchange(judgment.question, judgment.brief, judgment.answer)
        return Branch(region, question, Target(answer), judgment.task, judgment=True)

    def _drawn(self, region: int, task: Task, label: Label, chances: Sequence[float]) -> list[Branch]:
        asked, truth, which = chances
        judgment = draw(task, label, truth < 0.5, which) if asked < self.judged else None
        return [] if judgment is None else [self._judgment(region, judgment)]

    def _longest_labels(self, task: Task, types: int) -> Iterator[Label]:
        """Labels among which is that of the longest answer: words are spelt one by one, so the longest parts make the longest whole."""
        if task != "distortion":
            count = len(LEVELS[task])
            yield from (Label(level / (count - 1)) for level in range(count))
            return
        singles = [Label(distortions=((kind, severity),)) for kind in DISTORTION_TYPES for severity in SEVERITIES]
        yield Label(distortions=())
        yield from singles
        if types > 1:
            worst = [max(((kind, s) for s in SEVERITIES), key=self._spelt) for kind in DISTORTION_TYPES]
            yield Label(distortions=tuple(sorted(worst, key=self._spelt)[-types:]))

    def _spelt(self, pair: tuple[str, str]) -> int:
        """Tokens of the answer that names this distortion alone."""
        return len(self.dialogue.answer("distortion", say_distortions((pair,))))


def label_of(labels: Labels, b: int, r: int, task: Task) -> Label:
    """What is known of region `r` of image `b` for a task."""
    if task == "distortion":
        return Label(distortions=labels.distortions[b][r])
    return Label(float(getattr(labels, task)[b, r]), float(getattr(labels, f"{task}_std")[b, r]))
