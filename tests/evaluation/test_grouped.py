"""Against plain loops over the groups."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from evaluation.grouped import ordered_pairs, within


def drawn(seed, levels=0, groups=60, most=40):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rng.integers(1, most, groups))
    rng.shuffle(group)
    label = rng.random(len(group))
    pred = label + 0.5 * rng.normal(size=len(group))
    if levels:
        label, pred = np.round(label * levels) / levels, np.round(pred * levels)
    return pred, label, group


CASES = [drawn(0), drawn(1, levels=5), drawn(2, levels=2), drawn(3, groups=1, most=2000), drawn(4, groups=500, most=4)]


def loop_srcc(pred, label, group):
    out = []
    for g in range(group.max() + 1):
        x, y = pred[group == g], label[group == g]
        out.append(np.nan if np.ptp(y) == 0 else 0.0 if np.ptp(x) == 0 else spearmanr(x, y).statistic)
    return out


def loop_pairs(pred, label, group):
    right, pairs = 0.0, 0
    for g in range(group.max() + 1):
        x, y = pred[group == g], label[group == g]
        i, j = np.triu_indices(len(y), 1)
        order = np.sign(y[i] - y[j])
        right += ((np.sign(x[i] - x[j]) * order + 1) / 2)[order != 0].sum()
        pairs += (order != 0).sum()
    return right, pairs


@pytest.mark.parametrize("case", CASES)
def test_correlations_equal_the_loops(case):
    found = within(*case)
    np.testing.assert_allclose(found.srcc, loop_srcc(*case), rtol=0, atol=1e-12)
    assert found.sizes.tolist() == np.bincount(case[2]).tolist()


@pytest.mark.parametrize("case", CASES)
def test_pairs_are_exactly_the_loops(case):
    assert ordered_pairs(*case) == loop_pairs(*case)


def test_by_hand():
    pred, label, group = [0.0, 0.5, 1.0, 0.7, 0.7, 0.7], [0.1, 0.2, 0.3, 0.1, 0.2, 0.3], [1, 1, 1, 0, 0, 0]
    assert within(pred, label, group).srcc.tolist() == [0, 1]
    assert ordered_pairs(pred, label, group) == (3 + 1.5, 6)
    assert ordered_pairs([3, 2, 1], [1, 2, 3], [0, 0, 0]) == (0, 3)
    assert ordered_pairs([1, 2], [5, 5], [0, 0]) == (0, 0)
    assert ordered_pairs([], [], []) == (0, 0)
    assert len(within([], [], []).srcc) == 0


def test_one_group_of_many_is_counted_without_a_table_of_its_pairs():
    """Half of the 2e10 pairs would not fit in memory; with reversed labels none is right."""
    x = np.arange(200_000.0)
    pairs = 200_000 * 199_999 // 2
    group = np.zeros(len(x), np.int64)
    assert ordered_pairs(x, x, group) == (pairs, pairs)
    assert ordered_pairs(-x, x, group) == (0, pairs)
    assert within(x, -x, group).srcc.tolist() == pytest.approx([-1], abs=1e-12)


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 pairs are not finite"):
        within([1, np.nan], [1, 2], [0, 0])
    with pytest.raises(ValueError, match="1 of 2 pairs are not finite"):
        ordered_pairs([1, np.nan], [1, 2], [0, 0])
