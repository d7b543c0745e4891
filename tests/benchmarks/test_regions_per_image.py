"""The benchmark at a tiny size: what it calls the same is told from other answers."""

import importlib.util

import torch

from components.scorers.base import SCORERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("regions_per_image", ROOT / "benchmarks" / "regions_per_image.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


def test_the_same_answers_are_answers_that_differ(capsys):
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}).eval()
    image, masks = benchmark.photograph(5, side=64)
    benchmark.tell_apart(scorer, image, masks)
    rows = benchmark.compare(scorer, image, masks, (1, 5), looped=5)
    assert [row["ratio"] > 0 for row in rows] == [True] * 2
    for row in rows:
        assert row["same"]
        assert row["apart"] < 1e-5 < 1e-3 < row["spread"]
        assert row["texts"] > 1
    said = capsys.readouterr().out
    assert f"5 regions: scores spread over {rows[0]['spread']:.2f} at least, {rows[0]['texts']} distinct texts" in said
    assert "distortions equal" in said


def test_answers_about_other_regions_are_not_the_same():
    torch.manual_seed(0)
    scorer = SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}).eval()
    image, masks = benchmark.photograph(5, side=64)
    benchmark.tell_apart(scorer, image, masks)
    score = scorer.score
    scorer.score = lambda image, masks, *tasks: score(image, masks.flip(0), *tasks)
    (row,) = benchmark.compare(scorer, image, masks, (5,), looped=5)
    assert not row["same"]
    assert row["apart"] > 1e-3
