"""Shared by all tests: one seed, no network, small models, and as many threads as cores, over all processes that run tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from tests.parallel import cores, place, threads, workers

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # read when torch is imported, and by the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(cores(), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))

import pytest
import torch

ROOT = Path(__file__).parent.parent
FIGURES = 20  # of a report, in two themes, there are fewer


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`, which setup.cfg asks for."""
    return workers(config.args, cores())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: place(item.nodeid.partition("::")[0]))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def few_pictures() -> Iterator[None]:
    """Of a test file's reports the figures of the first are drawn, at an eighth of their size, and a blank stands for those of the others,
    which are of the same making: drawing them takes two thirds of a run of seconds. `tests/evaluation` draws them whole."""
    from matplotlib.figure import Figure

    from evaluation import plots

    drawn, draw, blank = itertools.count(), plots.png, plots.png(Figure(figsize=(1, 1)))
    with pytest.MonkeyPatch.context() as here:
        here.setattr(plots, "png", lambda figure: draw(figure, scale=0.25) if next(drawn) < FIGURES else blank)
        yield


@pytest.fixture
def root() -> Path:
    """The repository's root."""
    return ROOT
