"""What is timed: answers about regions, after a first batch that does not count, and nothing else."""

from types import SimpleNamespace

import pytest
import torch

from components.batch import Batch, Regions
from components.tasks import RoiScore
from inference import stopwatch
from inference.stopwatch import Stopwatch
from inference.table import score_table

COUNTS = (2, 3)  # regions of each image


class Slow:
    """Looks for 100 s the first time and for 1 s later; takes 0.25 s for a region, and 1,000 s for a whole image."""

    tasks = ("quality",)

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def eval(self):
        return self

    def look(self, batch):
        self.clock.now += 1 if self.calls else 100
        self.calls.append("look")
        return batch

    def answer(self, seen, regions, tasks):
        whole = bool(regions.masks.all())
        self.calls.append("whole" if whole else "regions")
        self.clock.now += 1000 if whole else 0.25 * int(regions.valid.sum())
        return [[{"quality": RoiScore("quality", 0.5)} for _ in row] for row in regions.valid]


def batch(count, whole):
    masks = torch.full((1, count, 4, 4), whole)
    regions = Regions(masks, torch.zeros(1, count, 3, 2, 2), torch.zeros(1, count, 4), torch.ones(1, count), torch.ones(1, count) > 0)
    return Batch(torch.zeros(1, 3, 4, 4), regions)


def score(monkeypatch, watch):
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(stopwatch, "time", clock)
    region = SimpleNamespace(id="r", quality=0.5, importance=None, distortions=None)
    samples = [SimpleNamespace(record=SimpleNamespace(id="i", source="s", regions=[region] * n)) for n in COUNTS]
    scorer = Slow(clock)
    table = score_table(scorer, samples, [batch(n, False) for n in COUNTS], [batch(1, True) for _ in COUNTS], watch=watch)
    return table, scorer.calls


def test_time_is_that_of_looking_and_answering_about_regions(monkeypatch):
    watch = Stopwatch()
    table, calls = score(monkeypatch, watch)
    assert calls == ["look", "regions", *["look", "regions", "whole"] * 2]
    assert (watch.regions, len(table)) == (5, 5)
    assert watch.seconds == pytest.approx(2 + 5 * 0.25)
    assert watch.ms_per_region == pytest.approx(650)


def test_nothing_is_scored_twice_where_nobody_asks_for_the_time(monkeypatch):
    timed, _ = score(monkeypatch, Stopwatch())
    table, calls = score(monkeypatch, None)
    assert calls == ["look", "regions", "whole"] * 2
    assert table.equals(timed)


def test_no_regions_have_no_time():
    assert Stopwatch().ms_per_region is None
