"""Differences of every statistic: paired, corrected within their family, and better the right way round."""

import math

import numpy as np
import pandas as pd
import pytest

from evaluation.bootstrap import LEAST, SCALE, Sample, samples
from evaluation.comparison import CONTROL, judge, score_statistics
from evaluation.correlations import fit_logistic, krcc, plcc, rmse, srcc
from evaluation.differences import LEADING, families, leading, paired, untested
from evaluation.entries import Entry
from evaluation.protocols import pair_accuracy, within_image
from evaluation.weighted import rmse_of, srcc_of

OF_SCORES = {*SCALE} - {"macro_f1", "accuracy"}


def entries(sources, noise, regions=5, seed=0):
    """Models of quality alone, by their names: what is added to the labels has such a standard deviation."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"image-{k}" for k in range(sources)], regions)
    label = rng.random(len(names))
    rows = pd.DataFrame({"id": [f"region-{k}" for k in range(len(names))], "image": names, "source": names, "area": 0.1})
    rows = rows.assign(quality=label, importance=math.nan, types=None, severities=None, quality_parsed=True)
    return [Entry(n, rows.assign(quality_pred=np.clip(label + rng.normal(0, s, len(names)), 0, 1))) for n, s in noise.items()]


def found(*models, draws=5):
    """Statistic -> (first, second) -> the difference."""
    rows = judge(models, draws)[0]["differences"]
    return {key: {(d["first"], d["second"]): d for d in rows if d["statistic"] == key} for key in {d["statistic"]: None for d in rows}}


def numbers(rows, curve):
    """Each statistic of a score by the functions of a single run; the fitted PLCC keeps its curve."""
    pred, label = rows["quality_pred"], rows["quality"]
    pooled = {"srcc": srcc, "plcc": plcc, "krcc": krcc, "rmse": rmse}
    return {key: function(pred, label) for key, function in pooled.items()} | {
        "plcc_fitted": plcc(curve.predict(pred), label),
        "within_image_srcc": np.mean(within_image(rows, "quality")),
        "pair_accuracy": pair_accuracy(rows, "quality"),
    }


def test_a_difference_is_that_of_the_two_models_without_each_source():
    first, second = entries(14, {"a": 0.1, "b": 0.4})
    curves = [fit_logistic(e.table["quality_pred"], e.table["quality"]) for e in (first, second)]

    def apart(rows_of):
        one, two = (numbers(rows_of(e.table), c) for e, c in zip((first, second), curves, strict=True))
        return {key: one[key] - two[key] for key in one}

    without = [apart(lambda t, s=s: t[t["source"] != s]) for s in first.table["source"].unique()]
    own = found(first, second)
    assert set(own) == OF_SCORES
    for key, value in apart(lambda t: t).items():
        row = own[key]["a", "b"]
        assert row["estimate"] == pytest.approx(value)
        assert row["se"] == pytest.approx(np.std([w[key] for w in without]) * math.sqrt(13))
        assert row["low"] < value < row["high"]


def test_a_difference_is_that_of_the_same_draws():
    """Above 200 sources: drawn for each model alone by the same seed, they are those of the comparison; by another they are not."""
    first, second = entries(201, {"a": 0.2, "b": 0.4}, regions=3)
    own = found(first, second, draws=25)

    def values(entry, seed):
        _, by_model, sources = score_statistics({"m": entry.table}, "quality")
        return dict(zip(by_model["m"], samples(list(by_model["m"].values()), sources, 25, seed), strict=True))

    one, two, other = values(first, 0), values(second, 0), values(second, 1)
    for key in OF_SCORES:
        error = own[key]["a", "b"]["se"]
        assert error == pytest.approx(np.std(one[key].values[1:] - two[key].values[1:], ddof=1) * math.sqrt(201 / 200))
        assert error != pytest.approx(np.std(one[key].values[1:] - other[key].values[1:], ddof=1) * math.sqrt(201 / 200), rel=1e-3)


@pytest.mark.parametrize("order", ["good, poor, as poor", "as poor, poor, good"])
def test_a_better_model_is_ahead_in_everything(order):
    models = {e.name: e for e in entries(40, {"good": 0.1, "poor": 0.4, "as poor": 0.4})}
    own = found(*(models[name] for name in order.split(", ")))
    assert set(own) == OF_SCORES
    for key, by_pair in own.items():
        for pair, row in by_pair.items():
            assert row["ahead"] == ("good" if "good" in pair else None), key
            assert (row["low"] <= 0 <= row["high"]) == ("good" not in pair)


@pytest.mark.parametrize(("first", "second", "apart"), [(0.1, -0.2, -0.1), (-0.2, 0.1, 0.1)])
def test_the_smaller_rmse_is_ahead(first, second, apart):
    """All are off by as much, so that each RMSE is known, and the order of all is perfect."""
    label = np.linspace(0.3, 0.8, 180)
    models = {"first": label + first, "second": label + second}
    source = np.arange(180) % 60
    statistics = {(name, key): of(pred, label) for name, pred in models.items() for key, of in (("rmse", rmse_of), ("srcc", srcc_of))}
    drawn = dict(zip(statistics, samples(list(statistics.values()), source, 5), strict=True))
    error, order = paired("quality", drawn, ())
    assert (error["statistic"], order["statistic"]) == ("rmse", "srcc")
    assert error["estimate"] == pytest.approx(apart)
    assert error["ahead"] == ("first" if apart < 0 else "second")
    assert order["estimate"] == pytest.approx(0)
    assert order["ahead"] is None


def test_the_same_predictions_win_nothing():
    one, two = entries(30, {"a": 0.2, "b": 0.2})
    for by_pair in found(one, Entry("again", one.table), two).values():
        row = by_pair["a", "again"]
        assert (row["estimate"], row["low"], row["high"], row["p_holm"], row["ahead"]) == (0, 0, 0, 1, None)
        assert row["same_predictions"]
        assert by_pair["a", "b"]["p_holm"] == pytest.approx(by_pair["again", "b"]["p_holm"])


def test_each_family_is_corrected_by_itself():
    """Three models of which one has no RMSE: three differences of KRCC are corrected together, and the one of RMSE is none the wiser."""
    rng = np.random.default_rng(0)
    sizes = np.full(30, 4)

    def sample(value):
        return Sample(np.full(3, value), sizes, value + rng.normal(0, 0.006, 30))

    krcc = {("a", "krcc"): sample(0.6), ("b", "krcc"): sample(0.5), ("c", "krcc"): sample(0.46)}
    drawn = {**krcc, ("a", "rmse"): sample(0.3), ("b", "rmse"): sample(0.4)}
    rows = paired("quality", drawn, ())
    assert [(r["statistic"], r["first"], r["second"]) for r in rows] == [
        ("krcc", "a", "b"), ("krcc", "a", "c"), ("krcc", "b", "c"), ("rmse", "a", "b"),
    ]  # fmt: skip
    first, second, third = sorted(rows[:3], key=lambda r: r["p"])
    assert 0 < first["p"] < second["p"] < third["p"] < 1
    by_hand = [3 * first["p"], max(3 * first["p"], 2 * second["p"]), max(3 * first["p"], 2 * second["p"], third["p"])]
    assert [r["p_holm"] for r in (first, second, third)] == pytest.approx(by_hand)
    assert rows[3]["p_holm"] == rows[3]["p"]
    alone = paired("quality", {place: drawn[place] for place in krcc}, ())
    assert alone == rows[:3]


def test_what_is_only_told_before_the_correction_is_no_lead():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 30)
    noise = (noise - noise.mean()) / noise.std()
    zero = Sample(np.zeros(3), np.full(30, 4), np.zeros(30))

    def off(value):  # of a t-test by 2.3 of its errors
        return Sample(np.full(3, value), np.full(30, 4), value + value / 2.3 / math.sqrt(29) * noise)

    names = {"a": off(0.01), "b": zero, "c": zero}
    (alone,) = paired("quality", {(n, "plcc"): names[n] for n in "ab"}, ())
    assert alone["p"] < 0.05
    assert alone["ahead"] == "a"
    corrected = paired("quality", {(n, "plcc"): s for n, s in names.items()}, ())
    assert corrected[0]["p"] == alone["p"]
    assert corrected[0]["p_holm"] > 0.05
    assert corrected[0]["ahead"] is None


def test_intervals_of_differences_within_images_need_more_sources():
    own = found(*entries(30, {"a": 0.1, "b": 0.2}))
    assert {key for key, by_pair in own.items() if by_pair["a", "b"]["few"]} == set(LEAST) == {"within_image_srcc"}


def test_the_control_is_no_model_of_its_own():
    models = [Entry(e.name, e.table.assign(quality_image=e.table["quality_pred"] ** 2)) for e in entries(12, {"a": 0.1, "b": 0.2})]
    result = judge(models, 5)[0]
    assert "over_whole_image" in result["models"]["a"]["quality"]["intervals"]
    assert CONTROL not in {d["statistic"] for d in result["differences"]}


def test_one_statistic_of_a_task_leads():
    rows = [{"task": t, "statistic": s, "untested": s == "krcc"} for t in ("quality", "importance") for s in ("krcc", *LEADING)]
    assert leading(rows) == [rows[k] for k in (1, 2, 4, 5)]
    assert families(rows) == {("quality", "krcc"): [rows[0]], ("importance", "krcc"): [rows[3]]}
    assert not untested(rows)
    assert untested([{**rows[1], "untested": True}])
