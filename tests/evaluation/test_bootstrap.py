import math

import numpy as np
import pytest
from scipy.stats import binom, pearsonr, spearmanr
from sklearn.metrics import f1_score

from evaluation.bootstrap import FEW_SOURCES, holm, interval, macro_f1_of, plcc_of, resample, rmse_of, srcc_of
from evaluation.correlations import srcc


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    label = rng.random(300).round(2)
    return label, (label + rng.normal(0, 0.3, 300)).round(1), rng.integers(0, 4, 300).astype(np.float64)


def test_weights_equal_rows_written_out(rows):
    label, pred, weights = rows
    x, y = np.repeat(pred, weights.astype(int)), np.repeat(label, weights.astype(int))
    assert srcc_of(pred, label)(weights) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert plcc_of(pred, label)(weights) == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)
    assert rmse_of(pred, label)(weights) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-12)


def test_macro_f1_equals_sklearn_on_rows_written_out(rows):
    rng = np.random.default_rng(1)
    weights = rows[2].astype(int)
    label, pred = rng.random((300, 4)) < 0.4, rng.random((300, 4)) < 0.4
    expected = f1_score(np.repeat(label, weights, axis=0), np.repeat(pred, weights, axis=0), average="macro")
    assert macro_f1_of(label, pred)(weights.astype(np.float64)) == pytest.approx(expected, abs=1e-12)


def test_what_does_not_vary_has_no_correlation():
    assert math.isnan(srcc_of(np.ones(5), np.arange(5.0))(np.ones(5)))
    assert math.isnan(macro_f1_of(np.zeros((3, 2), bool), np.zeros((3, 2), bool))(np.ones(3)))


def test_five_levels_over_two_hundred_thousand_regions():
    rng = np.random.default_rng(0)
    label = rng.random(200_000)
    pred = np.floor(np.clip(label + rng.normal(0, 0.2, 200_000), 0, 0.999) * 5)
    expected = spearmanr(pred, label).statistic
    assert expected > 0.5
    assert srcc(pred, label) == pytest.approx(expected, abs=1e-12)
    assert srcc_of(pred, label)(np.ones(200_000)) == pytest.approx(expected, abs=1e-9)


def test_draws_take_whole_sources_and_are_repeatable():
    source = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    seen = []
    first = resample([lambda w: seen.append(w) or float(w.sum())], source, 20)
    assert first[0, 0] == 21
    assert all(np.ptp(w[source == s]) == 0 for w in seen for s in range(6))
    assert np.array_equal(first, resample([lambda w: float(w.sum())], source, 20))


def test_the_same_model_twice_differs_by_nothing(rows):
    label, pred, _ = rows
    drawn = resample([srcc_of(pred, label), srcc_of(pred, label)], np.arange(300) % 20, 50)
    difference = interval(drawn[:, 0] - drawn[:, 1], 20)
    assert (difference.estimate, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_one_source_has_no_interval_and_few_are_flagged():
    values = np.arange(11.0)
    assert math.isnan(interval(values, 1).low)
    few, enough = interval(values, FEW_SOURCES - 1), interval(values, FEW_SOURCES)
    assert few.few
    assert math.isnan(few.p)
    assert few.low < few.high  # the interval is given all the same
    assert not enough.few
    assert enough.p == pytest.approx(2 * 1 / 11)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="0 sources and 5 draws"):
        resample([], [], 5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert math.isnan(holm([0.2, math.nan])[1])
    assert holm([0.2, math.nan])[0] == pytest.approx(0.2)


def covered(simulations, sources=40, regions=5, draws=300, seed=0):
    """How many intervals hold the true PLCC where label and prediction share a source's effect: the truth is 0.6."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(sources), regions)
    mixing = np.linalg.cholesky(np.array([[1, 0.6], [0.6, 1]]))
    hits = 0
    for k in range(simulations):
        both = math.sqrt(0.5) * rng.normal(size=(sources, 2))[source] + math.sqrt(0.5) * rng.normal(size=(len(source), 2))
        x, y = mixing @ both.T
        found = interval(resample([plcc_of(x, y)], source, draws, seed=k)[:, 0], sources)
        hits += found.low <= 0.6 <= found.high
    return hits


def test_intervals_cover_the_truth_as_often_as_they_say():
    simulations = 200
    low, high = binom.ppf([0.0005, 0.9995], simulations, 0.95)
    assert low <= covered(simulations) <= high
