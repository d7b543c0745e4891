"""Requests and a scorer -> rows: one for each region, scored or with the reason why not."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components import rle
from components.batch import Regions
from components.mask_encoders.base import Code, Prompt
from components.mask_encoders.given import Given
from components.preprocess import crop_shape, prepare_image
from components.reading import AnswerError
from components.registry import ConfigError
from components.rle import RegionError
from components.tasks import Task
from datamodules.images import ImageError, load_image
from inference.engine import Engine
from inference.requests import Asked, Request
from inference.rows import Row, Seen

_LOG = logging.getLogger(__name__)
_EVERYWHERE = (ConfigError, ImportError)  # what fails for one image so will fail for each
_ASKED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which somebody says how many threads PyTorch takes
_MOST_READERS = 4  # each holds an image


@dataclass
class _Read:
    """A request that is ready for the model.

    Attributes:
        image: (H, W, 3) uint8, None where it could not be read.
        prepared: (3, S, S), as the model wants to see it.
        found: the regions that were meant, each with its run-length code or with what is wrong.
        first: the first of them, as many as are asked about at once; None from then on, so that the next take their room.
    """

    image: NDArray[np.uint8] | None
    prepared: Tensor | None
    found: tuple[tuple[Asked, dict[str, Any] | str], ...]
    first: Regions | None = None


class Predictor:
    """Scores requests. While the model works on one image, the next ones are decoded, segmented and prepared.

    An error of one image, whatever it is, becomes its rows; one that comes from how the model or the segmenter was set up is raised, and
    so is one that a GPU does not recover from.

    Args:
        engine: the model; its segmenter makes masks of points, and of whole images where regions are to be proposed.
        tasks: what is asked.
        segment_boxes: boxes, too, go through the segmenter; else they are taken as they are.
        readers: images that are made ready at a time; 0 makes each ready when it is its turn, None is `default_readers`.

    Attributes:
        answered: is called with the number of regions that have just been answered.

    Raises:
        ConfigError: a negative number of readers.
        ValueError: a task that the model cannot answer.
    """

    def __init__(self, engine: Engine, tasks: Sequence[Task], segment_boxes: bool = False, readers: int | None = None) -> None:
        engine.scorer.check_tasks(tasks)
        if readers is not None and readers < 0:
            raise ConfigError(f"readers: got {readers}, expected 0 (each image in its turn) or the number of those made ready at a time")
        self.engine, self.tasks = engine, tuple(tasks)
        self.readers = default_readers(next(engine.scorer.parameters()).device) if readers is None else readers
        self.answered: Callable[[int], object] = _unheard
        self._through_segmenter = {"point", "box"} if segment_boxes else {"point"}
        self._given = Given()
        self._ahead: dict[int, Future[_Read]] = {}  # by the request's identity

    def __call__(self, requests: Sequence[Request]) -> Iterator[Seen]:
        """One at a time, in their order. What is wrong with an image or a region is said in its rows and stops nothing else."""
        if not self.readers:
            yield from map(self.one, requests)
            return
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="reader")
        try:
            for at, request in enumerate(requests):
                for coming in requests[at : at + self.readers + 1]:
                    if id(coming) not in self._ahead:
                        self._ahead[id(coming)] = pool.submit(self._read, coming)
                yield self.one(request)
        finally:
            self._ahead.clear()
            pool.shutdown(wait=True, cancel_futures=True)

    def one(self, request: Request) -> Seen:
        """Scores the regions of one image."""
        ahead = self._ahead.pop(id(request), None)
        try:
            read = self._read(request) if ahead is None else ahead.result()
        except Exception as error:
            told = _unforeseen(request.name, error)
            return Seen(request, tuple(Row(request.name, asked.id, asked.kind, error=told) for asked in request.regions))
        scored, told = list[Row](), ""
        try:
            scored.extend(self._scored(request.name, read))  # what was answered before an error stays
        except Exception as error:
            told = str(error) if isinstance(error, AnswerError) else _unforeseen(request.name, error)
        answered, rows = iter(scored), list[Row]()
        for asked, code in read.found:
            row = None if isinstance(code, str) else next(answered, None)
            rows.append(row or Row(request.name, asked.id, asked.kind, error=code if isinstance(code, str) else told))
        codes = [code for _, code in read.found if not isinstance(code, str)]
        return Seen(request, tuple(rows), read.image, tuple(codes[: len(scored)]))

    def _read(self, request: Request) -> _Read:
        try:
            image = load_image(request.path)
        except ImageError as error:
            return _Read(None, None, tuple((asked, str(error)) for asked in request.regions))
        found = tuple(pair for asked in request.regions for pair in self._codes(image, asked))
        codes = [code for _, code in found if not isinstance(code, str)]
        if not codes:
            return _Read(image, None, found)
        prepared = prepare_image(torch.from_numpy(image).permute(2, 0, 1), self.engine.scorer.preprocess)
        return _Read(image, prepared, found, self._regions(image, codes[: self._at_once(image.shape[:2])]))

    def _codes(self, image: NDArray[np.uint8], asked: Asked) -> list[tuple[Asked, dict[str, Any] | str]]:
        """The regions that were meant, each with its run-length code or with what is wrong."""
        try:
            if asked.kind == "proposed":
                proposed = self.engine.propose(image)
                if not proposed:
                    return [(asked, "the mask encoder found no region in this image: take another one, or say where")]
                return [(dataclasses.replace(asked, id=f"{asked.id} {n}"), code) for n, code in enumerate(proposed, 1)]
            prompt: Prompt = asked.prompt(*image.shape[:2])
            make = self.engine.segment if asked.kind in self._through_segmenter else self._given.codes
            return [(asked, make(image, [prompt])[0])]
        except Exception as error:
            return [(asked, str(error) if isinstance(error, RegionError) else _unforeseen(f"{asked.id} of an image", error))]

    def _at_once(self, size: tuple[int, int]) -> int:
        """How many regions of an image of `size` (height, width) are asked about at once: with each reader as many may wait."""
        scorer = self.engine.scorer
        masks_and_crops = scorer.preprocess.size**2 + 3 * 4 * math.prod(crop_shape(scorer.crop_size))
        return self.engine.at_once(size, self.readers * masks_and_crops)

    def _regions(self, image: NDArray[np.uint8], codes: Sequence[Code]) -> Regions:
        """As the model wants to see them; no mask is made in the image's size."""
        return self.engine.prepare(image, codes)

    def _scored(self, name: str, read: _Read) -> Iterator[Row]:
        if read.image is None or read.prepared is None:
            return
        looked = self.engine.look(read.image, read.prepared)
        good = [(asked, code) for asked, code in read.found if not isinstance(code, str)]
        step = self._at_once(read.image.shape[:2])
        for at in range(0, len(good), step):
            part = good[at : at + step]
            regions, read.first = read.first, None
            if regions is None:
                regions = self._regions(read.image, [code for _, code in part])
            for (asked, code), answer in zip(part, self.engine.answer(looked, regions, self.tasks), strict=True):
                box, area = rle.measure(code)
                yield Row(name, asked.id, asked.kind, box, area / read.image[..., 0].size, answer, code=code)
            self.answered(len(part))
            del regions  # before the next are made


