"""COCO run-length encoding: a mask as the lengths of its runs, column by column, outside first.

Everything is read through `_runs`, which checks a code before anything is allocated: pycocotools trusts what it is given and
reads or writes past its buffers where the runs do not fit the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

MOST_CHARACTERS = 7  # of one run: 5 bits each, enough for 2**34 pixels


class RegionError(ValueError):
    """A region that cannot be used: empty, outside the image, of another size, or unreadable."""


def encode(mask: ArrayLike) -> dict[str, Any]:
    """(H, W), non-zero inside -> {"size": [H, W], "counts": str}, ready for JSON.

    Raises:
        RegionError: not two-dimensional, or without pixels.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise RegionError(f"a mask to encode is (height, width) with at least one pixel, got shape {array.shape}")
    return _written(array.shape[0], array.shape[1], _counted(array))


def encode_enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> dict[str, Any]:
    """`encode` of a mask (h, w) enlarged to `size` (height, width), no less, by nearest neighbour: pixel (y, x) is that at
    (y * h // height, x * w // width). The large mask is never made."""
    (height, width), (low, narrow) = size, mask.shape
    starts = -(-np.arange(low + 1) * height // low)  # rows of the large mask where each of the small one's begins, and its height
    return _written(height, width, _counted(mask[:, np.arange(width) * narrow // width], starts))


def encode_rectangle(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    """`encode` of a mask of `size` (height, width) that holds the rows from `top` up to `bottom` and the columns from `left` up to `right`,
    at least one of each. The mask itself is never made."""
    (height, width), tall = size, bottom - top
    across = right - left
    inside = [across * height] if tall == height else [tall, *[height - tall, tall] * (across - 1)]
    before = left * height + top
    rest = height * width - before - sum(inside)
    return _written(height, width, [before, *inside, *([rest] if rest else [])])


def as_text(rle: Mapping[str, Any]) -> dict[str, Any]:
    """A code in any of COCO's forms -> the form that `encode` gives, of the same pixels; one that is text is taken as it is.

    Raises:
        RegionError: as `decode` does, for one that is none yet.
    """
    height, width = size(rle)
    counts = rle["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    return {"size": [height, width], "counts": counts} if isinstance(counts, str) else _written(height, width, _runs(rle).tolist())


def _written(height: int, width: int, runs: list[int]) -> dict[str, Any]:
    code = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def _counted(mask: NDArray[Any], starts: NDArray[np.int64] | None = None) -> list[int]:
    """(H, W) -> lengths of its runs. Only the smallest box around the region is turned column by column, which is most of the work.

    Args:
        starts: (H + 1,) where each row begins in a higher mask, whose runs are counted then, and its height.
    """
    starts = np.arange(mask.shape[0] + 1) if starts is None else starts
    height, width = int(starts[-1]), mask.shape[1]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [height * width]
    top, left = int(rows[0]), int(columns[0])
    inside = np.zeros((int(columns[-1]) + 1 - left, int(rows[-1]) + 3 - top), np.int8)  # a column of the box a row, outside at both ends
    inside[:, 1:-1] = (mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1] != 0).T
    column, row = np.nonzero(np.diff(inside, axis=1))  # where the region is entered and left, in turn
    edges = (left + column) * height + starts[top + row]
    if edges.size > 2:  # what leaves at the foot of a column and enters at the head of the next is one run
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    runs = np.diff(edges, prepend=0, append=height * width)
    return [int(n) for n in (runs if runs[-1] else runs[:-1])]


def decode(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """COCO RLE, compressed or not -> (H, W) bool.

    Raises:
        RegionError: size or counts are malformed, or do not belong together.
    """
    height, width = size(rle)
    runs = _runs(rle)
    inside = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)  # (H, W)


def sample(
    rle: Mapping[str, Any], rows: NDArray[np.int64], columns: NDArray[np.int64], out: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """The mask's pixels at (rows[i], columns[j]) -> (len(rows), len(columns)) bool, equal to `decode(rle)[rows][:, columns]`.

    The mask itself is never made: each run's two ends are placed among the pixels asked for. So the cost is that of what is
    asked for, whatever the size of the image.

    Args:
        rows, columns: ascending indices into the mask; repeated ones are allowed.
        out: (len(rows), len(columns)), all False, to draw into; only what is around the region is touched.

    Raises:
        RegionError: as `decode` does.
    """
    height, _ = size(rle)
    edges = np.cumsum(_runs(rle))
    edges = edges[: edges.size // 2 * 2]  # where the region is entered and left, in turn
    wanted, again = np.unique(columns, return_inverse=True)
    before = np.searchsorted(wanted, edges // height)
    partly = wanted[np.minimum(before, wanted.size - 1)] == edges // height
    places = before * rows.size + np.where(partly, np.searchsorted(rows, edges % height), 0)  # pixels asked for before each edge
    mask = np.zeros((rows.size, columns.size), np.bool_) if out is None else out
    if (places[1::2] > places[0::2]).any():
        first, last = int(places[0]) // rows.size, -(-int(places[-1]) // rows.size)  # columns that the region touches
        runs = np.diff(places, prepend=first * rows.size, append=last * rows.size)
        found = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(last - first, rows.size)  # (columns, rows)
        if wanted.size == columns.size:
            low, high = _rows_of(places, rows.size)
            mask[low:high, first:last] = found[:, low:high].T
        else:
            mask[:, (again >= first) & (again < last)] = found[again[(again >= first) & (again < last)] - first].T
    return mask


def _rows_of(places: NDArray[np.int64], height: int) -> tuple[int, int]:
    """The rows that runs from places[0::2] to places[1::2] touch: first, and last + 1."""
    starts, ends = places[0::2], places[1::2] - 1
    starts, ends = starts[ends >= starts], ends[ends >= starts]
    if (starts // height != ends // height).any():
        return 0, height
    return int((starts % height).min()), int((ends % height).max()) + 1


def size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the image that the code belongs to.

    Raises:
        RegionError: not a mapping with "size" and "counts", or the size is not two positive integers.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= set(rle):
        raise RegionError(f"an RLE is a mapping with 'size' and 'counts', got {_brief(rle)}")
    sides = rle["size"]
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(_is_count(side) and side > 0 for side in sides):
        raise RegionError(f"the size of an RLE is [height, width], two positive integers, got {_brief(sides)}")
    return int(sides[0]), int(sides[1])


def area(rle: Mapping[str, Any]) -> int:
    """Pixels inside, without decoding the mask. Raises RegionError as `decode` does."""
    return int(_runs(rle)[1::2].sum())


def box(rle: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, width, height of the smallest box around the region, in pixels, without decoding the mask.

    Raises:
        RegionError: as `decode` does, and for an empty region, which has no box.
    """
    return measure(rle)[0]


def measure(rle: Mapping[str, Any]) -> tuple[tuple[int, int, int, int], int]:
    """`box` and `area` in one reading."""
    height, _ = size(rle)
    runs = _runs(rle)
    ends = np.cumsum(runs)[1::2]
    starts = ends - runs[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]  # a run of no pixels is legal
    if ends.size == 0:
        raise RegionError("an empty region has no box: drop it, or check how it was made")
    inside = int((ends - starts).sum())
    columns, last_columns = starts // height, (ends - 1) // height
    rows, last_rows = starts % height, (ends - 1) % height
    left, right = int(columns.min()), int(last_columns.max())
    if (last_columns > columns).any():  # a run that passes the foot of a column goes on at the head of the next
        return (left, 0, right - left + 1, height), inside
    top, bottom = int(rows.min()), int(last_rows.max())
    return (left, top, right - left + 1, bottom - top + 1), inside


def _runs(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    """Lengths of the runs, outside first; their sum is height x width."""
    height, width = size(rle)
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        runs = _from_characters(counts)
    elif isinstance(counts, (list, tuple)) and all(_is_count(run) for run in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise RegionError(f"the counts of an RLE are a string or a list of integers, got {_brief(counts)}")
    if runs.size and runs.min() < 0:
        raise RegionError(f"malformed RLE counts: run {int(runs.argmin())} is {int(runs.min())} pixels long")
    if runs.sum() != height * width:
        raise RegionError(f"malformed RLE counts: they sum to {int(runs.sum())} pixels, size {height} x {width} has {height * width}")
    return runs


def _from_characters(counts: str | bytes) -> NDArray[np.int64]:
    """COCO's text form: base-32 digits from chr(48), lowest first, 32 = "more follows", each run less the one two before."""
    raw = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    digits = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if digits.size == 0 or digits.min() < 0 or digits.max() > 63:
        raise RegionError(f"malformed RLE counts: characters lie between '0' and 'o', got {_brief(counts)}")
    ends = np.flatnonzero(digits < 32)
    if ends.size == 0 or ends[-1] != digits.size - 1:
        raise RegionError(f"malformed RLE counts: the text stops in the middle of a number: ...{_brief(counts[-12:])}")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MOST_CHARACTERS:
        raise RegionError(f"malformed RLE counts: a number of {int(lengths.max())} characters, at most {MOST_CHARACTERS} make sense")
    places = np.arange(digits.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * places), starts)
    runs -= np.where(digits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**31) < int(value) < 2**31


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
