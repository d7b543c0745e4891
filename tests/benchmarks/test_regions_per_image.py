"""The benchmark at a tiny size: what it calls the same is told from other answers."""

import importlib.util

import pytest
import torch

from components.scorers.base import SCORERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("regions_per_image", ROOT / "benchmarks" / "regions_per_image.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_the_same_answers_are_answers_that_differ(capsys):
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}).eval()
    image, masks = benchmark.photograph(12, side=64)
    benchmark.tell_apart(scorer, image, masks)
    rows = benchmark.compare(scorer, image, masks, (1, 5, 9), benchmark.chosen(scorer, image, masks, 5))
    assert [row["ratio"] > 0 for row in rows] == [True] * 3
    for row in rows:
        assert row["same"]
        assert row["apart"] < 1e-5 < 1e-3 < row["gap"]
        assert row["texts"] > 1
    said = capsys.readouterr().out
    assert f"quality of two of its 5 regions differs by {rows[0]['gap']:.1e} at least" in said
    assert "distortions equal" in said


@pytest.mark.parametrize("swapped", [(0, 4), (2, 3)])
def test_answers_about_other_regions_are_not_the_same(swapped):
    """Also where two regions alone are mixed up, whichever they are."""
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}).eval()
    image, masks = benchmark.photograph(5, side=64)
    benchmark.tell_apart(scorer, image, masks)
    looped = benchmark.chosen(scorer, image, masks, 5)
    score, order = scorer.score, torch.arange(5)
    order[list(swapped)] = order[list(swapped[::-1])]
    scorer.score = lambda image, masks, *tasks: score(image, masks[order] if len(masks) == 5 else masks, *tasks)
    (row,) = benchmark.compare(scorer, image, masks, (5,), looped)
    assert not row["same"]
    assert row["apart"] > 1e-3