def default_readers(device: torch.device) -> int:
    """Images that are made ready while the model works: two beside a GPU. On a CPU readers take cores from the model, which is slower
    for it, so there are only as many, up to two, as cores that PyTorch leaves."""
    return 2 if device.type != "cpu" else max(0, min(2, _cores() - torch.get_num_threads()))


@contextmanager
def shared_cores(device: torch.device, images: int, readers: int | None = None) -> Iterator[int]:
    """How many images to make ready ahead. On a CPU of which PyTorch would take every core, because nobody told it otherwise, it takes
    fewer for as long as this lasts (`shares`): else the model would wait for each image to be decoded.

    Args:
        images: that are to be scored; beside a single one nothing is made ready.
        readers: what was asked for; PyTorch's threads then stay as they are.
    """
    threads = torch.get_num_threads()
    told = readers is not None or any(name in os.environ for name in _ASKED)
    if told or device.type != "cpu" or images < 2 or threads < _cores():
        yield default_readers(device) if readers is None else readers
        return
    fewer, ahead = shares(_cores())
    torch.set_num_threads(fewer)
    try:
        yield ahead
    finally:
        torch.set_num_threads(threads)


def shares(cores: int) -> tuple[int, int]:
    """Cores of a CPU -> threads of PyTorch, and readers: these have a quarter of the cores, one at least, and are one more than that,
    so that one decodes while another waits for the disk. A single core is not shared."""
    spare = max(1, cores // 4) if cores > 1 else 0
    return cores - spare, min(_MOST_READERS, spare + 1) if spare else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unheard(count: int) -> None:
    """Nobody wants to know."""


def _unforeseen(what: str, error: Exception) -> str:
    """What a row says of an error that has no words for people; the log has its traceback.

    Raises:
        Exception: `error` itself, where it is no fault of this image.
    """
    if isinstance(error, (*_EVERYWHERE, torch.AcceleratorError)):
        raise error
    _LOG.error("%s could not be scored", what, exc_info=error)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return f"{type(error).__name__}: {error}" + ("; a smaller --memory asks about fewer regions at once" if memory else "")
