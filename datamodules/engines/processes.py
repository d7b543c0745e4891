"""Shards side by side in processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from components.registry import ConfigError
from datamodules.apart import context, cores, end_with_parent, program_left_out
from datamodules.engines.base import ENGINES, Engine, EngineError, Made, Work, make_held

AHEAD = 2  # shards handed out per worker: one being made, one waiting


@ENGINES.register("processes")
class Processes(Engine):
    """One process per core, each on one thread.

    Args:
        workers: how many processes; 0 for as many as there are cores to run on.

    Raises:
        ConfigError: fewer than 0.
    """

    def __init__(self, *, workers: int = 0) -> None:
        if workers < 0:
            raise ConfigError(f"processes: workers is a number of processes, 0 for one per core, got {workers}")
        self.workers = workers

    def run(self, work: Work, shards: Sequence[int]) -> Iterator[tuple[int, Made]]:
        if not shards:
            return
        workers = min(self.workers or cores(), len(shards))
        pool = ProcessPoolExecutor(workers, context(type(work).__module__), _hold, (work,))
        running: dict[Future[Made], int] = {}
        waiting = iter(shards)
        try:
            while True:
                for shard in waiting:
                    with program_left_out():
                        running[pool.submit(_make, shard)] = shard
                    if len(running) >= AHEAD * workers:
                        break
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()
        except BrokenProcessPool as error:
            raise EngineError(
                f"one of {workers} processes was killed, most often for want of memory: what is finished is kept, give the same line again "
                "with fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"workers": 2}


_held: list[Work] = []


def _hold(work: Work) -> None:
    """A worker's first act: it keeps the job, and ends with its parent, also where the parent was killed."""
    _held[:] = [work]
    end_with_parent()


def _make(shard: int) -> Made:
    return make_held(_held[0], shard)
