"""Labels that cannot be of their scale, counted by columns: millions of regions in seconds (`datamodules.validation` locates them)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.records import ROUNDING, TWO_OPINIONS, UNIT

TASKS = ("quality", "importance")
LABELS = tuple(  # columns of a region that `count_unfit` needs
    f"regions.list.element.{task}{of}" for task in TASKS for of in ("", "_std", "_scale.low", "_scale.high")
)


def count_unfit(regions: pa.ChunkedArray) -> int:
    """How many scores and standard deviations of a column `regions` `from_row` takes for unknown, although they are given."""
    return sum(_unfit(pc.list_flatten(chunk), task) for chunk in regions.chunks for task in TASKS)


def _unfit(regions: pa.StructArray, task: str) -> int:
    score, std, scale = (pc.struct_field(regions, task + of) for of in ("", "_std", "_scale"))
    ends = (pc.struct_field(scale, "low").fill_null(UNIT.low), pc.struct_field(scale, "high").fill_null(UNIT.high))
    low, high = (_numbers(end) for end in ends)
    given, given_std = (pc.is_valid(column).to_numpy(zero_copy_only=False) for column in (score, std))
    value, spread, rounding = _numbers(score), _numbers(std), ROUNDING * (high - low)
    fits = (value >= low - rounding) & (value <= high + rounding)
    largest = TWO_OPINIONS * np.sqrt(np.maximum((value - low) * (high - value), 0)) + rounding
    fits_std = fits & (spread >= 0) & (spread <= largest)
    return int(np.count_nonzero(given & ~fits) + np.count_nonzero(given_std & ~fits_std))


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
