import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from evaluation import correlations
from evaluation.correlations import fit_logistic, krcc, plcc, plcc_fitted, rmse, rmse_fitted, srcc


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    label = rng.random(300)
    return label + 0.2 * rng.normal(size=300), label


def test_equal_scipy(pair):
    assert srcc(*pair) == stats.spearmanr(*pair).statistic
    assert plcc(*pair) == stats.pearsonr(*pair).statistic
    assert krcc(*pair) == stats.kendalltau(*pair).statistic


def test_closed_forms():
    x = np.arange(5.0)
    for function in (srcc, plcc, krcc):
        assert function(x, 2 * x + 1) == pytest.approx(1)
        assert function(x, -x) == pytest.approx(-1)
    assert srcc(x, x**3) == pytest.approx(1)
    assert plcc(x, x**3) < 1
    assert srcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert krcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert rmse([0, 0], [3, 4]) == pytest.approx(math.sqrt(12.5))


def test_ties_at_200_000_points():
    """torchmetrics 1.9 overflows int32 here and returns -0.68 for a correlation of 0.86 (field notes, 3)."""
    rng = np.random.default_rng(0)
    label = rng.random(200_000)
    pred = np.clip((label * 5 + rng.normal(0, 0.5, len(label))).astype(int), 0, 4)
    assert srcc(pred, label) == stats.spearmanr(pred, label).statistic
    assert srcc(pred, label) == pytest.approx(plcc(stats.rankdata(pred), stats.rankdata(label)), abs=1e-12)
    assert krcc(pred, label) == stats.kendalltau(pred, label).statistic
    levels = (label * 5).astype(int)
    assert krcc(pred, levels) == pytest.approx(tau_b(pred, levels), abs=1e-12)


def tau_b(x, y):
    """From the contingency table, in Python's unbounded integers."""
    counts = [[int(((x == i) & (y == j)).sum()) for j in range(5)] for i in range(5)]
    agree = sum(counts[i][j] * sum(counts[k][m] for k in range(i + 1, 5) for m in range(j + 1, 5)) for i in range(5) for j in range(5))
    oppose = sum(counts[i][j] * sum(counts[k][m] for k in range(i + 1, 5) for m in range(j)) for i in range(5) for j in range(5))
    n = len(x) * (len(x) - 1) // 2
    ties_x = sum(c * (c - 1) // 2 for c in map(sum, counts))
    ties_y = sum(c * (c - 1) // 2 for c in map(sum, zip(*counts, strict=True)))
    return (agree - oppose) / math.sqrt((n - ties_x) * (n - ties_y))


@pytest.mark.parametrize("function", [srcc, plcc, krcc])
@pytest.mark.parametrize(("pred", "label"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 1, 1]), ([1, 2], [1, 3]), ([1], [1]), ([], [])])
def test_a_correlation_that_does_not_exist_is_nan(function, pred, label):
    assert math.isnan(function(pred, label))


def test_rmse_of_nothing_is_nan():
    assert math.isnan(rmse([], []))


def test_the_fitted_rmse_is_in_the_labels_unit(pair):
    """Whatever the predictions' own: of a curve it is what was added to it, over all points, and nothing where there is no fit."""
    pred = np.linspace(0, 100, 400)
    off = np.where(np.arange(400) % 2, 0.1, -0.1)
    curve = 0.2 + 0.6 * expit((pred - 50) / 10)
    assert rmse_fitted(pred, curve) == pytest.approx(0, abs=1e-5)
    assert rmse_fitted(pred, curve + off) == pytest.approx(0.1, rel=1e-3)
    assert rmse_fitted(*pair) < rmse(*pair)
    assert rmse_fitted(80 * pair[0] + 10, pair[1]) == pytest.approx(rmse_fitted(*pair), rel=1e-4)
    assert math.isnan(rmse_fitted(np.ones(20), np.arange(20.0)))


