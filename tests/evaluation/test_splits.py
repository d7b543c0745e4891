import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr

from evaluation.splits import Splits, draw_splits, over_splits, read_splits


@pytest.fixture(scope="module")
def rows():
    """Ten sources of thirty regions, whose labels are a logistic of the predictions, with noise."""
    rng = np.random.default_rng(0)
    pred = rng.random(300)
    label = expit(10 * (pred - 0.5)) + 0.05 * rng.normal(size=300)
    return pd.DataFrame({"source": [f"s{i // 30}" for i in range(300)], "quality_pred": pred, "quality": label})


def test_whole_sources_are_held_out_and_the_same_seed_holds_out_the_same():
    splits = draw_splits([f"s{i % 10}" for i in range(50)], seed=3)
    assert len(splits.held_out) == 10
    assert {len(h) for h in splits.held_out} == {5}
    assert len(set(splits.held_out)) > 5
    assert all(set(h) < set(splits.sources) for h in splits.held_out)
    assert splits == draw_splits(reversed(splits.sources), seed=3)
    assert splits.hash != draw_splits(splits.sources, seed=4).hash
    assert {len(h) for h in draw_splits(splits.sources, share=0.2).held_out} == {2}
    assert {len(h) for h in draw_splits("abcd", share=0.99).held_out} == {3}


def test_a_file_gives_the_same_splits(tmp_path):
    splits = draw_splits("abcdef")
    (tmp_path / "splits.json").write_text(splits.to_json())
    assert read_splits(tmp_path / "splits.json") == splits


def test_the_medians_by_hand(rows):
    splits = draw_splits(rows["source"], repeats=3)
    found = over_splits(rows, "quality", splits)
    parts = [rows[rows["source"].isin(h)] for h in splits.held_out]
    assert found["srcc"] == pytest.approx(sorted(spearmanr(p["quality_pred"], p["quality"]).statistic for p in parts)[1])
    assert found["plcc"] == pytest.approx(sorted(pearsonr(p["quality_pred"], p["quality"]).statistic for p in parts)[1])
    assert found["plcc_fitted"] > found["plcc"]
    assert (found["failed_fits"], found["repeats"]) == (0, 3)


def test_the_logistic_never_sees_what_it_is_judged_on(rows):
    """Sources that are held out are inverted: the fit comes from the others, and so the correlation stays negative."""
    splits = draw_splits(rows["source"], repeats=1)
    held = rows["source"].isin(splits.held_out[0])
    found = over_splits(rows.assign(quality=rows["quality"].where(~held, -rows["quality"])), "quality", splits)
    assert found["plcc_fitted"] < -0.9


def test_a_number_that_does_not_exist_is_left_out_and_counted(rows):
    constant = over_splits(rows.assign(quality_pred=0.5), "quality", draw_splits(rows["source"], repeats=2))
    assert math.isnan(constant["srcc"])
    assert math.isnan(constant["plcc_fitted"])
    assert constant["failed_fits"] == 2


@pytest.mark.parametrize(("sources", "options"), [("abc", {}), ("abcd", {"repeats": 0}), ("abcd", {"share": 1.0})])
def test_splits_that_cannot_be_drawn_are_refused(sources, options):
    with pytest.raises(ValueError, match="needed are at least one split, 4 sources"):
        draw_splits(sources, **options)


def test_sources_that_the_splits_do_not_know_are_refused(rows):
    with pytest.raises(ValueError, match="10 sources are not in the splits, the first is 's0'"):
        over_splits(rows, "quality", draw_splits("abcd"))


def test_a_file_that_was_changed_or_is_another_is_refused(tmp_path):
    path = tmp_path / "splits.json"
    told = json.loads(draw_splits("abcdef").to_json())
    path.write_text(json.dumps({**told, "held_out": told["held_out"][1:]}))
    with pytest.raises(ValueError, match="it was changed; fetch it again"):
        read_splits(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no file of splits"):
        read_splits(path)
    everything = {**told, "held_out": [told["sources"]]}
    path.write_text(json.dumps({**everything, "hash": _hash(everything)}))
    with pytest.raises(ValueError, match="every source, or none"):
        read_splits(path)


def _hash(told):
    return Splits(tuple(told["sources"]), tuple(tuple(h) for h in told["held_out"]), 0).hash
