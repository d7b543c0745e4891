"""Pictures drawn beside the scoring: the same files in the same order, each there before its image is given out, and no error lost."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from components import rle
from components.tasks import RoiScore
from datamodules.engines.base import EngineError
from inference import pictures
from inference.pictures import FEW, Pictures, drawers
from inference.requests import Request
from inference.rows import Row, Seen
from tests.conftest import ROOT

TASKS = ("quality",)


def seen(n):
    image = np.full((60, 80, 3), 40 * n, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20 + n : 50] = True
    row = Row(f"{n}.png", "proposed 1", "proposed", (20 + n, 10, 30 - n, 30), 0.1, {"quality": RoiScore("quality", n / 5)})
    return Seen(Request(f"{n}.png", Path(f"{n}.png"), ()), (row,), image, (rle.encode(mask),))


def placed(folder, bad=None):
    """The place of image `bad` lies below a file, so that nothing can be written there."""
    folder.mkdir()
    (folder / "file").touch()
    return {"overlay": {f"{n}.png": folder / ("file" if n == bad else "there") / f"{n}.png" for n in range(5)}}


@pytest.mark.parametrize("workers", [0, 1])
def test_each_is_there_before_its_image_is_given_out(tmp_path, workers):
    places = placed(tmp_path / "drawn", bad=3)
    found = Pictures(places, TASKS, workers)
    for n, (one, error) in enumerate(found.of(map(seen, range(5)))):
        assert one.request.name == f"{n}.png"
        assert all(files[f"{n}.png"].exists() == (n != 3) for files in places.values())
        assert ("3.png: its picture could not be drawn: " in error) == (n == 3)
    assert (n, found.undrawn) == (4, 1)
    alone = placed(tmp_path / "alone")
    list(Pictures(alone, TASKS).of(map(seen, range(5))))
    for sort, files in alone.items():
        for n in (0, 1, 2, 4):
            assert np.array_equal(PIL.Image.open(files[f"{n}.png"]), PIL.Image.open(places[sort][f"{n}.png"]))


def test_a_killed_process_is_noticed(tmp_path):
    def killing():
        for n in range(5):
            if n == 2:
                for child in multiprocessing.active_children():
                    os.kill(child.pid, signal.SIGKILL)
            yield seen(n)

    with pytest.raises(EngineError, match=r"one of 1 processes that draw pictures was killed.*give the same line again"):
        list(Pictures(placed(tmp_path / "drawn"), TASKS, 1).of(killing()))


def test_a_process_that_draws_does_without_pytorch():
    program = f"import sys, {pictures.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (3, 1), (4, 2), (64, 2)])
def test_processes_by_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(pictures, "cores", lambda: cores)
    assert drawers(FEW) == expected
    assert drawers(FEW - 1) == 0
