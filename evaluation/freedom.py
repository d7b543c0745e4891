"""Student's t for sources of unequal sizes: how far a statistic lies from the truth, in units of its own error over sources.

A source with many regions moves the statistic and its error alike, so neither the number of sources nor that of effective ones tells the
quantile. Of a mean over regions (or over pairs of them, or images) it is known exactly: the square of its distance from the truth and
that of its error are both quadratic in the means of the sources. Where all sizes are equal it is Student's of one degree of freedom
fewer than there are sources.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from evaluation.correlations import Vector

OUTSIDE = 0.05  # the share of samples whose interval may lack the truth
_ALIKE = np.array([0.0, 0.02, 0.1, 0.3, 0.6, 1.0])  # what regions of a source may have in common, as shares of their variance
_MOST = 100  # different sources that are told apart exactly
_LEAST = 0.2  # degrees of freedom: no t is wider than the one of as many
_NODES, _WEIGHTS = leggauss(48)
_SINE = np.sin((_NODES + 1) * math.pi / 4) ** 2  # of angles from 0 to a right one


def effective(sizes: ArrayLike) -> float:
    """How many sources of equal size would tell as much where the regions of one are alike; of the sources' regions, (n,).

    A source's share of a statistic's variance is then as the square of its regions: (sum k^2)^2 / sum k^4, at most n.
    """
    squares = np.asarray(sizes, np.float64) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum()) if len(squares) else 0.0


def freedom(sizes: ArrayLike, left_out: bool = True, weights: ArrayLike | None = None) -> float:
    """The degrees of freedom of the t whose interval of 95 % holds a mean of normal regions in 95 %, whatever those of a source share.

    Args:
        sizes: regions of each source, (n,).
        left_out: whether the error is the jackknife's, or else the bootstrap's.
        weights: how much each source counts in the mean, (n,), as its regions do where none are given.

    Returns:
        n - 1 where all sizes and weights are equal, and never more; nan of fewer than two sources.
    """
    k = np.asarray(sizes, np.float64)
    sources = np.stack([k, k if weights is None else np.asarray(weights, np.float64)])
    groups, times = np.unique(_rounded(sources), axis=1, return_counts=True)
    return _freedom(tuple(groups[0].tolist()), tuple(groups[1].tolist()), tuple(times.tolist()), left_out)


def _rounded(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive values to within a twentieth where they are so many that their matrix would take long."""
    if len(np.unique(columns, axis=1).T) <= _MOST:
        return columns
    whole = np.maximum(columns, 1e-12)
    return np.where(columns > 0, np.exp(np.round(np.log(whole) * 10) / 10), 0.0)


@lru_cache(maxsize=256)
def _freedom(sizes: tuple[float, ...], weights: tuple[float, ...], times: tuple[int, ...], left_out: bool) -> float:
    most = float(sum(times) - 1)
    if most < 1:
        return math.nan

    def excess(log: float) -> float:
        """How much more often than 5 % the interval of t lacks the truth."""
        return outside(float(student.isf(OUTSIDE / 2, math.exp(log))), sizes, times, left_out, weights) - OUTSIDE

    if len(sizes) == 1 or excess(math.log(most)) <= 0:
        return most
    low = min(_LEAST, most / 2)
    return low if excess(math.log(low)) > 0 else math.exp(brentq(excess, math.log(low), math.log(most), xtol=0.01))


def outside(quantile: float, sizes: ArrayLike, times: ArrayLike, left_out: bool, weights: ArrayLike | None = None) -> float:
    """The probability that a mean is farther from the truth than `quantile` of its errors, the highest over what regions may share.

    With sources' means as standard normal variables z, that is z'(uu' - quantile^2 B)z > 0, whose matrix has one positive eigenvalue a;
    of the others, -b each, the probability is the mean of prod (1 + b / (a sin^2 x))^(-1/2) over angles x up to a right one (Craig, "A new,
    simple and exact result for calculating the probability of error for two-dimensional signal constellations", 1991).

    Args:
        sizes: those that occur, (G,), and `times` how often, (G,).
        weights: of a source of each size, (G,), where they are not its regions.
    """
    k, many = np.asarray(sizes, np.float64), np.asarray(times, np.float64)
    counts, n = k if weights is None else np.asarray(weights, np.float64), many.sum()
    share = counts / (counts * many).sum()  # of one source of each size
    weight = share / (1 - share) if left_out else share
    widened = (n - 1) / n if left_out else n / (n - 1)
    deviation = np.sqrt(_ALIKE[:, None] + (1 - _ALIKE[:, None]) / k)  # (A, G) of a source's mean
    alone = widened * (weight * deviation) ** 2 * quantile**2  # of what sources of one size differ by
    u = share * deviation * np.sqrt(many)  # (A, G)
    moved = weight[:, None] * (deviation[:, :, None] * np.diag(many**-0.5) - u[:, None, :])  # (A, G, G): a source's part in the error
    centred = np.diag(many) - np.outer(many, many) / n
    between = widened * np.swapaxes(moved, 1, 2) @ centred @ moved
    values = np.linalg.eigvalsh(u[:, :, None] * u[:, None, :] - quantile**2 * between)
    ratio, power = np.concatenate([-values[:, :-1], alone], axis=1) / values[:, -1:], np.append(np.ones(len(k) - 1), many - 1)
    return float(_beyond(np.maximum(ratio, 0), power).max())


def _beyond(ratio: NDArray[np.float64], power: Vector) -> Vector:
    """(A,) probabilities that a squared normal variable is beyond the sum of others, of `power` each, times `ratio` (A, K)."""
    logs = np.log1p(ratio[:, :, None] / _SINE)  # (A, K, nodes)
    beyond: Vector = np.exp(-0.5 * np.einsum("akx,k->ax", logs, power)) @ _WEIGHTS / 2
    return beyond
