import math

import numpy as np
import pytest
from scipy.stats import t as student

from evaluation.freedom import effective, freedom, outside


def test_sources_of_unequal_sizes_count_as_fewer():
    assert effective([7] * 12) == pytest.approx(12)
    assert effective([1] * 50 + [100]) == pytest.approx(1, abs=0.02)
    assert effective([]) == 0


@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize("n", [2, 5, 20, 300])
def test_equal_sizes_have_students_t(n, left_out):
    assert freedom([7] * n, left_out) == n - 1
    for quantile in (0.5, 2.0, 6.0):
        assert outside(quantile, [7], [n], left_out) == pytest.approx(2 * student.sf(quantile, n - 1), rel=1e-6)


def test_one_source_has_none():
    assert math.isnan(freedom([5]))


def test_there_are_never_more_than_of_equal_sizes():
    rng = np.random.default_rng(0)
    found = [freedom(rng.integers(1, 31, 40), left_out) for left_out in (True, False) for _ in range(10)]
    assert all(10 < f <= 39 for f in found)
    assert min(found) < 39


@pytest.mark.parametrize("left_out", [True, False])
@pytest.mark.parametrize(
    ("sizes", "weights"),
    [([3, 90, 7, 8, 20, 5], None), ([5] * 14 + [25], None), ([1, 2, 3, 4, 60], None), ([5] * 14 + [25], [10] * 14 + [300])],
)
def test_the_quantile_is_that_of_a_mean(sizes, weights, left_out):
    """Of simulated means of sources, whatever regions of one have in common, no more than said lie outside, and of the worst as many."""
    k, rng, quantile = np.array(sizes, np.float64), np.random.default_rng(0), 2.5
    counts = k if weights is None else np.array(weights, np.float64)
    share = counts / counts.sum()
    n, found = len(k), []
    for common in (0.0, 0.02, 0.1, 0.3, 0.6, 1.0):
        means = rng.normal(size=(100_000, n)) * np.sqrt(common + (1 - common) / k)
        estimate = means @ share
        away = share * (means - estimate[:, None])  # what each source moves
        if left_out:
            without = estimate[:, None] - away / (1 - share)
            error = np.std(without, axis=1) * math.sqrt(n - 1)
        else:
            error = np.sqrt((away**2).sum(axis=1) * n / (n - 1))
        found.append(np.mean(np.abs(estimate) > quantile * error))
    groups, times = np.unique(np.stack([k, counts]), axis=1, return_counts=True)
    expected = outside(quantile, groups[0], times, left_out, groups[1])
    assert max(found) == pytest.approx(expected, abs=0.003)  # three standard errors
    assert weights is None or expected > 2 * outside(quantile, groups[0], times, left_out)


def test_very_many_sizes_are_told_apart_nearly():
    sizes = np.random.default_rng(0).integers(1, 400, 1500)
    exact = student.isf(0.025, freedom(sizes[:90]))
    assert student.isf(0.025, freedom(sizes, left_out=False)) == pytest.approx(1.965, abs=0.005)
    assert student.isf(0.025, freedom(np.concatenate([sizes[:90], sizes[:20] + 1]))) == pytest.approx(exact, abs=0.03)
