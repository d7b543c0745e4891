"""The statistics of a comparison as functions of how often each row stands: what the draws of `bootstrap` are made of.

A draw is a vector of weights on the rows. Statistics under weights equal those of the rows written out that often, ties included, and
nothing is sorted twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.correlations import Vector, fit_logistic, paired
from evaluation.grouped import within

_CANCELLED = 1e-5  # of a power: below that share, its digits have cancelled out

Weights = NDArray[np.float64]  # (draws, N): how often each row stands in each draw
Statistic = Callable[[Weights], Vector]  # -> (draws,), nan where a draw has no such number


class Ranks:
    """A column's order, found once; what Spearman's correlation needs of its mean ranks under any integer weights, in linear time."""

    def __init__(self, values: ArrayLike) -> None:
        level, sizes = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)[1:]
        self._order = np.argsort(level, kind="stable")
        self._level = None if len(sizes) == len(level) else level[self._order]  # along the order; None where no two values are equal
        self._starts = np.cumsum(sizes) - sizes
        self._last: tuple[Weights, tuple[Weights, Vector]] | None = None

    def __call__(self, weights: Weights) -> tuple[Weights, Vector]:
        """Each row's rank less the mean of all, as often as it stands (draws, N), and the power (draws,) of these ranks; those of the last
        weights are kept."""
        if self._last is None or self._last[0] is not weights:
            total = self._summed(weights)
            ranks = np.cumsum(total, axis=1) - total / 2
            ranks -= weights.sum(axis=1)[:, None] / 2  # a mean rank is half a place further, and so is the mean of all
            found = np.empty_like(weights)
            found[:, self._order] = ranks if self._level is None else np.take(ranks, self._level, axis=1)
            self._last = weights, (np.multiply(found, weights, out=found), _power(total))
        return self._last[1]

    def along(self, weights: Weights, other: Weights) -> tuple[Vector, Vector]:
        """The products (draws,) of another column's ranks, as a call gives them, with these, summed, and the power (draws,) of these."""
        total, summed = self._summed(weights), self._summed(other)
        product = np.einsum("dl,dl->d", summed, np.cumsum(total, axis=1)) - np.einsum("dl,dl->d", summed, total) / 2
        return product, _power(total)

    def _summed(self, columns: Weights) -> Weights:
        """Columns (draws, N) of the rows, summed over those of each level: (draws, L)."""
        sorted_ = np.take(columns, self._order, axis=1)
        return sorted_ if self._level is None else np.asarray(np.add.reduceat(sorted_, self._starts, axis=1), np.float64)


def _power(total: Weights) -> Vector:
    """The squared distances of mean ranks from their mean, summed over the rows (draws,), of how many rows each level has (draws, L)."""
    size = total.sum(axis=1)
    return np.asarray(size * size * size - np.einsum("dl,dl->d", total * total, total), np.float64) / 12


class _Moments:
    """Pearson's correlation by sums of products, of two columns (N,) less their means; by deviations where those cancel out."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        self.x, self.y = x - x.mean(), y - y.mean()
        self.products = np.stack([np.ones_like(x), self.x, self.y, self.x**2, self.y**2, self.x * self.y], axis=1)

    def __call__(self, weights: Weights) -> Vector:
        size, x, y, xx, yy, xy = (weights @ self.products).T
        power_x, power_y = xx - x * x / size, yy - y * y / size
        power = np.sqrt(np.maximum(power_x, 0)) * np.sqrt(np.maximum(power_y, 0))
        found = np.divide(xy - x * y / size, power, out=np.full(len(weights), math.nan), where=power > 0)
        lost = np.flatnonzero((power_x <= _CANCELLED * xx) | (power_y <= _CANCELLED * yy))
        found[lost] = [self._of_deviations(w) for w in weights[lost]]
        return found

    def _of_deviations(self, weights: Vector) -> float:
        stand = weights > 0
        x, y, w = self.x[stand], self.y[stand], weights[stand]
        if not len(w) or np.ptp(x) == 0 or np.ptp(y) == 0:
            return math.nan
        x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
        return float((w * x) @ y / (math.sqrt((w * x) @ x) * math.sqrt((w * y) @ y)))


def srcc_of(pred: ArrayLike, label: ArrayLike, ranks: Ranks | None = None) -> Statistic:
    """Spearman's correlation as a function of the rows' weights; 0 in a draw of equal predictions, as `protocols.within_image` has it.

    Args:
        ranks: of the labels, where several models share them: those of a draw are then found once.
    """
    x, y = paired(pred, label)
    first, second = Ranks(x), ranks or Ranks(y)

    def correlation(weights: Weights) -> Vector:
        counted, power_label = second(weights)
        product, power_pred = first.along(weights, counted)
        power = np.sqrt(power_pred) * np.sqrt(power_label)
        return np.divide(product, power, out=np.full(len(weights), math.nan), where=power > 0)

    return _unordered_is_zero(correlation, x, y)


def plcc_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Pearson's correlation, without a fit, as a function of the rows' weights; 0 in a draw of equal predictions."""
    x, y = paired(pred, label)
    return _unordered_is_zero(_Moments(x, y), x, y)


