"""Many masks in COCO's text form at once: what `components.rle` does with one, by arrays of the runs of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.rle import MOST_CHARACTERS

Edges = tuple[NDArray[np.int64], NDArray[np.int64]] | tuple[None, None]

_AT_ONCE = 64  # masks, whose arrays stay in the processor's cache


def sample_all(
    height: int,
    width: int,
    counts: Sequence[str],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    out: NDArray[np.bool_] | None = None,
    known: Edges | None = None,
) -> NDArray[np.bool_]:
    """`rle.sample` of the R masks of one image -> (R, len(rows), len(columns)) bool.

    Args:
        out: of that shape, all False, to draw into; only what is around the regions is touched.
        known: what `edges_of` says of these masks, if that has been asked for.

    Raises:
        RegionError: as `rle.sample` does, for the first mask that is none.
    """
    masks = np.zeros((len(counts), rows.size, columns.size), np.bool_) if out is None else out
    edges, first = edges_of(height, width, counts) if known is None else known
    if edges is None or first is None or not (np.diff(columns) > 0).all():  # a mask that is none, or columns that are asked for twice
        for mask, text in zip(masks, counts, strict=True):
            rle.sample({"size": [height, width], "counts": text}, rows, columns, mask)
        return masks
    before = np.searchsorted(columns, edges // height)
    partly = columns[np.minimum(before, columns.size - 1)] == edges // height
    places = before * rows.size + np.where(partly, np.searchsorted(rows, edges % height), 0)  # pixels asked for before each edge
    starts, ends = places[0::2], places[1::2]
    drawn = np.flatnonzero(ends > starts)
    owner = np.repeat(np.arange(len(counts)), np.diff(first // 2, append=len(starts)))[drawn]
    some, begin = np.unique(owner, return_index=True)
    if not len(some):
        return masks
    starts, ends = starts[drawn], ends[drawn]
    left, right = starts[begin] // rows.size, -(-ends[np.append(begin[1:], len(ends)) - 1] // rows.size)  # columns that a mask touches
    tops, bottoms = starts % rows.size, (ends - 1) % rows.size
    passes = np.maximum.reduceat((ends - 1) // rows.size - starts // rows.size, begin) > 0  # from a column to the next
    top = np.where(passes, 0, np.minimum.reduceat(tops, begin))
    bottom = np.where(passes, rows.size, np.maximum.reduceat(bottoms, begin) + 1)
    room = (right - left) * rows.size
    shift = np.repeat(np.cumsum(room) - room - left * rows.size, np.diff(begin, append=len(starts)))
    runs = np.diff(np.stack((starts + shift, ends + shift), 1).ravel(), prepend=0, append=int(room.sum()))
    found = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(-1, rows.size)  # (columns of all, rows)
    place = 0
    for mask, low, high, t, b in zip(some.tolist(), left.tolist(), right.tolist(), top.tolist(), bottom.tolist(), strict=True):
        masks[mask, t:b, low:high] = found[place : place + high - low, t:b].T
        place += high - low
    return masks


def edges_of(height: int, width: int, counts: Sequence[str]) -> Edges:
    """Where masks are entered and left in turn, as pixels before, and where the edges of each begin; None where one is none."""
    texts = [text.encode("ascii", "replace") for text in counts]
    if not texts or not all(texts):
        return None, None
    lengths = np.array([len(t) for t in texts])
    runs, first, sound = _all_runs(np.frombuffer(b"".join(texts), np.uint8), np.cumsum(lengths) - lengths)
    count = np.diff(first, append=len(runs))
    edges = np.cumsum(runs)
    edges -= np.repeat(edges[first] - runs[first], count)
    if not (sound.all() and (edges[first + count - 1] == height * width).all() and runs.min() >= 0):
        return None, None
    kept = np.ones(len(edges), np.bool_)
    kept[(first + count - 1)[count % 2 == 1]] = False  # the ground behind the last edge
    return edges[kept], np.cumsum(count // 2 * 2) - count // 2 * 2


def measure_edges(height: int, width: int, counts: Sequence[str], known: Edges) -> NDArray[np.int64]:
    """`rle.measure` of the R masks of one image -> (R, 5): left, top, width, height and area.

    Args:
        known: what `edges_of` says of these masks.

    Raises:
        RegionError: as `rle.measure` does, for the first mask that is none, or is empty.
    """
    edges, first = known
    if edges is not None and first is not None:
        starts, ends, begin = edges[0::2], edges[1::2], first // 2
        if (ends > starts).all() and (np.diff(begin, append=len(starts)) > 0).all():
            return _boxes(height, height, starts, ends - 1, begin)
    measured = [rle.measure({"size": [height, width], "counts": text}) for text in counts]  # a run of no pixels is legal
    return np.array([(*box, area) for box, area in measured], np.int64).reshape(-1, 5)


def measure_all(
    heights: NDArray[np.int64], widths: NDArray[np.int64], text: NDArray[np.uint8], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`measure` of N masks in COCO's text form at once -> (N, 5): left, top, width, height and area; zeros where a code is none.

    Args:
        heights, widths: (N,) of the images.
        text: (T,) characters of all codes, one behind the other. ends: (N + 1,) where each begins, and the end of the last.
    """
    found = np.zeros((len(heights), 5), np.int64)
    whole = np.flatnonzero((np.diff(ends) > 0) & (heights > 0) & (widths > 0))
    for first in range(0, len(whole), _AT_ONCE):
        chosen = whole[first : first + _AT_ONCE]
        lengths = ends[chosen + 1] - ends[chosen]
        starts = np.cumsum(lengths) - lengths
        if chosen[-1] - chosen[0] == len(chosen) - 1:  # they lie one behind the other
            own = text[ends[chosen[0]] : ends[chosen[-1] + 1]]
        else:
            own = text[np.repeat(ends[chosen] - starts, lengths) + np.arange(lengths.sum())]
        found[chosen] = _measured(heights[chosen], widths[chosen], own, starts)
    return found


