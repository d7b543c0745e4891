"""Statistics under weights against those of rows written out that often."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import f1_score

from evaluation.bootstrap import leave_out, resample
from evaluation.correlations import krcc, srcc
from evaluation.protocols import pair_accuracy, within_image
from evaluation.weighted import Ranks, agreement, krcc_of, macro_f1_of, pair_accuracy_of, plcc_of, ratio_of, rmse_of, srcc_of, within_of


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


@pytest.mark.parametrize("size", [1, 2, 3, 17, 100])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_agreement_counts_every_pair(size, levels):
    x, y = np.random.default_rng(size).integers(0, levels, (2, size))
    assert np.array_equal(agreement(x, y), (np.sign(x[:, None] - x) * np.sign(y[:, None] - y)).sum(axis=1))


def test_kendall_without_a_source_is_that_of_the_others(rows):
    label, pred, _ = rows
    source = np.arange(300) % 9
    statistic = krcc_of(pred, label, source)
    assert of(statistic, np.ones(300)) == pytest.approx(kendalltau(pred, label).statistic, abs=1e-12)
    expected = [krcc(pred[source != s], label[source != s]) for s in range(9)]
    assert leave_out([statistic], source)[:, 0] == pytest.approx(expected, abs=1e-12)


def test_kendall_of_draws_varies_as_that_of_rows_written_out(rows):
    label, pred, _ = rows
    source = np.arange(300) % 30
    weights = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=300).astype(np.float64)[:, source]
    found = krcc_of(pred, label, source)(weights)
    counts = weights.astype(int)
    expected = np.array([kendalltau(np.repeat(pred, w), np.repeat(label, w)).statistic for w in counts])
    assert found.std() == pytest.approx(expected.std(), rel=0.05)
    assert np.corrcoef(found, expected)[0, 1] > 0.95


@pytest.mark.parametrize("noise", [1.0, 0.03])
def test_kendall_of_draws_varies_as_it_does_without_a_source_where_sizes_differ(noise):
    rng = np.random.default_rng(5)
    source = np.repeat(np.arange(250), np.ceil(rng.lognormal(1, 1, 250)).astype(int))
    label, error = rng.normal(size=(2, len(source)))
    statistic = krcc_of(label + noise * error, label, source)
    weights = rng.multinomial(250, np.full(250, 1 / 250), size=400).astype(np.float64)[:, source]
    without = np.array([statistic((source != s).astype(float)[None])[0] for s in range(250)])
    assert statistic(weights).std() == pytest.approx(without.std() * math.sqrt(249), rel=0.15)


def test_what_is_ordered_perfectly_is_so_in_every_draw():
    rng = np.random.default_rng(6)
    source = np.repeat(np.arange(250), rng.integers(1, 31, 250))
    label = rng.normal(size=len(source)).round(1)
    weights = rng.multinomial(250, np.full(250, 1 / 250), size=50).astype(np.float64)[:, source]
    assert krcc_of(np.exp(label), label, source)(weights) == pytest.approx(1, abs=1e-12)


def test_labels_that_models_share_are_ranked_once(rows):
    label, pred, _ = rows
    ranks = Ranks(label)
    one, two = srcc_of(pred, label, ranks), srcc_of(-pred, label, ranks)
    for weights in np.random.default_rng(7).integers(0, 4, (3, 2, 300)).astype(np.float64):
        assert one(weights) == pytest.approx(srcc_of(pred, label)(weights), abs=1e-12)
        kept = ranks(weights)
        assert two(weights) == pytest.approx(-one(weights), abs=1e-12)
        assert ranks(weights) is kept


def test_a_share_of_nothing_is_no_number():
    assert of(ratio_of([1, 0, 1, 1]), [1, 1, 0, 2]) == pytest.approx(3 / 4)
    assert of(ratio_of([1, 0], [2, 0]), [3, 1]) == pytest.approx(1 / 2)
    assert math.isnan(of(ratio_of([1, 0], [2, 0]), [0, 1]))


@pytest.mark.parametrize("levels", [0, 1])
def test_within_images_as_the_protocol_has_it(levels):
    rng = np.random.default_rng(levels)
    image = rng.integers(0, 30, 120)
    label, pred = rng.random((2, 120)).round(levels)
    label[image == 3] = 0.5
    rows = pd.DataFrame({"quality": label, "quality_pred": pred, "image": image.astype(str)})
    mean, pairs = within_of(pred, label, rows["image"], 3), pair_accuracy_of(pred, label, rows["image"])
    for kept in (image >= 0, image < 9, image % 7 != 3):
        assert of(mean, kept.astype(float)) == pytest.approx(np.mean(within_image(rows[kept], "quality")), abs=1e-12)
        assert of(pairs, kept.astype(float)) == pytest.approx(pair_accuracy(rows[kept], "quality"), abs=1e-12)
    twice = pd.concat([rows, rows[image == 5].assign(image="again")])
    weights = np.where(image == 5, 2.0, 1.0)
    assert of(mean, weights) == pytest.approx(np.mean(within_image(twice, "quality")), abs=1e-12)
    assert of(pairs, weights) == pytest.approx(pair_accuracy(twice, "quality"), abs=1e-12)
