"""Shards side by side in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

from components.registry import ConfigError
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
        workers = min(self.workers or _cores(), len(shards))
        pool = ProcessPoolExecutor(workers, _context(work), _hold, (work,))
        running: dict[Future[Made], int] = {}
        waiting = iter(shards)
        try:
            while True:
                for shard in waiting:
                    with _program_left_out():
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


def _context(work: Work) -> BaseContext:
    """Not a fork of this process: threads of PyTorch and OpenMP do not survive one, and their locks may be held. A server that has imported
    what is needed, and runs no thread, is forked in its place; where there is no such thing, workers start from nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(work).__module__])
    return context


@contextmanager
def _program_left_out() -> Iterator[None]:
    """Workers started meanwhile do not import the program that runs. They need nothing of it, it may be slow to import, and a script that
    makes data at its top level would make it again in each of them."""
    main: dict[str, Any] = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(kept)


def _cores() -> int:
    """Those that this process may use, which a container or a scheduler may have bounded."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_held: list[Work] = []


def _hold(work: Work) -> None:
    """A worker's first act: it keeps the job, and ends with its parent, also where the parent was killed."""
    _held[:] = [work]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(shard: int) -> Made:
    return make_held(_held[0], shard)
