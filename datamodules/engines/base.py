"""The contract of an engine, and of the work that it does: shards, each a pure function of the job and the shard's number."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from components.registry import Registry


@dataclass(frozen=True)
class Made:
    """What became of a shard.

    Attributes:
        images, regions: how many were written.
        skipped: {"name", "images", "why"} of what could not be used.
        seconds: spent in each stage of the work, by its name.
    """

    images: int
    regions: int
    skipped: tuple[dict[str, Any], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


class Clock(dict[str, float]):
    """Seconds spent, by stage: `with clock("decoding"): ...`."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + time.perf_counter() - start


class Work(ABC):
    """A job in shards. It travels to other processes, so it can be pickled; what is heavy is read by `get_ready`, there.

    Attributes:
        key: names the job: two jobs of one key make the same bytes.
        libraries: distributions whose versions show in the bytes.
    """

    key: str
    libraries: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many shards there are."""

    @abstractmethod
    def images(self, shard: int) -> int:
        """How many images the shard stands for, whether they can be made or not."""

    @abstractmethod
    def is_done(self, shard: int) -> bool:
        """Whether the shard's files are there, whole."""

    def get_ready(self) -> None:
        """Reads what `make` needs; called once in each process that makes shards."""

    @abstractmethod
    def make(self, shard: int) -> Made:
        """Makes the shard and writes it. The files depend on the job and the number alone, and `is_done` once all of them are there."""


def surroundings(libraries: Sequence[str]) -> dict[str, str]:
    """What the bytes that this process makes may hang on, beside the job: versions, the sort of processor, and the project's own code."""
    found = {"python": platform.python_version(), "processor": platform.machine(), "the project's code": _code()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@functools.cache
def _code() -> str:
    """Changes with any module of those that make data."""
    mark, root = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(path for folder in ("components", "datamodules") for path in (root / folder).rglob("*.py")):
        mark.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return mark.hexdigest()[:12]


class EngineError(RuntimeError):
    """An engine cannot go on, through no fault of a shard: it is not there, or a process of it was lost. What is finished is finished."""


class Engine(ABC):
    """Does the shards of a job somewhere, in any order. What is written does not depend on the engine or its options."""

    @abstractmethod
    def run(self, work: Work, shards: Sequence[int]) -> Iterator[tuple[int, Made]]:
        """Each shard with what became of it, as they end. An error of a shard is raised, and those that wait are given up.

        Raises:
            EngineError: the engine is not there, or lost a process.
        """

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options for tests."""


ENGINES: Registry[Engine] = Registry("engine", __package__, Engine)

_ready: dict[str, Work] = {}  # in a worker process: the job it holds, by key


def make_held(work: Work, shard: int) -> Made:
    """`work.make(shard)` on one thread, with the copy of the job that this process got ready when it first met it."""
    if work.key not in _ready:
        _ready.clear()
        with one_thread():
            work.get_ready()
        _ready[work.key] = work
    with one_thread():
        return _ready[work.key].make(shard)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, BLAS and OpenMP on one thread: shards are what runs side by side, and how a product is split among threads shows in
    its last bits."""
    import torch  # here, for what an entry must know of engines it does without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