def _measured(
    heights: NDArray[np.int64], widths: NDArray[np.int64], text: NDArray[np.uint8], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`measure_all`, of codes that have a character each and begin at `starts`."""
    runs, first, sound = _all_runs(text, starts)
    count = np.diff(first, append=len(runs))
    edges = np.cumsum(runs)
    edges -= np.repeat(edges[first] - runs[first], count)
    sound &= (edges[first + count - 1] == heights * widths) & (np.minimum.reduceat(runs, first) >= 0)
    place = np.arange(len(runs)) - np.repeat(first, count)
    inside = np.flatnonzero((place % 2 == 1) & (runs > 0) & np.repeat(sound, count))  # a run of no pixels is legal
    owner = np.repeat(np.arange(len(first)), count)[inside]
    found = np.zeros((len(first), 5), np.int64)
    some, begin = np.unique(owner, return_index=True)
    if not len(some):
        return found
    ends = edges[inside]
    found[some] = _boxes(heights[owner], heights[some], ends - runs[inside], ends - 1, begin)
    return found


def _boxes(
    height: int | NDArray[np.int64],
    tall: int | NDArray[np.int64],
    starts: NDArray[np.int64],
    lasts: NDArray[np.int64],
    begin: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(M, 5) left, top, width, height and area of masks by their runs inside, of a pixel each at least.

    Args:
        height: of the image; for each run, where they differ. tall: the same for each mask.
        starts, lasts: first and last pixel of each run. begin: (M,) where the runs of each mask begin.
    """
    columns, last_columns = starts // height, lasts // height
    left, right = columns[begin], np.maximum.reduceat(last_columns, begin)
    passes = np.maximum.reduceat(last_columns - columns, begin) > 0  # the foot of a column, and goes on at the head of the next
    top = np.where(passes, 0, np.minimum.reduceat(starts - columns * height, begin))
    bottom = np.where(passes, tall - 1, np.maximum.reduceat(lasts - last_columns * height, begin))
    area = np.add.reduceat(lasts + 1 - starts, begin)
    return np.stack((left, top, right - left + 1, bottom - top + 1, area), 1)


def _all_runs(text: NDArray[np.uint8], starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Runs of codes that begin at `starts`, where the runs of each begin, and (N,) whether its characters can be a code."""
    sound = np.ones(len(starts), np.bool_)
    digits = text - np.uint8(48)
    odd = np.flatnonzero(digits > 63)
    sound[np.searchsorted(starts, odd, "right") - 1] = False
    lasts = np.append(starts[1:], len(text)) - 1
    sound &= digits[lasts] < 32
    digits[odd], digits[lasts] = 0, digits[lasts] & 31  # so that the neighbours of a code that is none are read rightly
    ends = np.flatnonzero(digits < 32)
    begins = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - begins + 1
    first = np.searchsorted(begins, starts)
    sound &= np.maximum.reduceat(lengths, first) <= MOST_CHARACTERS
    runs = (digits[begins] & 31).astype(np.int64)
    for place in range(1, min(int(lengths.max()), MOST_CHARACTERS)):
        longer = np.flatnonzero(lengths > place)
        runs[longer] |= (digits[begins[longer] + place] & 31).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(digits[ends] & 16)
    runs[negative] -= np.int64(1) << (5 * np.minimum(lengths[negative], MOST_CHARACTERS))
    return _summed(runs, first), first, sound


def _summed(runs: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each run is written less the one two before, from the fourth on: sums by turns, anew for each code."""
    count = np.diff(first, append=len(runs))
    even = count + count % 2  # so that the runs of each code stand in pairs
    places = np.arange(len(runs)) + np.repeat(np.cumsum(even) - even - first, count)
    pairs = np.zeros((int(even.sum()) // 2, 2), np.int64)
    pairs.ravel()[places] = runs
    begins = (np.cumsum(even) - even) // 2
    grounds = pairs[begins, 0].copy()
    pairs[begins, 0] = 0
    sums = np.cumsum(pairs, 0)
    sums -= np.repeat(sums[begins] - pairs[begins], even // 2, 0)
    sums[begins, 0] = grounds
    return sums.ravel()[places]
