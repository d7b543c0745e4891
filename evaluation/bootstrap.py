"""Uncertainty of a comparison: a jackknife and a bootstrap over source images, paired differences, and Holm's correction.

Regions of one photograph are not independent, so photographs are left out one at a time, and drawn with replacement, and each takes all of
its regions along. Where they are few the first gives the standard error, since the second's is too small, and the second only tells
whether the number always exists. Student's t on the error, on a scale on which it depends little on the value, gives interval and p-value
alike, so that the two agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import t as student
from tqdm.auto import tqdm

from evaluation.correlations import Vector
from evaluation.freedom import OUTSIDE, effective, freedom
from evaluation.weighted import Ratio, Statistic

Scale = Literal["plain", "fisher", "reciprocal", "logit", "ceiling"]

FEW_SOURCES = 20  # effective ones; below it an interval is given, and said to be no more than a hint
FEW_WITHIN = 40  # the same of a mean within images: a few bad ones of three regions, there or not, move it far
UNTESTED_SOURCES = 10  # below it there is no p-value either
SIGNIFICANT = 0.05  # a corrected p below it: a difference is told from chance
MANY_SOURCES = 200  # above it none is left out: jackknife and bootstrap agree, and the first would take longer
UNDEFINED = 0.01  # the share of draws without a number from which on there is no interval
# Of each statistic of a comparison the scale of its interval; and the effective sources below which that is a hint, where they are others.
SCALE: dict[str, Scale] = {
    **dict.fromkeys(("srcc", "plcc", "plcc_fitted", "krcc"), "fisher"),
    "rmse": "reciprocal",
    "within_image_srcc": "ceiling",
    **dict.fromkeys(("pair_accuracy", "macro_f1", "accuracy"), "logit"),
}
LEAST = {"within_image_srcc": FEW_WITHIN}
_SAME = 1e-12  # differences of two correlations below it are rounding
_LEAST = float(np.finfo(np.float64).eps)  # of a p-value: 0 would claim what no sample shows
_CHUNK = 2**20  # weights held at once

# Of each scale: there, its slope, and back. Off the plain one no interval leaves the values that the statistic can have.
_SCALES: dict[Scale, tuple[Callable[[Vector], Vector], Callable[[Vector], Vector], Callable[[Vector], Vector]]] = {
    "plain": (lambda x: x, np.ones_like, lambda z: z),
    "fisher": (np.arctanh, lambda x: 1 / (1 - x * x), np.tanh),
    "logit": (lambda x: np.log(x / (1 - x)), lambda x: 1 / (x * (1 - x)), lambda z: 0.5 + 0.5 * np.tanh(z / 2)),
    # of an error within [0, 1], by its square
    "reciprocal": (lambda x: -1 / x**2, lambda x: 2 / x**3, lambda z: 1 / np.sqrt(np.maximum(1, -z))),
    # of a mean within [-1, 1], by what it lacks of 1
    "ceiling": (lambda x: (1 - x) ** -0.5, lambda x: 0.5 * (1 - x) ** -1.5, lambda z: 1 - np.maximum(z, 0.5**0.5) ** -2),
}
# The least and the largest value on each scale; an error's are those of its square.
_RANGE: dict[Scale, tuple[float, float]] = {"fisher": (-1, 1), "logit": (0, 1), "reciprocal": (0, 1), "ceiling": (-1, 1)}


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval of 95 %, nan where it does not exist.

    Attributes:
        estimate: the statistic of the data themselves.
        se: its standard error, over sources.
        few: whether the effective sources are fewer than `FEW_SOURCES`, or `FEW_WITHIN` for a mean within images: the interval is then
            a hint.
        undefined: how many draws had no such number; with more than 1 % of them there is no interval. Up to `MANY_SOURCES` that is all that
            draws are for.
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
        p: two-sided, of the hypothesis that the two are equal; nan where it is untested, there is no interval, or no draw varies.
        untested: whether the sources are fewer than `UNTESTED_SOURCES`.
    """

    p: float
    untested: bool


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


