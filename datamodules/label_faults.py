"""Labels that cannot be, counted by columns: millions of regions in seconds (`datamodules.validation` locates them)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.prompts import DISTORTION_TYPES, SEVERITIES
from datamodules.records import COARSEST, PLACES, ROUNDING, TWO_OPINIONS, UNIT

TASKS = ("quality", "importance")
_WORDS = {"type": DISTORTION_TYPES, "severity": SEVERITIES}
LABELS = (  # columns of a region that `count_unfit` needs
    *(f"regions.list.element.{task}{of}" for task in TASKS for of in ("", "_std", "_scale.low", "_scale.high")),
    *(f"regions.list.element.distortions.list.element.{of}" for of in ("type", "severity")),
)


def count_unfit(regions: pa.ChunkedArray) -> int:
    """How many scores, standard deviations and lists of distortions of a column `regions` `from_row` takes for unknown, although they are
    given."""
    flat = [pc.list_flatten(chunk) for chunk in regions.chunks]
    return sum(_unfit(found, task) for found in flat for task in TASKS) + sum(map(_unfit_distortions, flat))


def longest_label(regions: pa.ChunkedArray) -> int:
    """The most distortions that the label of one region of a column `regions` names."""
    lists = (pc.struct_field(pc.list_flatten(chunk), "distortions") for chunk in regions.chunks)
    return max((pc.max(pc.list_value_length(found)).as_py() or 0 for found in lists), default=0)


def _unfit_distortions(regions: pa.StructArray) -> int:
    lists = pc.struct_field(regions, "distortions")
    pairs, owner = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    kind, severity = (_places(pc.struct_field(pairs, of), words) for of, words in _WORDS.items())
    fits = (kind >= 0) & (severity >= 0)
    unfit = owner[~fits]
    several = np.flatnonzero(fits & _stand_beside(owner))
    named = np.sort(owner[several] * len(DISTORTION_TYPES) + kind[several])
    twice = named[1:][named[1:] == named[:-1]] // len(DISTORTION_TYPES)
    return len(np.unique(np.concatenate([unfit, twice])))


def _places(column: pa.Array, words: Sequence[str]) -> NDArray[np.int64]:
    """(N,) where each text stands among `words`; -1 for one that does not, or is null. The texts of a column that points at them are looked
    up once each."""
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    known = np.append(pc.index_in(codes.dictionary, pa.array(words)).fill_null(-1).to_numpy(), -1)
    return np.asarray(known[codes.indices.fill_null(-1).to_numpy()], np.int64)


def _stand_beside(owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a neighbour has the same owner."""
    same = np.append(False, owner[1:] == owner[:-1])
    return same | np.append(same[1:], False)


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
