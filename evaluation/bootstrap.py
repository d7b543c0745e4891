"""Uncertainty of a comparison: a cluster bootstrap over source images, paired differences, and Holm's correction.

Regions of one photograph are not independent, so photographs are drawn, with replacement, and each brings all of its regions. A draw is
a vector of integer weights on the rows: correlations under weights equal those of the rows written out that often, ties included, and
nothing is sorted twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student
from tqdm.auto import tqdm

from evaluation.correlations import Vector, paired

Statistic = Callable[[Vector], float]

FEW_SOURCES = 10  # below it an interval is given, and said to be no more than a hint; a p-value is not


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval of 95 %, all nan where they do not exist.

    Attributes:
        estimate: the statistic of the data themselves.
        p: two-sided, of the hypothesis that the statistic is 0; for a difference, that two models are equal; nan where `few`.
        few: whether the sources are fewer than `FEW_SOURCES`: the interval is then a hint.
    """

    estimate: float
    low: float
    high: float
    p: float
    few: bool


class Ranks:
    """A column's order, found once; its mean ranks under any integer weights, in linear time."""

    def __init__(self, values: ArrayLike) -> None:
        _, self.level = np.unique(np.asarray(values, np.float64), return_inverse=True)

    def __call__(self, weights: Vector) -> Vector:
        """Mean ranks (N,) of the rows, each row standing `weights` (N,) times."""
        total = np.bincount(self.level, weights)
        ranks: Vector = (np.cumsum(total) - (total - 1) / 2)[self.level]
        return ranks


def weighted_plcc(x: Vector, y: Vector, weights: Vector) -> float:
    """Pearson's correlation of two (N,) vectors, each row standing `weights` times; nan where one side is constant."""
    total = weights.sum()
    a, b = x - weights @ x / total, y - weights @ y / total
    wa = weights * a
    power = math.sqrt((wa @ a) * (weights @ (b * b)))
    return float(wa @ b) / power if power > 0 else math.nan


def srcc_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Spearman's correlation as a function of the rows' weights."""
    x, y = paired(pred, label)
    first, second = Ranks(x), Ranks(y)
    return lambda weights: weighted_plcc(first(weights), second(weights), weights)


def plcc_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Pearson's correlation, without a fit, as a function of the rows' weights."""
    x, y = paired(pred, label)
    return lambda weights: weighted_plcc(x, y, weights)


def rmse_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Root mean squared error as a function of the rows' weights."""
    x, y = paired(pred, label)
    squares = (x - y) ** 2
    return lambda weights: math.sqrt(float(weights @ squares) / float(weights.sum()))


def macro_f1_of(label: NDArray[np.bool_], pred: NDArray[np.bool_]) -> Statistic:
    """Mean F1 over the classes that occur in a draw, as a function of the rows' weights; both sides are (N, classes)."""
    both, either = (label & pred).astype(np.float64), label.astype(np.float64) + pred

    def statistic(weights: Vector) -> float:
        hit, size = weights @ both, weights @ either
        seen = size > 0
        return float(np.mean(2 * hit[seen] / size[seen])) if seen.any() else math.nan

    return statistic


def resample(
    statistics: Sequence[Statistic], sources: ArrayLike, draws: int = 1000, seed: int = 0, bar: bool = False
) -> NDArray[np.float64]:
    """The statistics (draws + 1, S) of the data themselves (row 0) and of `draws` draws of whole sources, the same for all of them.

    Args:
        sources: of each row, (N,).

    Raises:
        ValueError: no rows, or draws below 1.
    """
    names, source = np.unique(np.asarray(sources), return_inverse=True)
    if not len(names) or draws < 1:
        raise ValueError(f"{len(names)} sources and {draws} draws: a bootstrap needs at least one of each")
    rng = np.random.default_rng(seed)
    out = np.full((draws + 1, len(statistics)), math.nan)
    for draw in tqdm(range(draws + 1), desc="bootstrap", unit="draw", disable=not bar):
        counts = np.ones(len(names)) if draw == 0 else rng.multinomial(len(names), np.full(len(names), 1 / len(names))).astype(np.float64)
        weights = counts[source]
        out[draw] = [statistic(weights) for statistic in statistics]
    return out


def interval(values: Vector, sources: int, level: float = 0.95) -> Interval:
    """The expanded percentile interval of one statistic, from its values (draws + 1,), the data's own first.

    Plain percentiles are too narrow where sources are few: the levels are moved as Student's t is from the normal, and for the
    variance that n clusters lose, sqrt(n / (n - 1)) (Hesterberg, "What teachers should know about the bootstrap", 2015).
    """
    estimate, draws = float(values[0]), values[1:][np.isfinite(values[1:])]
    if sources < 2 or not len(draws) or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan, math.nan, True)
    tail = float(norm.cdf(math.sqrt(sources / (sources - 1)) * student.ppf((1 - level) / 2, sources - 1)))
    low, high = np.quantile(draws, (tail, 1 - tail))
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    few = sources < FEW_SOURCES
    return Interval(estimate, float(low), float(high), math.nan if few else min(1.0, 2 * (beyond + 1) / (len(draws) + 1)), few)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values that exist; nan stays nan and counts for nothing."""
    known = sorted((value, k) for k, value in enumerate(p) if not math.isnan(value))
    out, highest = [math.nan] * len(p), 0.0
    for rank, (value, k) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        out[k] = highest
    return out
