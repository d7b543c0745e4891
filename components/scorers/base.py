"""The contract of a scorer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.batch import TASKS, Batch, RoiScore, Task
from components.preprocess import Preprocess, prepare_image, prepare_regions, stack
from components.registry import Registry

RegionScores = dict[Task, RoiScore]


class Scorer(nn.Module, ABC):
    """Something that scores the regions of images.

    Attributes:
        preprocess: what the images must look like.
        crop_size: side of the region crops, 0 for none.
        tasks: the questions it can answer.
        blocks: module classes that sharded training wraps.
    """

    preprocess: Preprocess
    crop_size: int = 0
    tasks: tuple[Task, ...] = TASKS
    blocks: tuple[type[nn.Module], ...] = ()

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Training objective on a labelled batch: "loss" is what is minimised, the other entries are its parts (scalars)."""

    @abstractmethod
    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        """For each image, for each valid region, the answer to each task. No gradient; the model is in eval mode."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The components by name, for learning rates, freezing and reports; they cover all parameters, disjointly."""

    def train(self, mode: bool = True) -> Scorer:
        """As `nn.Module.train`, but a part without trainable parameters stays in eval mode: its statistics are frozen too."""
        super().train(mode)
        for part in self.parts().values():
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def load_pretrained(self) -> None:
        """Reads trained weights of the components that have any; called once, after construction."""

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Takes what statistics it needs from some training images; called once before the first step, never when resuming."""

    @torch.no_grad()
    def score(self, image: Tensor, masks: Tensor, tasks: Sequence[Task] = TASKS) -> list[RegionScores]:
        """Scores the regions of one image.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (R, H, W) bool, none empty.
            tasks: some of `self.tasks`.

        Returns:
            R mappings from task to answer, in the order of the masks.
        """
        self.check_tasks(tasks)
        if not len(masks):
            return []
        device = next(self.parameters()).device
        x = prepare_image(image, self.preprocess)
        batch = stack([x], [prepare_regions(image, masks, self.preprocess, self.crop_size)]).to(device)
        training = self.training
        try:
            return self.eval().score_batch(batch, tasks)[0]
        finally:
            self.train(training)

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Raises ValueError for a task that this scorer cannot answer."""
        for task in tasks:
            if task not in self.tasks:
                raise ValueError(f"task '{task}': {type(self).__name__} answers {', '.join(self.tasks)}")

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small, random instance for tests (64-pixel images)."""


SCORERS: Registry[Scorer] = Registry("scorer", __package__, Scorer)
