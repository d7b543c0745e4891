"""Order within groups, for all groups at once: what a loop over images would take a minute for takes a second.

Everything is counted in ranks, which are whole or half numbers, so nothing is lost to rounding on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.correlations import Vector, paired

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Within:
    """Spearman's correlation within each of G groups.

    Attributes:
        srcc: (G,), 0 where all predictions of a group are equal, nan where all its labels are.
        sizes: (G,) members.
    """

    srcc: Vector
    sizes: Indices


def within(pred: ArrayLike, label: ArrayLike, group: ArrayLike) -> Within:
    """Spearman's correlation, ties by mean rank, within the groups 0 to G - 1 of (N,) predictions and labels; each has a member."""
    x, y = paired(pred, label)
    own = np.asarray(group, np.int64)
    sizes = np.bincount(own)
    middle = (sizes[own] + 1) / 2
    a, b = (_ranks(v, own) - middle for v in (x, y))
    both, power_a, power_b = (np.bincount(own, weights=w) for w in (a * b, a * a, b * b))
    power = np.sqrt(power_a * power_b)
    srcc = np.divide(both, power, out=np.zeros(len(both)), where=power > 0)
    srcc[power_b == 0] = np.nan
    return Within(srcc, sizes)


def ordered_pairs(pred: ArrayLike, label: ArrayLike, group: ArrayLike) -> tuple[float, int]:
    """Of the pairs of one group's members with differing labels: how many the predictions order rightly, a tie counting half; how many
    there are. Numbers are counted, not sampled, in N log N steps however large a group is."""
    x, y = paired(pred, label)
    own = np.asarray(group, np.int64)
    if not len(own):
        return 0.0, 0
    order = np.lexsort((x, y, own))
    of, labels, preds = own[order], y[order], x[order]
    pairs = _pairs(of) - _pairs(of, labels)
    tied = _pairs(*_sorted(own, x)) - _pairs(of, labels, preds)
    wrong = _inversions(_dense(x, own)[order], of)
    return pairs - wrong - tied / 2, pairs


def _sorted(own: Indices, values: Vector) -> tuple[Indices, Vector]:
    order = np.lexsort((values, own))
    return own[order], values[order]


def _starts(*columns: NDArray[np.generic]) -> Indices:
    """Where runs of equal rows begin."""
    new = np.ones(len(columns[0]), np.bool_)
    new[1:] = np.any([c[1:] != c[:-1] for c in columns], axis=0)
    return np.flatnonzero(new)


def _lengths(starts: Indices, n: int) -> Indices:
    return np.diff(np.append(starts, n))


def _pairs(*columns: NDArray[np.generic]) -> int:
    """Pairs within the runs of equal rows."""
    sizes = _lengths(_starts(*columns), len(columns[0]))
    return int((sizes * (sizes - 1) // 2).sum())


def _ranks(values: Vector, own: Indices) -> Vector:
    """Mean ranks (N,) within groups, from 1."""
    order = np.lexsort((values, own))
    of, sorted_ = own[order], values[order]
    starts = _starts(of, sorted_)
    sizes = _lengths(starts, len(values))
    begin = np.searchsorted(of, of[starts])  # of the run's group
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts - begin + (sizes + 1) / 2, sizes)
    return ranks


def _dense(values: Vector, own: Indices) -> Indices:
    """(N,) 0 for a group's smallest value, 1 for the next one, and so on."""
    order = np.lexsort((values, own))
    of, sorted_ = own[order], values[order]
    starts = _starts(of, sorted_)
    number = np.arange(len(starts)) - np.searchsorted(of[starts], of[starts])
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.repeat(number, _lengths(starts, len(values)))
    return ranks


def _inversions(ranks: Indices, own: Indices) -> int:
    """Pairs of one group whose earlier member has the higher rank; `own` rises.

    Ranks are looked at bit by bit, from the highest: among members that are equal so far, a 1 before a 0 is an inversion.
    """
    found = 0
    for bit in reversed(range(int(ranks.max()).bit_length())):
        high = ranks >> bit & 1
        ones = np.cumsum(high) - high  # before each
        starts = _starts(own)
        before = ones - np.repeat(ones[starts], _lengths(starts, len(own)))
        found += int(before[high == 0].sum())
        own = 2 * own + high
        order = np.argsort(own, kind="stable")
        own, ranks = own[order], ranks[order]
    return found