def plcc_fitted_of(pred: ArrayLike, label: ArrayLike) -> Statistic | None:
    """Pearson's correlation after the logistic of these rows; None where there is no fit.

    The curve is kept in every draw. As it is that of the least error, to first order the correlation does not change with it.
    """
    fit = fit_logistic(pred, label)
    return plcc_of(fit.predict(pred), label) if fit.converged else None


def krcc_of(pred: ArrayLike, label: ArrayLike, sources: ArrayLike) -> Statistic:
    """Kendall's tau-b as a function of weights that rows of one source share; 0 in a draw of equal predictions.

    Exact where one source is left out. Where several weights differ from 1, pairs of rows of two such sources count as often as the sum
    of their weights less 1 says, not the product, which spares every draw a sort of its own: those that are ordered alike and all that
    are not tied, so that what is ordered perfectly is so in every draw.
    """
    x, y = paired(pred, label)
    source = np.unique(np.asarray(sources), return_inverse=True)[1]

    def pairs(a: Vector, b: Vector) -> Statistic:
        every, own = agreement(a, b), _agreement_within(a, b, source)
        return lambda weights: 2 * weights @ every - every.sum() + (weights - 1) ** 2 @ own

    alike, first, second = pairs(x, y), pairs(x, x), pairs(y, y)  # with itself, a column agrees in all pairs that are not tied

    def statistic(weights: Weights) -> Vector:
        power = np.sqrt(np.maximum(first(weights), 0)) * np.sqrt(np.maximum(second(weights), 0))
        found = np.divide(alike(weights), power, out=np.full(len(weights), math.nan), where=power > 0)
        return np.clip(found, -1, 1)

    return _unordered_is_zero(statistic, x, y)


def agreement(x: ArrayLike, y: ArrayLike) -> Vector:
    """Of each row, how many rows it is ordered with alike in both columns, less how many it is ordered with otherwise; (N,) of (N,) each.

    Counted as a merge sort would, a power of two of rows at a time, in time N log(N)^2.
    """
    levels_x, levels_y = (np.unique(np.asarray(v), return_inverse=True)[1].astype(np.int64) for v in (x, y))
    order = np.lexsort((-levels_y, levels_x))
    x, y = levels_x[order], levels_y[order]
    place, levels = np.arange(len(x)), int(y.max(initial=0)) + 1
    below, upto = np.zeros_like(place), np.zeros_like(place)  # of the rows before: those with a smaller y, and those with none greater
    for power in range((len(x) - 1).bit_length() if len(x) else 0):
        block, late = place >> (power + 1), (place >> power) & 1 == 1
        keys = block * levels + y
        known, wanted, before = np.sort(keys[~late]), keys[late], block[late] << power
        below[late] += np.searchsorted(known, wanted) - before
        upto[late] += np.searchsorted(known, wanted, side="right") - before
    pair = x * levels - y  # never falls along this order
    first, start, end = np.searchsorted(x, x), np.searchsorted(pair, pair), np.searchsorted(pair, pair, side="right")
    smaller = below + upto - (place - start) - first  # y against that of the rows with a smaller x
    equal = (np.searchsorted(x, x, side="right") - end) - (start - first)  # and of those with the same
    column = np.sort(y)
    every = np.searchsorted(column, y) - (len(y) - np.searchsorted(column, y, side="right"))
    out = np.empty(len(x))
    out[order] = 2 * smaller - every + equal
    return out


