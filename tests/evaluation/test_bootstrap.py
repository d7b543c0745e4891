import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student
from sklearn.metrics import f1_score

from benchmarks.statistics import coverage
from evaluation import bootstrap
from evaluation.bootstrap import FEW_SOURCES, difference, holm, interval, macro_f1_of, plcc_of, resample, rmse_of, srcc_of
from evaluation.correlations import srcc


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    label = rng.random(300).round(2)
    return label, (label + rng.normal(0, 0.3, 300)).round(1), rng.integers(0, 4, 300).astype(np.float64)


def of(statistic, weights):
    """The statistic under one vector of weights."""
    return statistic(np.atleast_2d(weights))[0]


def test_weights_equal_rows_written_out(rows):
    label, pred, weights = rows
    x, y = np.repeat(pred, weights.astype(int)), np.repeat(label, weights.astype(int))
    assert of(srcc_of(pred, label), weights) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert of(plcc_of(pred, label), weights) == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)
    assert of(rmse_of(pred, label), weights) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-12)


def test_macro_f1_equals_sklearn_on_rows_written_out(rows):
    rng = np.random.default_rng(1)
    weights = rows[2].astype(int)
    label, pred = rng.random((300, 4)) < 0.4, rng.random((300, 4)) < 0.4
    expected = f1_score(np.repeat(label, weights, axis=0), np.repeat(pred, weights, axis=0), average="macro")
    assert of(macro_f1_of(label, pred), weights) == pytest.approx(expected, abs=1e-12)


def test_draws_at_once_equal_one_at_a_time(rows):
    label, pred, _ = rows
    weights = np.random.default_rng(2).integers(0, 4, (7, 300)).astype(np.float64)
    classes = label[:, None] > (0.2, 0.6), pred[:, None] > (0.2, 0.6)
    for statistic in (srcc_of(pred, label), plcc_of(pred, label), rmse_of(pred, label), macro_f1_of(*classes)):
        assert statistic(weights) == pytest.approx([of(statistic, w) for w in weights], abs=1e-12)


