import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel
from scipy.stats import t as student

from evaluation import bootstrap
from evaluation.bootstrap import (
    FEW_SOURCES,
    MANY_SOURCES,
    UNTESTED_SOURCES,
    Sample,
    difference,
    holm,
    interval,
    leave_out,
    resample,
    samples,
)
from evaluation.correlations import srcc
from evaluation.weighted import pair_accuracy_of, srcc_of, within_of

TEN = np.full(10, 4)  # regions of each of ten sources


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    label = rng.random(300).round(2)
    return label, (label + rng.normal(0, 0.3, 300)).round(1), rng.integers(0, 4, 300).astype(np.float64)


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
    found = interval(Sample(resample([lambda w: w @ x / 12], np.arange(12), 20_000)[:, 0], np.ones(12)))
    expected = student.interval(0.95, 11, x.mean(), x.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("scale", "value", "expected"),
    [("fisher", 0.9, (-1, 1)), ("reciprocal", 0.4, (0, 1)), ("logit", 0.9, (0, 1)), ("ceiling", 0.9, (-1, 1))],
)
def test_a_scale_keeps_the_interval_among_possible_values(scale, value, expected):
    values = np.append(value, value + np.random.default_rng(0).normal(0, 0.1, 200))
    found, plain = interval(Sample(values, TEN), scale), interval(Sample(values, TEN))
    assert expected[0] < found.low < value < found.high <= expected[1]
    assert found.se == plain.se
    narrow = value + (values - value) * 1e-4  # where the scale is straight, it changes nothing
    assert interval(Sample(narrow, TEN), scale).low == pytest.approx(interval(Sample(narrow, TEN)).low, abs=1e-7)


def test_an_error_has_no_interval_beyond_what_it_can_be():
    values = np.append(0.5, 0.5 + np.random.default_rng(0).normal(0, 0.3, 200))
    assert interval(Sample(values, np.array([9, 9])), "reciprocal").high == 1


@pytest.mark.parametrize(("scale", "end"), [("fisher", 1.0), ("reciprocal", 0.0), ("logit", 1.0), ("ceiling", 1.0)])
def test_one_source_between_a_statistic_and_the_end_of_its_scale(scale, end):
    """Without it there is no place on the scale; the interval is then that of the scale's slope."""
    values = np.append(0.5, np.linspace(0.4, 0.6, 50))
    without = np.append(np.linspace(0.49, 0.51, 29), end)
    found = interval(Sample(values, np.ones(30), without), scale)
    assert -1 < found.low < 0.5 < found.high <= 1
    near = np.append(without[:-1], end + 1e-3 * (0.5 - end))
    assert interval(Sample(values, np.ones(30), near), scale).se == pytest.approx(found.se, rel=0.01)


def test_the_jackknife_is_taken_on_the_scale():
    rng = np.random.default_rng(0)
    values, without = np.append(0.8, rng.normal(0.8, 0.1, 50)), 0.8 + rng.normal(0, 0.02, 25)
    found = interval(Sample(values, np.ones(25), without), "fisher")
    half = student.ppf(0.975, 24) * np.std(np.arctanh(without)) * np.sqrt(24)
    assert (found.low, found.high) == pytest.approx(np.tanh(np.arctanh(0.8) + half * np.array([-1, 1])))


def test_the_jackknife_of_a_mean_is_its_textbook_error():
    x = np.random.default_rng(0).normal(size=12)
    statistic = [lambda w: w @ x / w.sum(axis=1)]
    source = np.arange(12)
    without = leave_out(statistic, source)[:, 0]
    assert without == pytest.approx([np.delete(x, k).mean() for k in range(12)])
    found = interval(Sample(resample(statistic, source, 5)[:, 0], np.ones(12), without))
    assert found.se == pytest.approx(x.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.high) == pytest.approx(student.interval(0.95, 11, x.mean(), found.se))


def test_whole_sources_are_left_out_whatever_is_held_at_once(rows, monkeypatch):
    label, pred, _ = rows
    source = np.arange(300) % 7 * 10
    expected = [srcc(pred[source != s], label[source != s]) for s in range(0, 70, 10)]
    assert leave_out([srcc_of(pred, label)], source)[:, 0] == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(bootstrap, "_CHUNK", 900)
    assert leave_out([srcc_of(pred, label)], source)[:, 0] == pytest.approx(expected, abs=1e-12)


