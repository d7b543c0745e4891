"""Uncertainty of a comparison: a cluster bootstrap over source images, paired differences, and Holm's correction.

Regions of one photograph are not independent, so photographs are drawn, with replacement, and each brings all of its regions. A draw is
a vector of integer weights on the rows: correlations under weights equal those of the rows written out that often, ties included, and
nothing is sorted twice. The draws give a standard error, and that gives interval and p-value alike, so that the two agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from tqdm.auto import tqdm

from evaluation.correlations import Vector, paired

Weights = NDArray[np.float64]  # (draws, N): how often each row stands in each draw
Statistic = Callable[[Weights], Vector]  # -> (draws,), nan where a draw has no such number
Scale = Literal["plain", "fisher", "log", "logit"]

FEW_SOURCES = 10  # below it an interval is given, and said to be no more than a hint; a p-value is not
UNDEFINED = 0.01  # the share of draws without a number from which on there is no interval
_SAME = 1e-12  # differences of two correlations below it are rounding
_LEAST = float(np.finfo(np.float64).eps)  # of a p-value: 0 would claim what no sample shows
_CHUNK = 2**20  # weights held at once

# Of each scale: there, its slope, and back. Off the plain one no interval leaves the values that the statistic can have.
_SCALES: dict[Scale, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]] = {
    "plain": (lambda x: x, lambda x: 1.0, lambda z: z),
    "fisher": (math.atanh, lambda x: 1 / (1 - x * x), math.tanh),
    "log": (math.log, lambda x: 1 / x, math.exp),
    "logit": (lambda x: math.log(x / (1 - x)), lambda x: 1 / (x * (1 - x)), lambda z: 0.5 + 0.5 * math.tanh(z / 2)),
}


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval of 95 %, nan where it does not exist.

    Attributes:
        estimate: the statistic of the data themselves.
        se: its standard error, over sources.
        few: whether the sources are fewer than `FEW_SOURCES`: the interval is then a hint.
        undefined: how many draws had no such number; with more than 1 % of them there is no interval.
    """

    estimate: float
    low: float
    high: float
    se: float
    few: bool
    undefined: int


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference of two models.

    Attributes:
        p: two-sided, of the hypothesis that the two are equal; nan where the sources are few, there is no interval, or no draw varies.
    """

    p: float


class Ranks:
    """A column's order, found once; its mean ranks under any integer weights, in linear time."""

    def __init__(self, values: ArrayLike) -> None:
        _, self.level, sizes = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
        self.order = np.argsort(self.level, kind="stable")
        self.starts = np.cumsum(sizes) - sizes

    def __call__(self, weights: Weights) -> Weights:
        """Mean ranks (draws, N) of the rows, each standing `weights` (draws, N) times."""
        total = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        ranks: Weights = (np.cumsum(total, axis=1) - (total - 1) / 2)[:, self.level]
        return ranks


def weighted_plcc(x: NDArray[np.float64], y: NDArray[np.float64], weights: Weights) -> Vector:
    """Pearson's correlation (draws,) of (N,) or (draws, N) each, rows standing `weights` times; nan where one side is constant."""
    a, power_a = _centred(x, weights)
    b, power_b = _centred(y, weights)
    power = np.sqrt(power_a) * np.sqrt(power_b)
    return np.divide(_dot(weights * a, b), power, out=np.full(len(weights), math.nan), where=power > 0)


def srcc_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Spearman's correlation as a function of the rows' weights; 0 in a draw of equal predictions, as `protocols.within_image` has it."""
    x, y = paired(pred, label)
    first, second = Ranks(x), Ranks(y)
    return _unordered_is_zero(lambda weights: weighted_plcc(first(weights), second(weights), weights), x, y)


def plcc_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Pearson's correlation, without a fit, as a function of the rows' weights; 0 in a draw of equal predictions."""
    x, y = paired(pred, label)
    return _unordered_is_zero(lambda weights: weighted_plcc(x, y, weights), x, y)


def rmse_of(pred: ArrayLike, label: ArrayLike) -> Statistic:
    """Root mean squared error as a function of the rows' weights."""
    x, y = paired(pred, label)
    squares = (x - y) ** 2
    return lambda weights: np.sqrt(weights @ squares / weights.sum(axis=1))


