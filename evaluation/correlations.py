"""How well predicted scores follow labelled ones: SRCC, PLCC (raw and after a logistic fit), KRCC and RMSE, by SciPy.

A correlation that does not exist (fewer than three points, since any two lie on a line, or one side constant) is nan. A nan that goes
in is refused: what is dropped is the caller's decision, and is counted there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

Vector = NDArray[np.float64]

MIN_POINTS = 3  # of a correlation
MIN_FIT_POINTS = 10
_STARTS = ((0.0, 0.25), (0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.0, 4.0))  # centre and width, in standard deviations of pred
_MOST_STEPS = 200  # of a start
_SETTLED = 1e-6  # relative gain of a step below which a start has converged: no digit of a correlation that is shown depends on it

_MANY = 20_000  # points from which on the best start is looked for among some

Parameters = Literal[4, 5]


@dataclass(frozen=True)
class LogisticFit:
    """A fit of lower + (upper - lower) * sigmoid((pred - centre) / width) + slope * pred, with upper >= lower, width > 0, slope >= 0.

    Attributes:
        params: (upper, lower, centre, width), and the slope where there are five, 0 where there are four; None where no fit was found.
        converged: whether there is a fit to use.
        reason: why there is none, "" otherwise.
    """

    params: tuple[float, ...] | None
    converged: bool
    reason: str = ""

    def predict(self, pred: ArrayLike) -> Vector:
        """Predictions (N,) on the scale of the labels, (N,).

        Raises:
            ValueError: there is no fit.
        """
        if self.params is None:
            raise ValueError(f"no logistic was fitted ({self.reason}): look at `converged` first, or report the raw PLCC")
        upper, lower, centre, width, *slope = self.params
        x = np.asarray(pred, np.float64)
        fitted: Vector = lower + (upper - lower) * expit((x - centre) / width) + sum(slope) * x
        return fitted


def srcc(pred: ArrayLike, label: ArrayLike) -> float:
    """Spearman's rank correlation of two (N,) vectors, ties by mean rank; in [-1, 1], or nan."""
    x, y = paired(pred, label)
    return float(spearmanr(x, y).statistic) if _varied(x, y) else math.nan


def plcc(pred: ArrayLike, label: ArrayLike) -> float:
    """Pearson's linear correlation of two (N,) vectors, without any fit; in [-1, 1], or nan."""
    x, y = paired(pred, label)
    return float(pearsonr(x, y).statistic) if _varied(x, y) else math.nan


def krcc(pred: ArrayLike, label: ArrayLike) -> float:
    """Kendall's tau-b of two (N,) vectors, corrected for ties; in [-1, 1], or nan."""
    x, y = paired(pred, label)
    return float(kendalltau(x, y).statistic) if _varied(x, y) else math.nan


def rmse(pred: ArrayLike, label: ArrayLike) -> float:
    """Root mean squared error of two (N,) vectors in the labels' unit; nan where N = 0."""
    x, y = paired(pred, label)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else math.nan


def plcc_fitted(pred: ArrayLike, label: ArrayLike, fit: LogisticFit | None = None) -> float:
    """PLCC after `fit`, by default that of the same points; nan where there is no fit: the raw PLCC is never put in its place."""
    fit = fit_logistic(pred, label) if fit is None else fit
    return plcc(fit.predict(pred), label) if fit.converged else math.nan