@pytest.mark.parametrize("value", [0, 1, 0.1, 0.7, 0.333])
@pytest.mark.parametrize("correlation", [srcc_of, plcc_of])
def test_what_never_varies_has_no_correlation_in_any_draw(correlation, value):
    constant, label = np.full(60, value), np.random.default_rng(0).random(60)
    for pair in ((constant, label), (label, constant)):
        assert np.isnan(resample([correlation(*pair)], np.arange(60) // 3, 200)).all()


def test_a_large_offset_is_no_constant():
    x = 1e6 + np.arange(6) * 1e-4
    assert of(plcc_of(x, np.arange(6.0)), np.ones(6)) == pytest.approx(1, abs=1e-6)


def test_no_class_has_no_f1():
    assert math.isnan(of(macro_f1_of(np.zeros((3, 2), bool), np.zeros((3, 2), bool)), np.ones(3)))


def test_five_levels_over_two_hundred_thousand_regions():
    rng = np.random.default_rng(0)
    label = rng.random(200_000)
    pred = np.floor(np.clip(label + rng.normal(0, 0.2, 200_000), 0, 0.999) * 5)
    expected = spearmanr(pred, label).statistic
    assert expected > 0.5
    assert srcc(pred, label) == pytest.approx(expected, abs=1e-12)
    assert of(srcc_of(pred, label), np.ones(200_000)) == pytest.approx(expected, abs=1e-9)


def test_draws_take_whole_sources_and_are_repeatable():
    source = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    seen = []
    first = resample([lambda w: seen.extend(w) or w.sum(axis=1)], source, 20)
    assert first[0, 0] == 21
    assert len(seen) == 21
    assert all(np.ptp(w[source == s]) == 0 for w in seen for s in range(6))
    assert np.array_equal(first, resample([lambda w: w.sum(axis=1)], source, 20))


def test_the_same_draws_whatever_is_held_at_once(rows, monkeypatch):
    label, pred, _ = rows
    together = resample([srcc_of(pred, label)], np.arange(300) % 20, 30)
    monkeypatch.setattr(bootstrap, "_CHUNK", 900)
    assert resample([srcc_of(pred, label)], np.arange(300) % 20, 30) == pytest.approx(together, abs=1e-12)


def test_the_mean_has_its_textbook_interval():
    """Of a mean, the bootstrap's error is the standard error up to the draws' chance, and the interval that of a t-test."""
    x = np.random.default_rng(0).normal(size=12)
    found = interval(resample([lambda w: w @ x / 12], np.arange(12), 20_000)[:, 0], 12)
    expected = student.interval(0.95, 11, x.mean(), x.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("scale", "value", "expected"), [("fisher", 0.9, (-1, 1)), ("log", 0.2, (0, math.inf)), ("logit", 0.9, (0, 1))])
def test_a_scale_keeps_the_interval_among_possible_values(scale, value, expected):
    values = np.append(value, value + np.random.default_rng(0).normal(0, 0.1, 200))
    found, plain = interval(values, 10, scale), interval(values, 10)
    assert expected[0] < found.low < value < found.high < expected[1]
    assert found.se == plain.se
    narrow = value + (values - value) * 1e-4  # where the scale is straight, it changes nothing
    assert interval(narrow, 10, scale).low == pytest.approx(interval(narrow, 10).low, abs=1e-7)


def test_the_same_model_twice_differs_by_nothing(rows):
    label, pred, _ = rows
    drawn = resample([srcc_of(pred, label), srcc_of(pred, label)], np.arange(300) % 20, 50)
    found = difference(drawn[:, 0], drawn[:, 1], 20)
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_difference_that_no_draw_varies_has_no_p_value():
    label = np.arange(40.0)
    drawn = resample([srcc_of(label, label), srcc_of(-label, label)], np.arange(40) // 2, 50)
    found = difference(drawn[:, 0], drawn[:, 1], 20)
    assert found.estimate == pytest.approx(2)
    assert math.isnan(found.p)


def test_one_source_has_no_interval_and_few_are_flagged():
    values = np.arange(11.0)
    assert math.isnan(interval(values, 1).low)
    few, enough = (difference(values, values * 0, n) for n in (FEW_SOURCES - 1, FEW_SOURCES))
    assert few.few
    assert math.isnan(few.p)
    assert few.low < few.high  # the interval is given all the same
    assert not enough.few
    assert 0 < enough.p <= 1


def test_few_speaks_of_sources_alone():
    assert not interval(np.full(11, math.nan), 40).few


@pytest.mark.parametrize("sources", [10, 20, 40])
def test_p_and_interval_agree(sources):
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 1, (200, 101)) + 2.2 * rng.normal(size=(200, 1))
    found = [difference(values, np.zeros(101), sources) for values in drawn]
    assert {f.p < 0.05 for f in found} == {True, False}
    assert all((f.p < 0.05) == (not f.low <= 0 <= f.high) for f in found)


def test_a_good_model_is_told_from_fourteen_of_noise():
    rng = np.random.default_rng(0)
    label = rng.random(300)
    models = [label + rng.normal(0, 0.09, 300), *rng.random((14, 300))]
    drawn = resample([srcc_of(m, label) for m in models], np.arange(300) // 3, 300)
    assert drawn[0, 0] == pytest.approx(0.95, abs=0.01)
    pairs = list(combinations(range(15), 2))
    corrected = dict(zip(pairs, holm([difference(drawn[:, a], drawn[:, b], 100).p for a, b in pairs]), strict=True))
    assert all(corrected[0, b] < 0.01 for b in range(1, 15))


def test_no_p_value_is_zero():
    values = np.append(1.0, 1 + 1e-6 * np.random.default_rng(0).normal(size=50))
    assert 0 < difference(values, values * 0, 1000).p < 1e-15


def test_a_collapsed_model_has_no_tight_interval():
    """All predictions but those of one source are equal; a third of the draws lack that source, and order nothing."""
    label, pred = np.random.default_rng(0).random(90), np.full(90, 0.5)
    pred[:3] = 0.6, 0.7, 0.8
    drawn = resample([srcc_of(pred, label)], np.arange(90) // 3, 500)[:, 0]
    assert np.isfinite(drawn).all()
    assert 0.2 < np.mean(drawn == 0) < 0.5
    found = interval(drawn, 30, "fisher")
    assert found.low < 0 < found.high


def test_draws_without_a_number_are_counted_and_leave_no_interval():
    values = np.append(0.5, np.linspace(0.4, 0.6, 200))
    values[1:3] = math.nan
    known = interval(values, 20)
    assert known.undefined == 2
    assert known.low < 0.5
    values[3] = math.nan
    assert math.isnan(interval(values, 20).low)
    label = np.append(np.arange(3.0), np.full(9, 1.0))  # labels of a single source vary
    assert math.isnan(interval(resample([srcc_of(np.random.default_rng(0).random(12), label)], np.arange(12) // 3, 50)[:, 0], 4).low)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="0 sources and 5 draws"):
        resample([], [], 5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert math.isnan(holm([0.2, math.nan])[1])
    assert holm([0.2, math.nan])[0] == pytest.approx(0.2)


def test_intervals_and_p_values_are_right_as_often_as_they_say():
    """1,000 simulations: a share of 0.95 lies within 0.925 and 0.975 in 99.97 %."""
    found = coverage("equal", simulations=1000, sources=20, draws=100)
    assert all(0.925 <= found[name] <= 0.975 for name in ("SRCC", "PLCC", "difference"))
    assert found["p < 0.05"] == pytest.approx(1 - found["difference"])
