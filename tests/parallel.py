"""How the suite is divided: into whole files, so that what a file's tests share is made once, and the longest begin first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

WORKERS = 2  # by default: some tests start two trainings themselves
FEW = 3  # test files, for which a second process would cost more than it saves
LONGEST = (  # in this order; what comes last runs while the other process has nothing left to do
    "tests/test_train.py",
    "tests/lightning_modules/test_resume.py",
    "tests/lightning_modules/test_strategy.py",
    "tests/lightning_modules/test_ranks.py",
    "tests/lightning_modules/test_memory_doc.py",
    "tests/test_benchmark_variants.py",
    "tests/inference/test_merged.py",
    "tests/test_readme.py",
)


def workers(asked: Sequence[str], cores: int) -> int:
    """How many processes are to run the tests that the command line names (files, folders, `file::test`); 0 for pytest's own."""
    paths = {Path(a.partition("::")[0]) for a in asked}
    files = sum(len(list(p.rglob("test_*.py"))) if p.is_dir() else 1 for p in paths)
    return 0 if files <= FEW or cores < WORKERS else WORKERS


def threads(cores: int, processes: int) -> int:
    """Of each process, so that together they do not ask for more than there is."""
    return max(1, cores // processes)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(path: str) -> int:
    """Of a file in the order of running; those that are not among the longest stay as they are, after them."""
    return LONGEST.index(path) if path in LONGEST else len(LONGEST)
