"""How well predicted scores follow labelled ones: SRCC, PLCC (raw and after a logistic fit), KRCC and RMSE, by SciPy.

A correlation that does not exist (fewer than three points, since any two lie on a line, or one side constant) is nan. A nan that goes
in is refused: what is dropped is the caller's decision, and is counted there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

Vector = NDArray[np.float64]

MIN_POINTS = 3  # of a correlation
MIN_FIT_POINTS = 10
_STARTS = ((0.0, 0.25), (0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.0, 4.0))  # centre and width, in standard deviations of pred


@dataclass(frozen=True)
class LogisticFit:
    """A fit of lower + (upper - lower) * sigmoid((pred - centre) / width), with upper >= lower and width > 0.

    Attributes:
        params: (upper, lower, centre, width), None where no fit was found.
        converged: whether there is a fit to use.
        reason: why there is none, "" otherwise.
    """

    params: tuple[float, float, float, float] | None
    converged: bool
    reason: str = ""

    def predict(self, pred: ArrayLike) -> Vector:
        """Predictions (N,) on the scale of the labels, (N,).

        Raises:
            ValueError: there is no fit.
        """
        if self.params is None:
            raise ValueError(f"no logistic was fitted ({self.reason}): look at `converged` first, or report the raw PLCC")
        upper, lower, centre, width = self.params
        fitted: Vector = lower + (upper - lower) * expit((np.asarray(pred, np.float64) - centre) / width)
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


def fit_logistic(pred: ArrayLike, label: ArrayLike) -> LogisticFit:
    """The four-parameter logistic customary in IQA, from (N,) predictions to (N,) labels, by least squares.

    Predictions are standardised and several starts are tried, because the result of a single start depends on it. The curve may only
    rise: both sides mean "higher is better", and a falling curve would turn an inverted model's negative correlation into a positive one.
    """
    x, y = paired(pred, label)
    if len(x) < MIN_FIT_POINTS:
        return LogisticFit(None, False, f"{len(x)} points, at least {MIN_FIT_POINTS} are needed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return LogisticFit(None, False, f"all {len(x)} {'predictions' if np.ptp(x) == 0 else 'labels'} are the same")
    mean, std = float(x.mean()), float(x.std())
    z = (x - mean) / std
    lowest, span = float(y.min()), float(np.ptp(y))
    bounds = ([-np.inf, 0, -10, 0.01], [np.inf, np.inf, 10, 100])
    tries = [
        least_squares(_residuals, [lowest, span, *start], jac=_jacobian, bounds=bounds, x_scale="jac", args=(z, y)) for start in _STARTS
    ]
    best = min((t for t in tries if t.success), key=lambda t: float(t.cost), default=None)
    if best is None:
        return LogisticFit(None, False, f"the optimiser did not converge from any of {len(_STARTS)} starts")
    lower, rise, centre, width = (float(v) for v in best.x)
    fit = LogisticFit((lower + rise, lower, mean + std * centre, std * width), True)
    if np.ptp(fit.predict(x)) <= 1e-9 * span:
        return LogisticFit(None, False, "the best rising curve is flat: predictions do not rise with the labels")
    return fit


def _residuals(beta: Vector, z: Vector, y: Vector) -> Vector:
    lower, rise, centre, width = beta
    return np.asarray(lower + rise * expit((z - centre) / width) - y, np.float64)


def _jacobian(beta: Vector, z: Vector, y: Vector) -> Vector:
    _, rise, centre, width = beta
    t = (z - centre) / width
    s = expit(t)
    slope = rise * s * (1 - s) / width
    return np.stack([np.ones_like(y), s, -slope, -slope * t], axis=1)  # (N, 4)


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
