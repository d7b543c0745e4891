"""Pictures drawn beside the scoring: the same files in the same order, each there before its image is given out, and no error lost."""

import dataclasses
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
    for n, (one, drawn) in enumerate(found.of(map(seen, range(5)))):
        assert one.request.name == f"{n}.png"
        assert all(files[f"{n}.png"].exists() == (n != 3) for files in places.values())
        assert drawn.error.startswith("3.png: its overlay could not be drawn: ") == (n == 3)
        assert drawn.sorts == (() if n == 3 else ("overlay",))
    assert (n, found.undrawn, found.drawn) == (4, 1, {"overlay": 4})
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


def test_a_picture_that_fails_costs_no_other(tmp_path, monkeypatch):
    drawn, errors = [], {}

    def fails(sort):
        def drawing(seen, path, tasks):
            if sort in errors:
                raise errors[sort]
            drawn.append((sort, path))
            return True

        return drawing

    for sort in ("overlay", "map"):
        monkeypatch.setattr(pictures, f"_{sort}", fails(sort))
    found = Pictures({sort: {"1.png": tmp_path / sort} for sort in ("overlay", "map")}, TASKS)
    errors["overlay"] = ValueError("too long")
    ((_, first),) = found.of([seen(1)])
    assert (first.sorts, first.error) == (("map",), "1.png: its overlay could not be drawn: ValueError: too long")
    errors["map"] = OSError("full")
    ((_, second),) = found.of([seen(1)])
    told = "1.png: its overlay could not be drawn: ValueError: too long; its map could not be drawn: OSError: full"
    assert (second.sorts, second.error, second.trace.count("Traceback")) == ((), told, 2)
    assert (found.undrawn, found.drawn, drawn) == (2, {"map": 1}, [("map", tmp_path / "map")])


def test_nothing_to_draw_is_not_drawn(tmp_path):
    one = seen(1)
    asked = Seen(one.request, (dataclasses.replace(one.rows[0], kind="box"),), one.image, one.codes)
    lost = Seen(one.request, (Row("1.png", "a", "box", error="empty"),))
    found = Pictures({sort: {"1.png": tmp_path / sort / "1.png"} for sort in ("overlay", "map")}, TASKS)
    assert [drawn.sorts for _, drawn in found.of([asked, lost])] == [("overlay",), ()]
    assert found.undrawn == 0


def test_a_process_that_draws_does_without_pytorch_and_at_the_models_priority():
    module = pictures.__name__
    program = (
        f"import os, sys, {module}; before = os.nice(0); {module}.end_with_parent = int; {module}._begin(); "
        "sys.exit('torch' in sys.modules or os.nice(0) != before)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (3, 1), (4, 2), (64, 2)])
def test_processes_by_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(pictures, "cores", lambda: cores)
    assert drawers(FEW) == expected
    assert drawers(FEW - 1) == 0
