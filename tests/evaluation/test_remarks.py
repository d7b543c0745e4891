import re
from dataclasses import replace

import numpy as np
import pytest

from evaluation import comparison, ranking, remarks
from evaluation.entries import Entry

RNG = np.random.default_rng(0)


@pytest.fixture
def mean(answers):
    """The mean of the labels of each image, with what a model's arithmetic may add."""
    return answers.groupby("image")["quality"].transform("mean") + 1e-6 * RNG.normal(size=len(answers))


def notes(table, **changed):
    """Of a comparison, without those of splits, and these alone."""
    table = table.assign(quality_parsed=True, **changed)
    found = comparison.judge([Entry("m", table), Entry("other", table.assign(quality_pred=table["quality"]))], draws=5)[0]["notes"]
    return [n for n in found if " splits " not in n], [n for n in found if " splits " in n]


def test_who_gives_all_regions_of_an_image_one_score_is_pointed_out(answers, mean):
    line = "quality: m gives all regions of an image one score: it does not look at the region"
    assert notes(answers, quality_pred=mean)[0] == [line]
    assert notes(answers, quality_pred=1000 * mean)[0] == [line]
    assert notes(answers, quality_pred=mean + 0.05 * RNG.random(48))[0] == []
    (collapsed,) = notes(answers, quality_pred=0.5)[0]
    assert "does not look" not in collapsed
    assert notes(answers, quality_pred=mean, image=answers["id"])[0] == []


def test_who_does_as_well_without_the_region_is_pointed_out(answers):
    """Its control's order is its own or a better one, and within images there is none."""
    found = {"srcc": 0.5121, "whole_image": 0.5119, "intervals": {"within_image_srcc": {"low": -0.1, "high": 0.2}}}
    rows = {"m": answers.dropna(subset="quality_pred")}

    def told(**changed):
        return remarks.blind({"m": {"quality": found | changed}}, rows, "quality")

    (line,) = told()
    assert line.startswith(
        "quality: m does as well where it is shown the whole image (SRCC 0.512, and 0.512 of the region), and its order within"
    )
    assert told(whole_image=0.6)
    assert told(whole_image=0.511) == told(whole_image=None) == []
    for low, high in ((0.01, 0.2), (float("nan"), float("nan"))):
        assert told(intervals={"within_image_srcc": {"low": low, "high": high}}) == []
    assert told(intervals={}) == []


@pytest.mark.parametrize(("low", "said"), [(-0.003, True), (0.004, False)])
def test_a_gain_over_the_control_that_is_not_told_from_chance_is_none(answers, low, said):
    intervals = {"within_image_srcc": {"low": -0.11, "high": 0.06}, "over_whole_image": {"low": low, "high": 0.023}}
    found = {"srcc": 0.757, "whole_image": 0.749, "intervals": intervals}
    told = remarks.blind({"m": {"quality": found}}, {"m": answers.dropna(subset="quality_pred")}, "quality")
    assert bool(told) is said
    if said:
        assert "m is not told from chance to do better than where it is shown the whole image (SRCC 0.749, and 0.757 of" in told[0]
    intervals["within_image_srcc"]["low"] = 0.01
    assert remarks.blind({"m": {"quality": found}}, {"m": answers.dropna(subset="quality_pred")}, "quality") == []


def test_a_model_of_one_answer_is_told_and_its_pairs_have_no_interval(answers):
    table = answers.assign(quality_parsed=True, quality_pred=0.5)
    entries = [Entry("m", table), Entry("other", table.assign(quality_pred=table["quality"]))]
    found = comparison.judge(entries, draws=5)[0]
    n = found["judged"]["quality"]
    assert f"quality: m gives all {n} regions the same score: it orders nothing, and half of its pairs count as right" in found["notes"]
    own, other = (found["models"][name]["quality"] for name in ("m", "other"))
    assert own["pair_accuracy"] == 0.5
    assert not {"pair_accuracy", "within_image_srcc"} & set(own["intervals"])
    assert {"pair_accuracy", "within_image_srcc"} <= set(other["intervals"])
    lines = [d for d in ranking.dashes(found["models"], ["quality"]) if "interval of share of pairs" in d]
    assert len(lines) == 1
    assert lines[0].endswith(f"for m, since all {n} predictions are the same")


def test_a_model_alone_is_looked_at_too(answers, mean):
    entry = Entry("m", answers.assign(quality_pred=mean, quality_parsed=True))
    found = comparison.judge([replace(entry, name="alone")], draws=2)[0]["notes"]
    assert [n for n in found if n.startswith("quality: alone gives all regions")]


def test_splits_without_a_fit_are_told(answers):
    """Of a median of five the reader sees that it is not of ten; of none there is a dash, which is explained elsewhere."""
    counts = {"a": 5, "b": 5, "c": 1, "d": 0, "e": 10}
    models = {n: {"quality": {"splits": {"failed_fits": k, "repeats": 10}}} for n, k in counts.items()} | {"f": {"quality": {}}, "g": {}}
    assert remarks.failed_fits(models, "quality") == [
        "quality: in 1 of 10 splits there is no fitted PLCC of c, and the median is that of the others",
        "quality: in 5 of 10 splits there is no fitted PLCC of a, b, and the median is that of the others",
    ]
    falling = np.where(
        answers["source"] < "source-2", answers["quality"], 1 - answers["quality"]
    )  # some halves fall, and have no rising fit
    _, (line,) = notes(answers, quality_pred=falling)
    assert re.fullmatch("quality: in [1-9] of 10 splits there is no fitted PLCC of m, and the median is that of the others", line)