def fit_logistic(pred: ArrayLike, label: ArrayLike, parameters: Parameters = 4) -> LogisticFit:
    """The logistic customary in IQA, from (N,) predictions to (N,) labels, by least squares.

    The one of four parameters is bounded. The one of five (Sheikh et al., "A statistical evaluation of recent full reference image
    quality assessment algorithms", 2006) adds a straight line, so that it follows no label worse than a line does.

    Predictions are standardised and several starts are tried, because the result of a single start depends on it. The curve may only
    rise: both sides mean "higher is better", and a falling curve would turn an inverted model's negative correlation into a positive one.
    """
    x, y = paired(pred, label)
    if len(x) < MIN_FIT_POINTS:
        return LogisticFit(None, False, f"{len(x)} points, at least {MIN_FIT_POINTS} are needed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return LogisticFit(None, False, f"all {len(x)} {'predictions' if np.ptp(x) == 0 else 'labels'} are the same")
    mean, std = float(x.mean()), float(x.std())
    found = _best((x - mean) / std, y, parameters)
    if found is None:
        return LogisticFit(None, False, "the optimiser did not converge from any of its starts")
    lower, rise, centre, width, *slope = found.tolist()
    lower -= sum(slope) * mean / std
    fit = LogisticFit((lower + rise, lower, mean + std * centre, std * width, *(s / std for s in slope)), True)
    if np.ptp(fit.predict(x)) <= 1e-9 * np.ptp(y):
        return LogisticFit(None, False, "the best rising curve is flat: predictions do not rise with the labels")
    return fit


def _best(z: Vector, y: Vector, parameters: Parameters) -> Vector | None:
    """The parameters of least squared error over all starts, of standardised predictions; None where none converged.

    Of very many points, which start is best is asked of some of them, evenly over the predictions; all of them then settle it.
    """
    if len(z) <= _MANY:
        return _settled(z, y, parameters, _starts(z, y, parameters))
    some = np.argsort(z, kind="stable")[:: -(-len(z) // _MANY)]
    first = _best(z[some], y[some], parameters)
    return None if first is None else _settled(z, y, parameters, [first])


def _starts(z: Vector, y: Vector, parameters: Parameters) -> list[Vector]:
    """The curve of five also starts from the best one of four, which it holds, and so is never behind it."""
    lowest, span = float(y.min()), float(np.ptp(y))
    starts = [np.array([lowest, span, *start]) for start in _STARTS]
    if parameters == 4:
        return starts
    four = _best(z, y, 4)
    return [np.append(s, span / np.ptp(z)) for s in starts] + ([] if four is None else [np.append(four, 0.0)])


def _settled(z: Vector, y: Vector, parameters: Parameters, starts: Sequence[Vector]) -> Vector | None:
    low, high = [-np.inf, 0, -10, 0.01], [np.inf, np.inf, 10, 100]
    if parameters == 5:
        low, high = [*low, 0], [*high, np.inf]
    options = {"jac": _jacobian, "bounds": (low, high), "x_scale": "jac", "max_nfev": _MOST_STEPS, "ftol": _SETTLED, "args": (z, y)}
    tries = [least_squares(_residuals, s, **options) for s in starts]
    best = min((t for t in tries if t.success), key=lambda t: float(t.cost), default=None)
    return None if best is None else np.asarray(best.x, np.float64)


def _residuals(beta: Vector, z: Vector, y: Vector) -> Vector:
    lower, rise, centre, width, *slope = beta
    return np.asarray(lower + rise * expit((z - centre) / width) + sum(slope) * z - y, np.float64)


def _jacobian(beta: Vector, z: Vector, y: Vector) -> Vector:
    _, rise, centre, width, *slope = beta
    t = (z - centre) / width
    s = expit(t)
    steep = rise * s * (1 - s) / width
    return np.stack([np.ones_like(y), s, -steep, -steep * t, *([z] if slope else [])], axis=1)  # (N, 4), or (N, 5)


def paired(pred: ArrayLike, label: ArrayLike) -> tuple[Vector, Vector]:
    """Both sides as float64 (N,).

    Raises:
        ValueError: shapes that differ or are not (N,), or values that are not finite.
    """
    x, y = np.asarray(pred, np.float64), np.asarray(label, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"predictions have shape {x.shape} and labels {y.shape}: both must be the same (N,)")
    bad = int((~(np.isfinite(x) & np.isfinite(y))).sum())
    if bad:
        raise ValueError(f"{bad} of {len(x)} pairs are not finite: drop and count them before correlating")
    return x, y


def _varied(x: Vector, y: Vector) -> bool:
    return len(x) >= MIN_POINTS and bool(np.ptp(x) > 0 and np.ptp(y) > 0)
