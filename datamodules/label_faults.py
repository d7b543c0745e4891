"""Labels that cannot be of their scale, counted by columns: millions of regions in seconds (`datamodules.validation` locates them)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.records import COARSEST, PLACES, ROUNDING, TWO_OPINIONS, UNIT

TASKS = ("quality", "importance")
LABELS = tuple(  # columns of a region that `count_unfit` needs
    f"regions.list.element.{task}{of}" for task in TASKS for of in ("", "_std", "_scale.low", "_scale.high")
)


def count_unfit(regions: pa.ChunkedArray) -> int:
    """How many scores and standard deviations of a column `regions` `from_row` takes for unknown, although they are given."""
    return sum(_unfit(pc.list_flatten(chunk), task) for chunk in regions.chunks for task in TASKS)


def _unfit(regions: pa.StructArray, task: str) -> int:
    score, std, scale = (pc.struct_field(regions, task + of) for of in ("", "_std", "_scale"))
    low, high = _ends(scale, "low", UNIT.low), _ends(scale, "high", UNIT.high)
    value, rounding = _numbers(score), ROUNDING * (high - low)
    fits = (value >= low - rounding) & (value <= high + rounding)  # which nothing unknown does
    unfit = len(score) - score.null_count - np.count_nonzero(fits)
    known = np.flatnonzero(std.is_valid())
    if not len(known):
        return int(unfit)
    value, fits, spread = value[known], fits[known], _numbers(std)[known]
    low, high = (np.broadcast_to(end, len(std))[known] for end in (low, high))
    unfit_std = ~(fits & (spread >= 0) & (spread <= _largest(value, low, high)))
    doubtful = np.flatnonzero(unfit_std & fits & (spread >= 0))  # few: their scores may have been rounded
    mean = _innermost(value[doubtful], low[doubtful], high[doubtful])
    unfit_std[doubtful] = spread[doubtful] > _largest(mean, low[doubtful], high[doubtful])
    return int(unfit + np.count_nonzero(unfit_std))


def _ends(scale: pa.StructArray, name: str, missing: float) -> NDArray[np.float64]:
    """(N,) one end of the scale of each region; (1,) where it is the same for all."""
    found = _numbers(pc.struct_field(scale, name).fill_null(missing))
    return found[:1] if (found == found[:1]).all() else found


def _largest(mean: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    return TWO_OPINIONS * np.sqrt(np.maximum((mean - low) * (high - mean), 0)) + ROUNDING * (high - low)


def _innermost(value: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """What scores may have been before they were rounded, nearest the middle of their scales: as `Scale.largest_std` has it."""
    half = np.full(len(value), 0.5 * 10.0**-PLACES)
    for places in reversed(range(PLACES)):
        half[np.round(value, places) == value] = 0.5 * 10.0**-places
    aside = value - (low + high) / 2
    return value - np.copysign(np.minimum(np.minimum(half, COARSEST * (high - low)), np.abs(aside)), aside)


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
