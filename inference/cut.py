"""Which regions reached out of their images, so that only a part of what was asked for was scored."""

from __future__ import annotations

from inference.rows import Seen


def cut(seen: Seen) -> int:
    """How many boxes and polygons of an image were cut to it; of those that have scores."""
    if seen.image is None:
        return 0
    failed, size = {row.region for row in seen.rows if row.error}, seen.image.shape[:2]
    drawn = [asked for asked in seen.request.regions if asked.kind in ("box", "polygon") and asked.id not in failed]
    return sum(asked.prompt(*size).reaches_out(size) for asked in drawn)


def note(count: int) -> str:
    """What is said of so many regions; "" of none."""
    if not count:
        return ""
    what, were = ("box or polygon", "was") if count == 1 else ("boxes or polygons", "were")
    return (
        f"{count} {what} reached out of an image by a pixel or more and {were} cut to it: a box is left,top,width,height, not two corners"
    )