@pytest.mark.parametrize("function", [srcc, plcc, krcc, rmse, fit_logistic])
def test_nan_and_unequal_shapes_are_refused(function):
    with pytest.raises(ValueError, match="1 of 2 pairs are not finite"):
        function([1, math.nan], [1, 2])
    with pytest.raises(ValueError, match=r"shape \(2,\) and labels \(3,\)"):
        function([1, 2], [1, 2, 3])


def test_a_known_logistic_is_recovered():
    x = np.linspace(20, 80, 200)  # far from standardised
    known = (0.9, 0.1, 55.0, 6.0)
    fit = fit_logistic(x, known[1] + (known[0] - known[1]) * expit((x - known[2]) / known[3]))
    assert fit.converged
    assert fit.params == pytest.approx(known, rel=1e-4)
    assert fit.predict([55.0])[0] == pytest.approx(0.5, abs=1e-6)


def test_planted_parameters_of_the_five_are_recovered():
    x = np.linspace(20, 80, 300)
    upper, lower, centre, width, slope = known = (0.6, 0.1, 45.0, 3.0, 0.004)
    fit = fit_logistic(x, lower + (upper - lower) * expit((x - centre) / width) + slope * x, 5)
    assert fit.converged
    assert fit.params == pytest.approx(known, rel=1e-3)
    assert fit.predict([centre])[0] == pytest.approx((upper + lower) / 2 + slope * centre, abs=1e-5)


@pytest.mark.parametrize("parameters", [4, 5])
def test_the_jacobian_gives_the_gradient_of_the_squared_residuals(parameters):
    z = np.linspace(-2, 2, 40)
    y = expit(3 * z) + 0.1 * z + 0.05 * np.sin(9 * z)

    def cost(place):
        return 0.5 * (correlations._residuals(place, z, y, parameters) ** 2).sum()

    for place in (np.array([0.2, -0.5]), np.array([-1.0, 0.4])):
        expected = [(cost(place + h) - cost(place - h)) / 2e-6 for h in 1e-6 * np.eye(2)]
        found = correlations._jacobian(place, z, y, parameters).T @ correlations._residuals(place, z, y, parameters)
        assert found == pytest.approx(expected, abs=1e-7)


BENT = {
    "convex": lambda x: np.exp(2.5 * x),
    "square": lambda x: x**2,
    "concave": lambda x: 1 - (1 - x) ** 2,
}


@pytest.mark.parametrize("bend", BENT.values(), ids=BENT)
@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_labels_that_bend_one_way_alone_are_fitted(bend, parameters, seed):
    """Such a logistic has its centre far outside, and its ends run away: all parameters at once took more than 200 steps."""
    rng = np.random.default_rng(seed)
    label = rng.random(500)
    pred = bend(np.clip(label + 0.03 * rng.normal(size=500), 0, 1))
    fit = fit_logistic(pred, label, parameters)
    assert fit.converged
    assert plcc_fitted(pred, label, fit) > plcc(pred, label) + 0.004
    assert plcc_fitted(pred, label, fit) > srcc(pred, label) - 0.005


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("far", [20, 300, 1e4])
def test_one_far_prediction_does_not_spoil_the_fit(parameters, far):
    rng = np.random.default_rng(0)
    label = rng.random(500)
    pred = np.append((label + 0.05 * rng.normal(size=500))[:-1], far)
    assert plcc_fitted(pred, label, fit_logistic(pred, label, parameters)) > 0.98


@pytest.mark.parametrize("seed", range(5))
def test_the_five_are_never_behind_the_four_nor_behind_a_line(seed):
    rng = np.random.default_rng(seed)
    label = rng.random(80)
    pred = label ** rng.uniform(0.3, 3) + rng.uniform(0.02, 0.5) * rng.normal(size=80)
    four, five = (plcc_fitted(pred, label, fit_logistic(pred, label, n)) for n in (4, 5))
    assert five >= max(four, plcc(pred, label)) - 1e-5


