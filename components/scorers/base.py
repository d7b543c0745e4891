"""The contract of a scorer."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.batch import Batch, Regions
from components.foundation import RANDOM, Foundations, fingerprint
from components.llm_adapters.base import LLMAdapter
from components.preprocess import CropSize, Preprocess, crop_shape, own_pixels, prepare_image, prepare_regions, stack, stack_regions
from components.registry import ConfigError, Registry
from components.tasks import TASKS, RegionScores, Task


class Graph(NamedTuple):
    """A scorer as a function of tensors alone, for other runtimes.

    Attributes:
        module: takes the inputs in their order, returns the outputs in theirs, a row for each region.
        inputs: an example of each, of two regions or more, by its name: "image" (1, 3, S, S), or a field of `Regions`.
        regions: for each input whose number of regions is free, the axis that counts them.
        outputs: names; "scores" (R, T) or (R,), and "stds" where they are known, are those of the tasks that have a value.
        said: what the outputs are, for people.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    regions: dict[str, int]
    outputs: tuple[str, ...]
    said: str


class Scorer(nn.Module, ABC):
    """Something that scores the regions of images.

    Attributes:
        preprocess: what the images must look like.
        crop_size: of the region crops, in pixels: a square's side or a rectangle's height and width; 0 for none, and where it cuts its
            regions out of the images itself (`preprocess.native`).
        tasks: the questions it can answer.
        blocks: module classes that sharded training wraps.
        sources: names of the options that name weights or other files; who packs a model takes along what they point to.
        needs_clean: whether training reads `Batch.clean`.
        licence: of what it is made with, where that binds whoever uses the model; "" for none but this project's.
    """

    preprocess: Preprocess
    crop_size: CropSize = 0
    tasks: tuple[Task, ...] = TASKS
    blocks: tuple[type[nn.Module], ...] = ()
    needs_clean: bool = False
    sources: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[str] = ""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Training objective on a labelled batch: "loss" is what is minimised, the other entries are its parts (scalars).

        "answers", where there, is how many answers "loss" is the mean of: a step of several batches then weighs each by it. In training
        the entries are the same for all batches, so that several processes can add theirs up.
        """

    @abstractmethod
    def score_batch(self, batch: Batch, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        """For each image, for each valid region, the answer to each task. No gradient; the model is in eval mode."""

    def look(self, batch: Batch) -> Any:
        """What is kept of a batch's images, so that regions of them can be asked about again and again: `answer(look(batch), regions,
        tasks)` is `score_batch` of a batch with these regions, whose own play no part. No gradient; the model is in eval mode."""
        return batch

    def answer(self, seen: Any, regions: Regions, tasks: Sequence[Task]) -> list[list[RegionScores]]:
        """As `score_batch`, of images that were looked at."""
        ids = seen.ids if regions is seen.regions else ()
        return self.score_batch(dataclasses.replace(seen, regions=regions, labels=None, ids=ids), tasks)

    @property
    def coupled(self) -> bool:
        """Whether the regions of an image change each other's scores, so that they must be asked about all at once."""
        return False

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The components by name, for learning rates, freezing and reports; they cover all parameters, disjointly."""

    def beside(self) -> dict[str, nn.Module]:
        """What also works on an answer and is no part, by name: neither trained nor saved, but counted. Empty until it has been made."""
        return {}

    def train(self, mode: bool = True) -> Scorer:
        """As `nn.Module.train`, but a part without trainable parameters stays in eval mode: its statistics are frozen too."""
        super().train(mode)
        for part in self.parts().values():
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def load_pretrained(self) -> None:
        """Reads trained weights of the components that have any; called once, after construction."""

    @property
    def can_precompute(self) -> bool:
        """Whether its vision encoder is frozen, and `precompute` spares seeing an image again."""
        return False

    def precompute(self, batch: Batch) -> Batch:
        """The same batch, with what the frozen vision encoder sees in place of the pixels: training then need not encode an image at
        each visit. No gradient; on the scorer's device, features in half precision.

        Raises:
            ValueError: `can_precompute` is False.
        """
        raise ValueError(f"{type(self).__name__} trains on pixels: nothing of it can be precomputed")

    def row_tokens(self, regions: NDArray[np.int64], types: int) -> NDArray[np.int64]:
        """(N,) numbers of regions of images -> (N,) tokens that training reads of each image, at most.

        Args:
            types: the most distortions that the label of a region names.

        Raises:
            ConfigError: it reads no tokens.
        """
        raise ConfigError(
            f"trainer.max_tokens: {type(self).__name__} has no language model, so it reads no tokens: set it to 0, and trainer.batch_size "
            "to the number of images"
        )

    def trained_keys(self) -> set[str]:
        """What a checkpoint holds: trainable parameters, and the buffers of all parts but the frozen ones."""
        keys = {n for n, p in self.named_parameters() if p.requires_grad}
        frozen = [m for m in self.parts().values() if list(m.parameters()) and not any(p.requires_grad for p in m.parameters())]
        left_out = {id(b) for m in frozen for b in m.buffers()}
        return keys | {n for n, b in self.named_buffers() if id(b) not in left_out}

    def foundations(self) -> Foundations:
        """The frozen weights that a checkpoint does not hold and that its tensors were trained on: part -> what it is. The weights must
        have been read."""
        found: Foundations = {}
        for name, part in self.parts().items():
            told = part.foundation() if isinstance(part, LLMAdapter) else _frozen(part)
            if told is not None:
                found[name] = told
        return found

    def check_trained(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where a checkpoint's tensors are not exactly those of `trained_keys`, in name and shape."""
        keys = self.trained_keys()
        check_state(state, {k: v for k, v in self.state_dict().items() if k in keys})

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Takes a checkpoint's tensors, after `check_trained`."""
        self.check_trained(state)
        self.load_state_dict(state, strict=False)  # what is frozen is not in it, and nothing else is missing

    def wording(self) -> dict[str, str]:
        """What a saved model must be asked in: the conversation and the version of its words; empty where there are none."""
        return {}

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Takes what statistics it needs from some training images; called once before the first step, never when resuming."""

    def score(self, image: Tensor, masks: Tensor, tasks: Sequence[Task] | None = None) -> list[RegionScores]:
        """Scores the regions of one image.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (R, H, W) bool, none empty.
            tasks: some of `self.tasks`; None for all.

        Returns:
            R mappings from task to answer, in the order of the masks.
        """
        if tasks is not None:
            self.check_tasks(tasks)
        return Look(self, image).score(masks, tasks) if len(masks) else []

    def answer_bytes(self, size: tuple[int, int], regions: int) -> int:
        """About the bytes that `answer` needs at most for so many regions of one image of `size` (height, width): their masks as drawn and
        in the model's size (as numbers too, level by level), and their crops with what a first convolution makes of them."""
        side, crop = self.preprocess.size, math.prod(crop_shape(self.crop_size))
        return regions * (5 * size[0] * size[1] // 2 + 16 * side**2 + 4 * 12 * crop)

    def graph(self) -> Graph:
        """This scorer as a function of tensors alone.

        Raises:
            ConfigError: it is no such function.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot be written as one graph: it asks and hears a language model word by word. Small scorers can "
            "(pooled_mlp, mobile_iqa, teacher_iqa); a language model's adapters are merged by prepare.py merge"
        )

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Raises ValueError for a task that this scorer cannot answer, and for a text in place of several."""
        if isinstance(tasks, str):
            raise ValueError(f"tasks: got {tasks!r}, expected a list of them; a single one stands in a list, too: [{tasks!r}]")
        for task in tasks:
            if task not in self.tasks:
                raise ValueError(f"task '{task}': {type(self).__name__} answers {', '.join(self.tasks)}")

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small, random instance for tests (64-pixel images)."""


class Look:
    """An image that a scorer has looked at: regions of it can be asked about again and again without encoding it anew.

    Args:
        image: (3, H, W) uint8 RGB.
        prepared: `prepare_image` of it, where that was done before.
    """

    def __init__(self, scorer: Scorer, image: Tensor, prepared: Tensor | None = None) -> None:
        self.scorer, self.image = scorer, image
        x = prepare_image(image, scorer.preprocess) if prepared is None else prepared
        nothing = prepare_regions(image, image.new_zeros(0, *image.shape[1:], dtype=torch.bool), scorer.preprocess, scorer.crop_size)
        batch = dataclasses.replace(stack([x], [nothing]), native=own_pixels([image], scorer.preprocess)).to(self._device)
        with _scoring(scorer):
            self._seen = scorer.look(batch)

    def score(self, masks: Tensor, tasks: Sequence[Task] | None = None) -> list[RegionScores]:
        """As `Scorer.score`. All regions are read together: for very many of them, ask in parts."""
        tasks = self.scorer.tasks if tasks is None else tasks
        self.scorer.check_tasks(tasks)
        if not len(masks):
            return []
        return self.answer(prepare_regions(self.image, masks, self.scorer.preprocess, self.scorer.crop_size), tasks)

    def answer(self, regions: Regions, tasks: Sequence[Task] = TASKS) -> list[RegionScores]:
        """As `score`, of regions as `prepare_regions` makes them, one at least."""
        self.scorer.check_tasks(tasks)
        with _scoring(self.scorer):
            return self.scorer.answer(self._seen, stack_regions([regions]).to(self._device), tasks)[0]

    @property
    def _device(self) -> torch.device:
        return next(self.scorer.parameters()).device


@contextmanager
def _scoring(scorer: Scorer) -> Iterator[None]:
    """Eval mode for as long as it lasts, and no gradient."""
    if not any(module.training for module in scorer.modules()):  # as everywhere but in the midst of training
        with torch.no_grad():
            yield
        return
    training = scorer.training
    try:
        scorer.eval()
        with torch.no_grad():
            yield
    finally:
        scorer.train(training)


def _frozen(part: nn.Module) -> dict[str, str] | None:
    frozen = {name: p for name, p in part.named_parameters() if not p.requires_grad}
    if not frozen:
        return None
    return {"model": type(part).__name__ if getattr(part, "has_weights", True) else RANDOM, "weights": fingerprint(frozen)}


def check_state(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a checkpoint's tensors are not exactly those that the model would train."""
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    shapes = [
        f"{k}: {tuple(given[k].shape)}, not {tuple(wanted[k].shape)}" for k in wanted if k in given and given[k].shape != wanted[k].shape
    ]
    problems = [
        f"{len(x)} {what} (first: {x[0]})" for what, x in (("missing", missing), ("unexpected", extra), ("of another shape", shapes)) if x
    ]
    if problems:
        raise ValueError(
            f"this checkpoint is of another architecture: tensors {', '.join(problems)}. "
            "Use the configuration it was trained with (config.yaml beside its folder)"
        )


SCORERS: Registry[Scorer] = Registry("scorer", __package__, Scorer)
