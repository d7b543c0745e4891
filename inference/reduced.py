"""Which regions a model sees so much smaller than they are that fine distortions are gone before it looks."""

from __future__ import annotations

import math

from components.preprocess import crop_shape
from components.scorers.base import Scorer
from inference.rows import Seen

FACTOR = 4.0  # noise of single pixels, averaged over 4 x 4 of them, has a quarter of its strength


def reduced(scorer: Scorer, seen: Seen) -> int:
    """How many regions of an image are seen at less than 1 / `FACTOR` of their size, in the image and in their crop, where there is one.

    Of those that have scores.
    """
    if seen.image is None:
        return 0
    whole = max(seen.image.shape[:2]) / scorer.preprocess.size
    crop = 0 if scorer.preprocess.outline else min(crop_shape(scorer.crop_size))  # with an outline, the crop is the image
    return sum(min(whole, max(row.box[2:]) / crop if crop else math.inf) > FACTOR for row in seen.rows if row.box and not row.error)


def note(count: int, scorer: Scorer) -> str:
    """What is said of so many regions; "" of none."""
    if not count:
        return ""
    side, were = scorer.preprocess.size, "region was" if count == 1 else "regions were"
    return (
        f"{count} {were} reduced more than {FACTOR:g} times before the model looked (it sees an image as {side} x {side} pixels), in which "
        "noise, compression and slight blur vanish: cut out what you ask about, to about that size"
    )
