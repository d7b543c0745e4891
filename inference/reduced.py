"""Which regions a model sees so much smaller than they are that fine distortions are gone before it looks; and which have so few pixels
that there is hardly anything to see."""

from __future__ import annotations

import math

from components.preprocess import crop_shape
from components.scorers.base import Scorer
from inference.rows import Seen

FEW = 8  # pixels: the block of a JPEG file, and about the reach of the blur and noise that are told apart
FACTOR = 4.0  # noise of single pixels, averaged over 4 x 4 of them, has a quarter of its strength


def times(scorer: Scorer, size: tuple[int, int], box: tuple[int, int, int, int]) -> float:
    """By how much a region is reduced at the least, in the image of `size` (height, width) or in its crop, where there is one.

    Args:
        box: left, top, width, height of the region.
    """
    if scorer.preprocess.native:
        return 1.0
    whole = max(size) / scorer.preprocess.size
    crop = 0 if scorer.preprocess.outline else min(crop_shape(scorer.crop_size))  # with an outline, the crop is the image
    return min(whole, max(box[2:]) / crop if crop else math.inf)


def reduced(scorer: Scorer, seen: Seen) -> int:
    """How many regions of an image are reduced more than `FACTOR` times, of those that have scores."""
    if seen.image is None:
        return 0
    size = (seen.image.shape[0], seen.image.shape[1])
    return sum(times(scorer, size, row.box) > FACTOR for row in seen.rows if row.box and not row.error)


def note(count: int, scorer: Scorer) -> str:
    """What is said of so many regions; "" of none."""
    if not count:
        return ""
    side, were = scorer.preprocess.size, "region was" if count == 1 else "regions were"
    return (
        f"{count} {were} reduced more than {FACTOR:g} times before the model looked (it sees an image as {side} x {side} pixels), in which "
        "noise, compression and slight blur vanish: cut out what you ask about, to about that size"
    )


def few(seen: Seen) -> int:
    """How many regions of an image that have scores are less than `FEW` pixels wide or high."""
    return sum(min(row.box[2:]) < FEW for row in seen.rows if row.box and not row.error)


def note_few(count: int) -> str:
    """What is said of so many of them; "" of none."""
    if not count:
        return ""
    were = "region is" if count == 1 else "regions are"
    return f"{count} {were} less than {FEW} pixels wide or high, in which hardly anything can be seen: such scores say little"