def test_of_many_sources_none_is_left_out():
    assert leave_out([srcc_of(np.arange(MANY_SOURCES + 1), np.arange(MANY_SOURCES + 1))], np.arange(MANY_SOURCES + 1)) is None


def test_a_number_that_depends_on_one_source_has_no_interval():
    values = np.append(0.5, np.linspace(0.4, 0.6, 200))
    without = np.linspace(0.4, 0.6, 20)
    assert interval(Sample(values, np.ones(20), without)).low < 0.5
    without[3] = math.nan
    assert math.isnan(interval(Sample(values, np.ones(20), without)).low)


def test_of_unequal_sources_the_interval_is_wider_and_may_be_a_hint():
    values = np.append(0.5, 0.5 + np.random.default_rng(0).normal(0, 0.1, 200))
    equal, unequal = (interval(Sample(values, np.array(sizes))) for sizes in ([5] * 25, [1] * 20 + [20] * 5))
    assert (equal.few, unequal.few) == (False, True)
    assert interval(Sample(values, np.full(25, 5)), least=26).few
    assert equal.se == unequal.se
    assert unequal.high - unequal.low > equal.high - equal.low


def test_one_large_source_makes_no_absurd_interval():
    """A quarter of all regions is of one of 40 sources: t of effective sources would be 12.7 times the error to each side."""
    without = 0.5 + np.random.default_rng(0).normal(0, 0.01, 40)
    found = interval(Sample(np.full(3, 0.5), np.array([65] + [5] * 39), without))
    assert found.few
    assert student.ppf(0.975, 39) <= (found.high - found.low) / 2 / found.se < 4


@pytest.mark.parametrize(
    ("scale", "value", "low", "high"),
    [
        ("logit", 1.0, 0.832, 1.0),
        ("logit", 0.0, 0.0, 0.168),
        ("fisher", 1.0, 0.663, 1.0),
        ("ceiling", 0.0, -0.168, 0.168),
        ("reciprocal", 0.0, 0.0, 0.410),
    ],
)
def test_what_no_source_moves_is_not_certain(scale, value, low, high):
    """Of 20 sources: Clopper and Pearson's interval, whose bound of a share is 1 - 0.025^(1/20)."""
    found = interval(Sample(np.full(11, value), np.full(20, 5), np.full(20, value)), scale)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)
    assert found.se == 0
    if scale == "logit" and value == 1:
        assert found.low == pytest.approx(binomtest(20, 20).proportion_ci().low)
    more = interval(Sample(np.full(11, value), np.full(100, 5), np.full(100, value)), scale)
    assert found.low <= more.low <= value <= more.high <= found.high
    assert more.high - more.low < found.high - found.low


def test_a_difference_that_no_source_moves_is_not_certain():
    first, second, low = (Sample(np.full(11, v), np.full(20, 5), np.full(20, v)) for v in (1.0, 1.0, 0.5))
    found = difference(first, second, "logit")
    assert (found.low, found.high) == pytest.approx((-0.168, 0.168), abs=1e-3)
    assert found.p == 1
    apart = difference(first, low, "logit")
    assert apart.low > 0
    assert apart.p == pytest.approx(2 * (1 / 1.5) ** 20)
    few = [Sample(s.values, np.full(10, 5), s.without[:10]) for s in (first, low)]
    assert difference(*few, "logit").low == pytest.approx(0.5 - 1.5 * (1 - 0.025**0.1))
    assert (difference(*few, "logit").p < 0.05) == (difference(*few, "logit").low > 0)