def macro_f1_of(label: NDArray[np.bool_], pred: NDArray[np.bool_]) -> Statistic:
    """Mean F1 over the classes that occur in a draw, as a function of the rows' weights; both sides are (N, classes)."""
    both, either = (label & pred).astype(np.float64), label.astype(np.float64) + pred

    def statistic(weights: Weights) -> Vector:
        size = weights @ either  # (draws, classes)
        f1 = np.divide(2 * (weights @ both), size, out=np.zeros_like(size), where=size > 0)
        seen = (size > 0).sum(axis=1)
        return np.divide(f1.sum(axis=1), seen, out=np.full(len(weights), math.nan), where=seen > 0)

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
    n = len(names)
    if not n or draws < 1:
        raise ValueError(f"{n} sources and {draws} draws: a bootstrap needs at least one of each")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // len(source))
    out = np.full((draws + 1, len(statistics)), math.nan)
    out[0] = [statistic(np.ones((1, len(source))))[0] for statistic in statistics]
    with tqdm(total=draws, desc="bootstrap", unit="draw", disable=not bar) as shown:
        for start in range(1, draws + 1, at_once):
            counts = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, draws + 1 - start)).astype(np.float64)
            weights = counts[:, source]
            out[start : start + len(counts)] = np.stack([statistic(weights) for statistic in statistics], axis=1)
            shown.update(len(counts))
    return out


def interval(values: Vector, sources: int, scale: Scale = "plain", level: float = 0.95) -> Interval:
    """The interval of one statistic, from its values (draws + 1,), the data's own first: Student's t on the bootstrap's standard error.

    Of n sources the draws' standard deviation is that of n, not n - 1, so it is widened by sqrt(n / (n - 1)), and t has n - 1 degrees of
    freedom (Hesterberg, "What teachers should know about the bootstrap", 2015). On another scale than the plain one the error is carried
    there by the scale's slope.
    """
    estimate, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    few, undefined = sources < FEW_SOURCES, len(values) - 1 - len(drawn)
    if sources < 2 or len(drawn) < 2 or undefined > UNDEFINED * (len(values) - 1) or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan, math.nan, few, undefined)
    se = float(np.std(drawn, ddof=1)) * math.sqrt(sources / (sources - 1))
    if se < _SAME:
        return Interval(estimate, estimate, estimate, 0.0, few, undefined)
    there, slope, back = _SCALES[scale]
    half = float(student.ppf((1 + level) / 2, sources - 1)) * se * slope(estimate)
    return Interval(estimate, back(there(estimate) - half), back(there(estimate) + half), se, few, undefined)


def difference(first: Vector, second: Vector, sources: int) -> Difference:
    """The difference first - second of a statistic drawn together, (draws + 1,) each: p is below 0.05 where the interval lacks 0."""
    found = interval(first - second, sources)
    return Difference(**vars(found), p=math.nan if found.few else _p(found, sources))


def _p(found: Interval, sources: int) -> float:
    if found.se > 0:
        return max(_LEAST, float(2 * student.sf(abs(found.estimate) / found.se, sources - 1)))
    return 1.0 if found.se == 0 and abs(found.estimate) < _SAME else math.nan


def _centred(x: NDArray[np.float64], weights: Weights) -> tuple[NDArray[np.float64], Vector]:
    """The deviations (draws, N) from each draw's mean, and their power (draws,): 0 where the rows that stand are equal."""
    mean = _dot(weights, x) / weights.sum(axis=1)
    deviation = x - mean[:, None]
    power = np.einsum("dn,dn,dn->d", weights, deviation, deviation)
    # a rounded mean leaves some power to a constant: where it is as small as that, the values themselves are asked
    for draw in np.flatnonzero(power <= weights.sum(axis=1) * (1e-8 * mean) ** 2):
        standing = np.broadcast_to(x, weights.shape)[draw][weights[draw] > 0]
        power[draw] *= np.ptp(standing) > 0
    return deviation, power


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> Vector:
    found: Vector = a @ b if b.ndim == 1 else np.einsum("dn,dn->d", a, b)
    return found


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


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values that exist; nan stays nan and counts for nothing."""
    known = sorted((value, k) for k, value in enumerate(p) if not math.isnan(value))
    out, highest = [math.nan] * len(p), 0.0
    for rank, (value, k) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        out[k] = highest
    return out