def test_the_fit_straightens_a_curve_and_keeps_the_order():
    rng = np.random.default_rng(1)
    pred = rng.random(200)
    label = expit(12 * (pred - 0.5)) + 0.01 * rng.normal(size=200)
    fit = fit_logistic(pred, label)
    assert plcc_fitted(pred, label, fit) == plcc_fitted(pred, label) > plcc(pred, label) + 0.02
    assert plcc_fitted(pred, label) > 0.99
    assert np.all(np.diff(fit.predict(np.sort(pred))) >= 0)


def test_a_curve_of_the_other_bend_is_never_made_worse():
    label = np.linspace(0.01, 0.99, 200)
    pred = expit(12 * (label - 0.5))
    assert plcc_fitted(pred, label) > plcc(pred, label) - 1e-4


def test_a_straight_line_is_within_reach():
    x = np.linspace(0, 1, 50)
    assert plcc_fitted(x, x) == pytest.approx(1, abs=1e-5)


def test_far_predictions_do_not_overflow():
    x = np.linspace(0, 1, 50)
    with np.errstate(all="raise", under="ignore"):
        assert np.all(np.isfinite(fit_logistic(x, x > 0.5).predict([-1e9, 1e9])))


@pytest.mark.parametrize(
    ("pred", "label", "reason"),
    [
        (np.arange(9), np.arange(9), "9 points, at least 10"),
        (np.ones(20), np.arange(20), "all 20 predictions are the same"),
        (np.arange(20), np.ones(20), "all 20 labels are the same"),
        (np.arange(20), -np.arange(20), "flat"),
    ],
)
@pytest.mark.parametrize("parameters", [4, 5])
def test_a_fit_that_fails_says_why(pred, label, reason, parameters):
    fit = fit_logistic(pred, label, parameters)
    assert not fit.converged
    assert reason in fit.reason
    assert math.isnan(plcc_fitted(pred, label))
    with pytest.raises(ValueError, match="no logistic was fitted"):
        fit.predict(pred)


@pytest.mark.parametrize("parameters", [4, 5])
def test_of_many_points_the_fit_is_that_of_all_starts(monkeypatch, parameters):
    """Only one start goes over all of them, and what it finds is as good."""
    rng = np.random.default_rng(2)
    pred = rng.normal(50, 20, 3000)
    label = expit((pred - 60) / 5) + 0.2 * rng.normal(size=3000)
    slow = fit_logistic(pred, label, parameters)
    sizes, residuals = [], correlations._residuals
    monkeypatch.setattr(correlations, "_MANY", 500)
    monkeypatch.setattr(correlations, "_residuals", lambda place, z, *rest: sizes.append(len(z)) or residuals(place, z, *rest))
    quick = fit_logistic(pred, label, parameters)
    assert quick.converged
    assert plcc_fitted(pred, label, quick) == pytest.approx(plcc_fitted(pred, label, slow), abs=1e-6)
    assert quick.params != slow.params
    assert sizes.count(3000) < 10 < len(sizes)
    assert {s for s in sizes if s < 3000} == {500}


@pytest.mark.parametrize("size", [501, 999, 1000, 1001, 1499])
def test_any_number_of_points_beyond_many_is_fitted(monkeypatch, size):
    rng = np.random.default_rng(size)
    pred = rng.normal(size=size)
    label = expit(pred) + 0.1 * rng.normal(size=size)
    slow = fit_logistic(pred, label)
    monkeypatch.setattr(correlations, "_MANY", 500)
    assert plcc_fitted(pred, label, fit_logistic(pred, label)) == pytest.approx(plcc_fitted(pred, label, slow), abs=1e-6)


def test_an_optimiser_that_never_converges_is_flagged(monkeypatch, pair):
    monkeypatch.setattr(correlations, "least_squares", lambda *_, **__: type("Result", (), {"success": False}))
    assert "did not converge" in fit_logistic(*pair).reason


@pytest.mark.parametrize("n", [20_010, 20_012, 20_024, 40_001])
def test_one_prediction_that_differs_among_very_many_is_no_crash(n):
    """The points of which the best start is asked may all be equal then."""
    label = np.random.default_rng(0).random(n)
    fit = fit_logistic(np.r_[np.zeros(n - 1), 1.0], label)
    assert fit.converged == (fit.params is not None)
