"""Processes of this machine that work beside the program: how they start, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any


def context(module: str) -> BaseContext:
    """Not a fork of this process: threads of PyTorch and OpenMP do not survive one, and their locks may be held. A server that has imported
    `module`, and runs no thread, is forked in its place; where there is no such thing, workers start from nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([module])
    return made


@contextmanager
def program_left_out() -> Iterator[None]:
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


def end_with_parent() -> None:
    """A worker's first act: it ends with its parent, also where the parent is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def cores() -> int:
    """Those that this process may use, which a container or a scheduler may have bounded."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