def leave_out(statistics: Sequence[Statistic], sources: ArrayLike) -> NDArray[np.float64] | None:
    """The statistics (n, S) without each of the n sources in turn; None where these are more than `MANY_SOURCES`."""
    source = np.unique(np.asarray(sources), return_inverse=True)[1]
    n = int(source.max(initial=-1)) + 1
    if n > MANY_SOURCES:
        return None
    out = np.full((n, len(statistics)), math.nan)
    at_once = max(1, _CHUNK // max(1, len(source)))
    for start in range(0, n if n > 1 else 0, at_once):
        left = np.arange(start, min(start + at_once, n))
        weights = (source != left[:, None]).astype(np.float64)
        out[left] = np.stack([statistic(weights) for statistic in statistics], axis=1)
    return out


@dataclass(frozen=True)
class Sample:
    """A statistic of the data themselves, of the draws, and of what is left without each source.

    Attributes:
        values: (draws + 1,), the data's own first.
        sizes: regions of each source, (n,).
        without: (n,), None where the draws are to give the error.
        weights: how much each source counts in a statistic that is a mean over something else than regions, (n,).
    """

    values: Vector
    sizes: NDArray[np.int64]
    without: Vector | None = None
    weights: Vector | None = None

    @property
    def freedom(self) -> float:
        """Degrees of freedom of t, by what each source counts."""
        return freedom(self.sizes, self.without is not None, self.weights)

    @property
    def undefined(self) -> int:
        """How many draws have no number."""
        return int(np.isnan(self.values[1:]).sum())

    def exists(self) -> bool:
        """Whether there is an error: two sources, a number without each of them, and one in all but 1 % of the draws."""
        enough = len(self.sizes) > 1 and len(self.values) - self.undefined > 2 and self.undefined <= UNDEFINED * (len(self.values) - 1)
        return bool(enough and not np.isnan(self.values[0]) and (self.without is None or not np.isnan(self.without).any()))

    def error(self) -> float:
        """The standard error over sources: the jackknife's, or the bootstrap's; nan where a number is infinite.

        The draws' standard deviation is that of n sources, not n - 1, so it is widened by sqrt(n / (n - 1)) (Hesterberg, "What teachers
        should know about the bootstrap", 2015).
        """
        n = len(self.sizes)
        with np.errstate(invalid="ignore"):  # of what is infinite there is none
            if self.without is not None:
                return float(np.std(self.without)) * math.sqrt(n - 1)
            return float(np.nanstd(self.values[1:], ddof=1)) * math.sqrt(n / (n - 1))

    def follows(self, other: Sample) -> float:
        """The correlation of two statistics' errors, 0 where one has none."""
        a, b = (s.values[1:] if s.without is None else s.without for s in (self, other))
        known = np.isfinite(a) & np.isfinite(b)
        a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
        power = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return float(a @ b) / power if power > 0 else 0.0

    def map(self, function: Callable[[Vector], Vector]) -> Sample:
        """The same on another scale, infinite beyond its ends."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return Sample(function(self.values), self.sizes, None if self.without is None else function(self.without), self.weights)

    def minus(self, other: Sample) -> Sample:
        """The difference of two statistics of the same draws."""
        with np.errstate(invalid="ignore"):
            without = None if self.without is None or other.without is None else self.without - other.without
            return Sample(self.values - other.values, self.sizes, without, self.weights)


def samples(statistics: Sequence[Statistic], sources: ArrayLike, draws: int = 1000, seed: int = 0, bar: bool = False) -> list[Sample]:
    """Of each statistic its draws and what is left without each source, as `resample` and `leave_out` have them.

    Raises:
        ValueError: as `resample`.
    """
    drawn, without = resample(statistics, sources, draws, seed, bar), leave_out(statistics, sources)
    source = np.unique(np.asarray(sources), return_inverse=True)[1]
    weights = [np.bincount(source, s.below).astype(np.float64) if isinstance(s, Ratio) else None for s in statistics]
    return [Sample(drawn[:, k], np.bincount(source), None if without is None else without[:, k], own) for k, own in enumerate(weights)]


def interval(sample: Sample, scale: Scale = "plain", least: int = FEW_SOURCES) -> Interval:
    """The interval of one statistic: Student's t on its standard error on the scale; a hint below `least` effective sources.

    Where no source moves the statistic, as none does where all is right, the interval is `_unmoved`. Where a single source or a draw keeps
    the statistic from the scale's end, the plain error is carried there by the scale's slope.
    """
    estimate, few = float(sample.values[0]), effective(sample.sizes) < least
    if not sample.exists():
        return Interval(estimate, math.nan, math.nan, math.nan, few, sample.undefined)
    se = sample.error()
    if se < _SAME:
        return Interval(estimate, *_unmoved(estimate, sample.sizes, scale), 0.0, few, sample.undefined)
    there, slope, back = _SCALES[scale]
    moved = sample.map(there).error()
    at = np.array(estimate)
    half = _quantile(sample.freedom) * (moved if math.isfinite(moved) else se * float(slope(at)))
    low, high = (float(back(there(at) + step)) for step in (-half, half))
    return Interval(estimate, low, high, se, few, sample.undefined)


def difference(first: Sample, second: Sample, scale: Scale = "plain", same: bool = False, least: int = FEW_SOURCES) -> Difference:
    """The difference first - second of a statistic drawn together: p is below 0.05 where the interval lacks 0. It is a hint below `least`
    effective sources.

    Of the same predictions (`same`), where the statistic exists, it is 0 whatever is drawn, which is no estimate: the interval is 0 alone,
    and p is 1, however few the sources. Two statistics that merely have one value, as two models that are right everywhere, are not that.

    Both are put together from the distances to the ends of the two statistics' own intervals, and from how far the statistics go together
    (Zou, "Toward using confidence intervals to compare correlations", 2007): on the plain scale that is t on the difference's error.
    Where a statistic has no place or no error on the scale, the plain one takes its part. Where no source moves the difference, its
    interval is `_unmoved_difference`.
    """
    apart = first.minus(second)
    estimate, few = float(apart.values[0]), effective(apart.sizes) < least
    untested = len(apart.sizes) < UNTESTED_SOURCES
    if same and estimate == 0:
        return Difference(0.0, 0.0, 0.0, 0.0, False, apart.undefined, 1.0, False)
    if not apart.exists():
        return Difference(estimate, math.nan, math.nan, math.nan, few, apart.undefined, math.nan, untested)
    se = apart.error()
    if se < _SAME:
        low, high, p = _unmoved_difference(estimate, apart.sizes, scale)
        return Difference(estimate, low, high, 0.0, few, apart.undefined, math.nan if untested else p, untested)
    there, _, back = _SCALES[scale]
    sides = first.map(there), second.map(there)
    errors = [side.error() for side in sides]
    if not np.isfinite([*errors, *(side.values[0] for side in sides)]).all():
        return difference(first, second, least=least)
    together, degrees = sides[0].follows(sides[1]), apart.freedom

    def end(quantile: float, sign: int) -> float:
        """The interval's lower end, of sign -1, or its upper one, at a quantile of t."""
        moves = [side.values[0] + sign * turn * quantile * error for side, error, turn in zip(sides, errors, (1, -1), strict=True)]
        one, two = (abs(float(back(move)) - float(back(side.values[0]))) for move, side in zip(moves, sides, strict=True))
        return estimate + sign * math.sqrt(max(0.0, one * one + two * two - 2 * together * one * two))

    steps = _steps(_quantile(degrees))  # with errors of very unequal size an end may turn back: it counts where it was farthest
    low, high = min(end(q, -1) for q in steps), max(end(q, 1) for q in steps)
    p = math.nan if untested else _p(lambda quantile: end(quantile, -1 if estimate > 0 else 1), degrees)
    return Difference(estimate, low, high, se, few, apart.undefined, p, untested)


def _unmoved(estimate: float, sizes: ArrayLike, scale: Scale) -> tuple[float, float]:
    """The interval of a statistic that no source moves, taken for a mean to which all sources gave the same; none on the plain scale.

    As many effective sources were alike, so with 97.5 % at most a share of 1 - 0.025^(1 / sources) is not (Clopper and Pearson, "The use of
    confidence or fiducial limits illustrated in the case of the binomial", 1934), and those could be anywhere. Regions of a source count as
    alike, since nothing tells otherwise.
    """
    if scale == "plain":
        return estimate, estimate
    value = estimate**2 if scale == "reciprocal" else estimate
    others, (least, most) = 1 - (OUTSIDE / 2) ** (1 / effective(sizes)), _RANGE[scale]
    low, high = value - others * (value - least), value + others * (most - value)
    return (math.sqrt(low), math.sqrt(high)) if scale == "reciprocal" else (low, high)


def _unmoved_difference(estimate: float, sizes: ArrayLike, scale: Scale) -> tuple[float, float, float]:
    """The same of a difference, with the level at which it reaches 0."""
    if scale == "plain":
        return estimate, estimate, 1.0 if abs(estimate) < _SAME else math.nan
    sources, most = effective(sizes), float(np.ptp(_RANGE[scale]))
    others = 1 - (OUTSIDE / 2) ** (1 / sources)
    p = 2 * (most / (most + abs(estimate))) ** sources
    return estimate - others * (estimate + most), estimate + others * (most - estimate), min(1.0, max(_LEAST, p))


def _quantile(freedom: float) -> float:
    return float(student.isf(OUTSIDE / 2, freedom))


def _p(end: Callable[[float], float], freedom: float) -> float:
    """Twice the probability beyond the quantile of t at which the interval's end that is nearer to 0 first reaches it."""
    begin = end(0.0)
    if begin == 0:
        return 1.0
    middle, last = _quantile(freedom), float(student.isf(_LEAST / 2, freedom))
    before = 0.0
    for step in (*_steps(middle), *(middle + _steps(last - middle))):
        if begin * end(step) <= 0:
            return float(2 * student.sf(brentq(end, before, step), freedom))
        before = step
    return _LEAST


def _steps(last: float) -> Vector:
    """From 0 to `last`, both included."""
    return np.linspace(0.0, last, 33)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values that exist; nan stays nan and counts for nothing."""
    known = sorted((value, k) for k, value in enumerate(p) if not math.isnan(value))
    out, highest = [math.nan] * len(p), 0.0
    for rank, (value, k) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        out[k] = highest
    return out
