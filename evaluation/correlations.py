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
_STARTS = ((0.0, 0.25), (0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.0, 4.0))  # centre and width, in spreads of pred
_FARTHEST, _NARROWEST, _WIDEST = 10.0, 0.01, 100.0  # centre either way, and width: beyond them the curve is a line, a step, or exponential
_MOST_STEPS = 200  # of a start; some ten are usual
_SETTLED = 1e-6  # relative gain of a step below which a start has converged: no digit of a correlation that is shown depends on it
_NORMAL = 1.349  # standard deviations between the quartiles of a normal distribution
_ALIKE = 2.0  # times, up to which two spreads are one

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


def rmse_fitted(pred: ArrayLike, label: ArrayLike, fit: LogisticFit | None = None) -> float:
    """RMSE after `fit`, by default that of the same points: in the labels' unit, whatever the predictions' is; nan where there is no fit.

    The mean of squares is over all N points, not N less the fit's parameters.
    """
    fit = fit_logistic(pred, label) if fit is None else fit
    return rmse(fit.predict(pred), label) if fit.converged else math.nan


def fit_logistic(pred: ArrayLike, label: ArrayLike, parameters: Parameters = 4) -> LogisticFit:
    """The logistic customary in IQA, from (N,) predictions to (N,) labels, by least squares.

    The one of four parameters is bounded. The one of five (Sheikh et al., "A statistical evaluation of recent full reference image
    quality assessment algorithms", 2006) adds a straight line, so that it follows no label worse than a line does.

    The curve may only rise: both sides mean "higher is better", and a falling curve would turn an inverted model's negative correlation
    into a positive one. Several starts are tried, because the result of a single one depends on it. They are measured in the distance of
    the predictions' quartiles, which a few far ones do not move, and in the standard deviation, where that is another.

    Only centre and width are searched for. Of each such pair the other parameters follow by linear least squares (Golub and Pereyra, "The
    differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate", 1973): where the labels bend one way
    alone, upper and lower run away together, and a search in all of them at once creeps after them.
    """
    x, y = paired(pred, label)
    if len(x) < MIN_FIT_POINTS:
        return LogisticFit(None, False, f"{len(x)} points, at least {MIN_FIT_POINTS} are needed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return LogisticFit(None, False, f"all {len(x)} {'predictions' if np.ptp(x) == 0 else 'labels'} are the same")
    (middle, unit), *_ = _frames(x)
    z = (x - middle) / unit
    found = _best(z, y, parameters)
    if found is None:
        return LogisticFit(None, False, "the optimiser did not converge from any of its starts")
    centre, width = float(found[0]), math.exp(found[1])
    lower, rise, *slope = _curve(found, z, y, parameters)[0].tolist()
    lower -= sum(slope) * middle / unit
    fit = LogisticFit((lower + rise, lower, middle + unit * centre, unit * width, *(s / unit for s in slope)), True)
    if np.ptp(fit.predict(x)) <= 1e-9 * np.ptp(y):
        return LogisticFit(None, False, "the best rising curve is flat: predictions do not rise with the labels")
    return fit


def _frames(x: Vector) -> list[tuple[float, float]]:
    """Middle and spread of predictions that are not all equal: by their quartiles, and by mean and deviation where those differ."""
    low, middle, high = np.percentile(x, (25, 50, 75)).tolist()
    mean, std, unit = float(x.mean()), float(x.std()), (high - low) / _NORMAL
    if not unit:
        return [(mean, std or 1.0)]  # 0 of those that `_best` takes out of many, if only the others differ
    alike = unit / _ALIKE <= std <= unit * _ALIKE
    return [(middle, unit)] if alike else [(middle, unit), (mean, std)]


def _best(z: Vector, y: Vector, parameters: Parameters) -> Vector | None:
    """Centre and logarithm of the width of least squared error over all starts, of standardised predictions; None where none converged.

    Of very many points, which start is best is asked of some of them, evenly over the predictions; all of them then settle it.
    """
    if len(z) <= _MANY:
        return _settled(z, y, parameters, _starts(z, y, parameters))
    some = np.argsort(z, kind="stable")[:: -(-len(z) // _MANY)]
    first = _best(z[some], y[some], parameters)
    return None if first is None else _settled(z, y, parameters, [first])


def _starts(z: Vector, y: Vector, parameters: Parameters) -> list[Vector]:
    """The curve of five also starts from the best one of four, which it holds, and so is never behind it."""
    starts = [np.array([middle + unit * c, math.log(unit * w)]) for middle, unit in _frames(z) for c, w in _STARTS]
    four = _best(z, y, 4) if parameters == 5 else None
    return starts if four is None else [*starts, four]


def _settled(z: Vector, y: Vector, parameters: Parameters, starts: Sequence[Vector]) -> Vector | None:
    reach = max(max(abs(middle), unit) for middle, unit in [(0.0, 1.0), *_frames(z)])
    low, high = [-_FARTHEST * reach, math.log(_NARROWEST)], [_FARTHEST * reach, math.log(_WIDEST * reach)]
    # by the dogleg within the bounds: where a step between two points is best, which lies on one, the other method creeps along it
    options = {"jac": _jacobian, "bounds": (low, high), "x_scale": "jac", "method": "dogbox", "max_nfev": _MOST_STEPS, "ftol": _SETTLED}
    tries = [least_squares(_residuals, np.clip(s, low, high), args=(z, y, parameters), **options) for s in starts]
    best = min((t for t in tries if t.success), key=lambda t: float(t.cost), default=None)
    return None if best is None else np.asarray(best.x, np.float64)


def _residuals(place: Vector, z: Vector, y: Vector, parameters: Parameters) -> Vector:
    """(N,) of the best curve with this centre and logarithm of the width."""
    return _curve(place, z, y, parameters)[1]


def _jacobian(place: Vector, z: Vector, y: Vector, parameters: Parameters) -> Vector:
    """(N, 2) of the residuals: what the other parameters cannot make up for (Kaufman, "A variable projection method for solving separable
    nonlinear least squares problems", 1975: it leaves out a part that vanishes with the residuals)."""
    (_, rise, *_), _, basis = _curve(place, z, y, parameters)
    t = (z - place[0]) / math.exp(place[1])
    s = expit(t)
    steep = rise * s * (1 - s)
    moved = np.stack([-steep / math.exp(place[1]), -steep * t], axis=1)
    moved -= moved.mean(axis=0)
    return np.asarray(moved - basis @ (basis.T @ moved), np.float64)


def _curve(place: Vector, z: Vector, y: Vector, parameters: Parameters) -> tuple[Vector, Vector, Vector]:
    """Of all curves with this centre and logarithm of the width that do not fall, the one of least squared error.

    Returns:
        (lower, rise) and, of five parameters, the slope; the residuals (N,); an orthonormal basis (N, K) of the columns in use, beside the
        constant.
    """
    columns = [expit((z - place[0]) / math.exp(place[1])), z][: parameters - 3]
    means, mean = np.array([c.mean() for c in columns]), float(y.mean())
    columns, rest = [c - m for c, m in zip(columns, means, strict=True)], y - mean
    found = _along(columns, rest)
    if found is None:  # one of the two would fall: the better one alone, or none
        alone = [_along([c], rest) or (np.zeros(1), np.empty((len(z), 0))) for c in columns]
        best = max(range(len(columns)), key=lambda k: float(np.sum((alone[k][1].T @ rest) ** 2)))
        found = np.where(np.arange(len(columns)) == best, alone[best][0], 0.0), alone[best][1]
    factors, basis = found
    residuals = sum((f * c for f, c in zip(factors, columns, strict=True)), -rest)
    return np.array([mean - means @ factors, *factors]), np.asarray(residuals, np.float64), basis


def _along(columns: Sequence[Vector], y: Vector) -> tuple[Vector, Vector] | None:
    """The factors of one or two columns (N,) by which they come nearest to y, and their orthonormal basis; None where one is below 0, or
    they are no basis."""
    basis = np.empty((len(y), 0))
    for column in columns:
        left = column - basis @ (basis.T @ column)
        length = float(np.linalg.norm(left))
        if length <= 1e-9 * float(np.linalg.norm(column)):
            return None
        basis = np.column_stack([basis, left / length])
    factors = np.asarray(np.linalg.solve(basis.T @ np.stack(columns, axis=1), basis.T @ y), np.float64)
    return None if (factors < 0).any() else (factors, basis)


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