def test_the_same_model_twice_differs_by_nothing(rows):
    label, pred, _ = rows
    drawn = resample([srcc_of(pred, label), srcc_of(pred, label)], np.arange(300) % 20, 50)
    found = difference(*(Sample(d, np.ones(20)) for d in drawn.T))
    assert (found.estimate, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("sources", [1, 2, 300])
def test_the_same_predictions_differ_by_exactly_nothing(sources):
    """Whatever moves the statistic and however few its sources; where it does not exist there is no difference either."""
    values = np.linspace(0.4, 0.6, 11)
    sample = Sample(values, np.full(sources, 5), np.resize(values, sources) if sources < 300 else None)
    found = difference(sample, sample, "fisher", same=True)
    assert (found.estimate, found.low, found.high, found.se, found.p, found.few, found.untested) == (0, 0, 0, 0, 1, False, False)
    undefined = Sample(np.full(11, math.nan), sample.sizes)
    assert math.isnan(difference(undefined, undefined, "fisher", same=True).low)


def test_a_difference_that_no_draw_varies_has_no_p_value():
    label = np.arange(40.0)
    drawn = resample([srcc_of(label, label), srcc_of(-label, label)], np.arange(40) // 2, 50)
    found = difference(*(Sample(d, np.ones(20)) for d in drawn.T))
    assert found.estimate == pytest.approx(2)
    assert math.isnan(found.p)


def test_one_source_has_no_interval_and_few_are_flagged():
    values = np.arange(11.0)
    assert math.isnan(interval(Sample(values, np.array([7]))).low)
    counts = (UNTESTED_SOURCES - 1, UNTESTED_SOURCES, FEW_SOURCES)
    untested, few, enough = (difference(Sample(values, np.full(n, 3)), Sample(values * 0, np.full(n, 3))) for n in counts)
    assert math.isnan(untested.p)
    assert untested.low < untested.high  # the interval is given all the same
    assert (untested.untested, few.untested, enough.untested) == (True, False, False)
    assert (untested.few, few.few, enough.few) == (True, True, False)
    assert 0 < few.p <= 1


def test_few_speaks_of_sources_alone():
    assert not interval(Sample(np.full(11, math.nan), np.ones(40))).few


@pytest.mark.parametrize("sources", [10, 20, 40])
def test_p_and_interval_agree(sources):
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 1, (200, 101)) + 2.2 * rng.normal(size=(200, 1))
    found = [difference(Sample(values, np.ones(sources)), Sample(np.zeros(101), np.ones(sources))) for values in drawn]
    assert {f.p < 0.05 for f in found} == {True, False}
    assert all((f.p < 0.05) == (not f.low <= 0 <= f.high) for f in found)


@pytest.mark.parametrize("scale", ["plain", "fisher", "logit", "ceiling"])
def test_p_and_interval_agree_on_every_scale(scale):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        common, own = rng.normal(0, 0.01, 30), rng.normal(0, 0.004, (2, 30))
        values = 0.6 + rng.normal(0, 0.04, 2)
        sides = [Sample(np.array([v, v, v]), np.full(30, 4), v + common + o) for v, o in zip(values, own, strict=True)]
        found.append(difference(*sides, scale))
        turned = difference(*sides[::-1], scale)
        assert (turned.low, turned.high) == pytest.approx((-found[-1].high, -found[-1].low))
        assert turned.p == pytest.approx(found[-1].p)
    assert {f.p < 0.05 for f in found} == {True, False}
    assert all((f.p < 0.05) == (not f.low <= 0 <= f.high) for f in found)
    assert all(f.low < f.estimate < f.high for f in found)


def test_a_difference_on_the_plain_scale_is_a_paired_t_test():
    x, y = np.random.default_rng(0).normal([[0.6], [0]], 1, (2, 15))
    statistics, source = [lambda w: w @ x / w.sum(axis=1), lambda w: w @ y / w.sum(axis=1)], np.arange(15)
    drawn, without = resample(statistics, source, 5), leave_out(statistics, source)
    found = difference(*(Sample(drawn[:, k], np.ones(15), without[:, k]) for k in range(2)))
    expected = ttest_rel(x, y)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_perfect_model_is_compared_on_the_plain_scale():
    label = np.random.default_rng(0).random(60)
    pred, source = label + np.random.default_rng(1).normal(0, 0.2, 60), np.arange(60) // 3
    statistics = [srcc_of(label, label), srcc_of(pred, label)]
    drawn, without = resample(statistics, source, 50), leave_out(statistics, source)
    sides = [Sample(drawn[:, k], np.full(20, 3), without[:, k]) for k in range(2)]
    assert difference(*sides, "fisher") == difference(*sides)
    assert difference(*sides).p < 0.001


def test_a_good_model_is_told_from_fourteen_of_noise():
    rng = np.random.default_rng(0)
    label = rng.random(300)
    models = [label + rng.normal(0, 0.09, 300), *rng.random((14, 300))]
    drawn = resample([srcc_of(m, label) for m in models], np.arange(300) // 3, 300)
    assert drawn[0, 0] == pytest.approx(0.95, abs=0.01)
    each = [Sample(d, np.ones(100)) for d in drawn.T]
    pairs = list(combinations(range(15), 2))
    corrected = dict(zip(pairs, holm([difference(each[a], each[b], "fisher").p for a, b in pairs]), strict=True))
    assert all(corrected[0, b] < 0.01 for b in range(1, 15))


def test_no_p_value_is_zero():
    values = np.append(1.0, 1 + 1e-6 * np.random.default_rng(0).normal(size=50))
    assert 0 < difference(Sample(values, np.ones(1000)), Sample(values * 0, np.ones(1000))).p < 1e-15


def test_a_collapsed_model_has_no_tight_interval():
    """All predictions but those of one source are equal; a third of the draws lack that source, and order nothing."""
    label, pred = np.random.default_rng(0).random(90), np.full(90, 0.5)
    pred[:3] = 0.6, 0.7, 0.8
    drawn = resample([srcc_of(pred, label)], np.arange(90) // 3, 500)[:, 0]
    assert np.isfinite(drawn).all()
    assert 0.2 < np.mean(drawn == 0) < 0.5
    without = leave_out([srcc_of(pred, label)], np.arange(90) // 3)
    for found in (interval(Sample(drawn, np.full(30, 3), w), "fisher") for w in (None, without[:, 0])):
        assert found.low < 0 < found.high


def test_draws_without_a_number_are_counted_and_leave_no_interval():
    values = np.append(0.5, np.linspace(0.4, 0.6, 200))
    values[1:3] = math.nan
    known = interval(Sample(values, np.ones(20)))
    assert known.undefined == 2
    assert known.low < 0.5
    values[3] = math.nan
    assert math.isnan(interval(Sample(values, np.ones(20))).low)
    label = np.append(np.arange(3.0), np.full(9, 1.0))  # labels of a single source vary
    assert math.isnan(
        interval(Sample(resample([srcc_of(np.random.default_rng(0).random(12), label)], np.arange(12) // 3, 50)[:, 0], np.full(4, 3))).low
    )


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="0 sources and 5 draws"):
        resample([], [], 5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert math.isnan(holm([0.2, math.nan])[1])
    assert holm([0.2, math.nan])[0] == pytest.approx(0.2)


def test_p_and_interval_agree_where_errors_are_of_very_unequal_size():
    rng, turned = np.random.default_rng(0), 0
    for _ in range(400):
        common, (a, b) = rng.normal(size=25), np.sort(rng.uniform(0.1, 0.95, 2))
        first, second = (np.tanh(np.arctanh(v) + s * (common + 0.05 * rng.normal(size=25))) for v, s in ((a, 0.15), (b, 0.02)))
        sides = [Sample(np.array([v, v, v]), np.full(25, 4), own) for v, own in ((a, first), (b, second))]
        found = difference(*sides, "fisher")
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        turned += found.p < 0.05
    assert 0 < turned < 400


def test_a_source_counts_by_what_the_mean_goes_over():
    """Pairs, images, or regions: a quarter of the regions is most of the pairs, and its interval is wider for it."""
    source = np.repeat(np.arange(20), [5] * 19 + [32])
    pred, label = np.random.default_rng(0).random((2, len(source)))
    pairs, images, regions = samples(
        [pair_accuracy_of(pred, label, source), within_of(pred, label, source, 3), srcc_of(pred, label)], source, draws=3
    )
    assert pairs.weights.tolist() == [20] * 19 + [32 * 31]
    assert images.weights.tolist() == [1] * 20
    assert regions.weights is None
    assert pairs.freedom < regions.freedom < images.freedom
    assert pairs.minus(pairs).freedom == pairs.map(np.arctanh).freedom == pairs.freedom