def within_of(pred: ArrayLike, label: ArrayLike, image: ArrayLike, least: int) -> Ratio:
    """The mean of Spearman's correlation within images of at least `least` rows whose labels differ, as `protocols.within_image` has it.

    Weights that rows of an image share are how often the image stands.
    """
    own, first = _groups(image)
    found = within(pred, label, own)
    counted = (found.sizes >= least) & ~np.isnan(found.srcc)
    above, below = np.zeros(len(own)), np.zeros(len(own))
    above[first], below[first] = np.where(counted, found.srcc, 0.0), counted
    return ratio_of(above, below)


def pair_accuracy_of(pred: ArrayLike, label: ArrayLike, image: ArrayLike) -> Ratio:
    """The share of an image's pairs with differing labels that are ordered rightly, as `protocols.pair_accuracy` has it."""
    x, y = paired(pred, label)
    own, _ = _groups(image)
    same = np.unique(np.stack([own, np.unique(y, return_inverse=True)[1]]), axis=1, return_inverse=True, return_counts=True)
    differing = np.bincount(own)[own] - same[2][same[1].reshape(-1)]  # of each row's image, the rows of another label
    return ratio_of((_agreement_within(x, y, own) + differing) / 2, differing)


def _groups(names: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row its group, 0 to G - 1, and of each group its first row."""
    _, first, own = np.unique(np.asarray(names), return_index=True, return_inverse=True)
    return own, first


def _agreement_within(x: Vector, y: Vector, source: NDArray[np.int64]) -> Vector:
    """`agreement` with the rows of the same source: shifted apart, rows of two sources are all ordered alike."""
    first, second = (np.unique(v, return_inverse=True)[1] + source * len(v) for v in (x, y))
    others: Vector = agreement(first, second) - (len(x) - np.bincount(source)[source])
    return others


@dataclass(frozen=True)
class Ratio:
    """A sum over the rows by another, (N,) each, as a function of the rows' weights; nan where the second is 0."""

    above: Vector
    below: Vector

    def __call__(self, weights: Weights) -> Vector:
        size = weights @ self.below
        return np.divide(weights @ self.above, size, out=np.full(len(weights), math.nan), where=size > 0)


def ratio_of(above: ArrayLike, below: ArrayLike | None = None) -> Ratio:
    """A sum over the rows by another, (N,) each, by default by their number."""
    parts = np.asarray(above, np.float64)
    return Ratio(parts, np.ones_like(parts) if below is None else np.asarray(below, np.float64))


def rmse_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Root mean squared error as a function of the rows' weights."""
    x, y = paired(pred, label)
    squared = ratio_of((x - y) ** 2)
    return lambda weights: np.sqrt(squared(weights))


def macro_f1_of(label: NDArray[np.bool_], pred: NDArray[np.bool_]) -> Statistic:
    """Mean F1 over the classes that occur in a draw, as a function of the rows' weights; both sides are (N, classes)."""
    both, either = (label & pred).astype(np.float64), label.astype(np.float64) + pred

    def statistic(weights: Weights) -> Vector:
        size = weights @ either  # (draws, classes)
        f1 = np.divide(2 * (weights @ both), size, out=np.zeros_like(size), where=size > 0)
        seen = (size > 0).sum(axis=1)
        return np.divide(f1.sum(axis=1), seen, out=np.full(len(weights), math.nan), where=seen > 0)

    return statistic


def _unordered_is_zero(correlation: Statistic, pred: Vector, label: Vector) -> Statistic:
    """A draw of equal predictions orders nothing: 0, unless they never vary, or its labels do not either."""
    if np.ptp(pred) == 0:
        return correlation

    def statistic(weights: Weights) -> Vector:
        found = correlation(weights)
        for draw in np.flatnonzero(np.isnan(found)):
            found[draw] = 0.0 if np.ptp(label[weights[draw] > 0]) > 0 else math.nan
        return found

    return statistic
