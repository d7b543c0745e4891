"""The seam to pyiqa, with a stand-in: what it is asked, how its numbers become scores, and what is refused."""

import sys

import pytest
import torch

from components.batch import join
from components.registry import ConfigError
from components.scorers.base import SCORERS
from tests.components.scorers.samples import labelled, picture
from train import sizes


def build(**options):
    return SCORERS.build({"plugin": "pyiqa", "crop_size": 16, **options})


def test_nothing_is_fetched_before_it_is_needed(pyiqa_measures):
    scorer = build(metric="musiq")
    assert pyiqa_measures.asked == []
    scorer.score(*picture(1))
    scorer.score(*picture(2))
    assert pyiqa_measures.asked == [("musiq", "cpu")]


def test_it_answers_about_quality_alone():
    scorer = build()
    assert scorer.tasks == ("quality",)
    with pytest.raises(ValueError, match="PyIQA answers quality"):
        scorer.score(*picture(1), ["importance"])


@pytest.mark.parametrize("lower", [False, True])
def test_calibrated_numbers_keep_their_order_or_turn_it(pyiqa_measures, monkeypatch, lower):
    monkeypatch.setattr(pyiqa_measures.measure, "lower_better", lower)
    scorer = build()
    scorer.calibrate([labelled(scorer)])
    crops = torch.rand(20, 3, 16, 16) * torch.linspace(0.1, 1, 20)[:, None, None, None]
    raw, rated = scorer.measured(crops), scorer.rate(crops).detach()
    assert torch.equal(rated.argsort(descending=lower), raw.argsort())
    assert torch.all((rated > 0) & (rated < 1))


def test_the_mean_region_scores_a_half():
    scorer = build()
    batch = labelled(scorer)
    scorer.calibrate([batch])
    values = scorer.measured(batch.regions.crops.flatten(0, 1)[batch.regions.valid.flatten()])
    assert scorer.calibration(values.mean()).item() == pytest.approx(0.5)
    assert scorer.calibration(values.mean() + values.std(correction=0)).item() == pytest.approx(torch.tensor(1.0).sigmoid().item())
    scorer.calibrate([join([batch])])  # a second look at the same changes nothing
    assert scorer.calibration(values.mean()).item() == pytest.approx(0.5)


def test_the_measure_is_neither_trained_nor_saved(pyiqa_measures):
    scorer = build()
    scorer.load_pretrained()
    assert {n for n, _ in scorer.named_parameters()} == {"calibration.slope", "calibration.offset"}
    assert set(scorer.state_dict()) == {f"calibration.{n}" for n in ("slope", "offset", "mean", "spread")}
    told = scorer.foundations()["metric"]
    assert told["model"] == "pyiqa's topiq_nr"
    assert told["weights"] == build().foundations()["metric"]["weights"]


def test_what_the_measure_weighs_is_counted(pyiqa_measures):
    """It is no part, since it is neither trained nor saved; a table of costs has it all the same."""
    scorer = build()
    assert sizes(scorer) == {"calibration": {"parameters": 2, "trainable": 2}}  # nothing is fetched for the sake of a number
    scorer.load_pretrained()
    assert sizes(scorer) == {"calibration": {"parameters": 2, "trainable": 2}, "metric": {"parameters": 3, "trainable": 0}}


def test_errors(pyiqa_measures, monkeypatch):
    with pytest.raises(ConfigError, match="crop_size is at least 1 pixel, got 0"):
        build(crop_size=0)
    monkeypatch.setattr(pyiqa_measures.measure, "metric_mode", "FR")
    with pytest.raises(ConfigError, match="'lpips' compares with a reference"):
        build(metric="lpips").load_pretrained()


def test_a_calibration_on_nothing_or_on_no_numbers_is_refused(monkeypatch):
    scorer = build()
    batch = labelled(scorer)
    monkeypatch.setattr(scorer, "measured", lambda crops: torch.full((len(crops),), torch.nan))
    with pytest.raises(ValueError, match=r"topiq_nr gives no finite number for 5 of 5 training regions.*a larger crop_size than 16"):
        scorer.calibrate([batch])
    batch.regions.valid[:] = False
    with pytest.raises(ValueError, match="no training regions to calibrate topiq_nr on"):
        scorer.calibrate([batch])


def test_without_pyiqa_the_remedy_and_the_licence_are_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyiqa")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not for commercial use .*pip install pyiqa"):
        build()
