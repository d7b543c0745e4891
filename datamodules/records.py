"""The one schema in memory: an image with all its regions (on disk: `datamodules.tables`; decoded: `datamodules.samples`)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from components import rle
from components.tasks import Distortions

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Direction = Literal["higher", "lower"]
Box = tuple[int, int, int, int]
Number = TypeVar("Number", float, NDArray[np.float64])
ROUNDING = 1e-9  # of a scale
PLACES = 12  # decimal ones, to which a score can have been rounded
COARSEST = 1 / 8  # of a scale: half a step of one of five, the coarsest that scores are rounded to
TWO_OPINIONS = math.sqrt(2)  # sample over population standard deviation, where it is largest
GO_ON = "To train without such images, list them once: python prepare.py validate DATA --images --json problems.json, exclude=problems.json"


@dataclass(frozen=True)
class Scale:
    """What a score was given on.

    Attributes:
        direction: which end is the best quality, or the most important: "higher" is better, or "lower".

    Raises:
        ValueError: not two finite numbers, the lower first, or another direction.
    """

    low: float = 0.0
    high: float = 1.0
    direction: Direction = "higher"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a scale goes from a lower to a higher finite number, got {self.low} to {self.high}; see direction")
        if self.direction not in ("higher", "lower"):
            raise ValueError(f"the direction of a scale is 'higher' (is better) or 'lower', got {self.direction!r}")

    def unit(self, given: Number) -> Number:
        """A score on this scale, or an array of them -> on [0, 1], 1 = best or most important."""
        share = (given - self.low) / (self.high - self.low)
        return share if self.direction == "higher" else 1 - share

    def given(self, unit: float) -> float:
        """The inverse of `unit`."""
        share = unit if self.direction == "higher" else 1 - unit
        return self.low + share * (self.high - self.low)

    def unit_std(self, given: float) -> float:
        """A standard deviation on this scale -> on [0, 1]."""
        return given / (self.high - self.low)

    def given_std(self, unit: float) -> float:
        """The inverse of `unit_std`."""
        return unit * (self.high - self.low)

    def holds(self, given: float) -> bool:
        """Whether a score lies on the scale, to rounding; what is no number does not."""
        rounding = ROUNDING * (self.high - self.low)
        return self.low - rounding <= given <= self.high + rounding

    def largest_std(self, given: float) -> float:
        """The largest sample standard deviation that a score on the scale can have: that of opinions at the scale's two ends. A score is
        taken for rounded to its last decimal place, so that 5 may have been 4.6, about which opinions can differ."""
        places = next((n for n in range(PLACES) if round(given, n) == given), PLACES)
        middle, whole = (self.low + self.high) / 2, self.high - self.low
        moved = min(0.5 * 10.0**-places, COARSEST * whole, abs(given - middle))
        mean = given - math.copysign(moved, given - middle)
        return TWO_OPINIONS * math.sqrt(max((mean - self.low) * (self.high - mean), 0)) + ROUNDING * whole


UNIT = Scale()


@dataclass(frozen=True)
class RegionRecord:
    """One region and what is known of it. Scores are in [0, 1], 1 = best quality and 1 = most important; None where unknown.

    Attributes:
        counts: the mask, COCO compressed RLE; its size is the image's.
        quality_std, importance_std: on [0, 1], as the scores are.
        distortions: ((type, severity), ...), () for a clean region, None where unknown.
        quality_scale, importance_scale: what the scores were given on.
        semantic: what the region shows, in a word. description: in a sentence.
        box, area: left, top, width, height of the smallest box around the mask, and its pixels; they follow from `counts`, and
            are written with it.
    """

    id: str
    counts: str
    quality: float | None = None
    quality_std: float | None = None
    importance: float | None = None
    importance_std: float | None = None
    distortions: Distortions | None = None
    quality_scale: Scale = UNIT
    importance_scale: Scale = UNIT
    semantic: str | None = None
    description: str | None = None
    box: Box | None = field(default=None, compare=False)
    area: int | None = field(default=None, compare=False)

    def measured(self, height: int, width: int) -> RegionRecord:
        """With its box and area.

        Raises:
            RegionError: the counts do not belong to an image of this size, or cover no pixel.
        """
        if self.box is not None and self.area is not None:
            return self
        box, area = rle.measure({"size": [height, width], "counts": self.counts})
        return replace(self, box=box, area=area)


@dataclass(frozen=True)
class ImageRecord:
    """One image. Its pixels are in `png`, or in a file at `path`.

    Attributes:
        source: the group that must not be split: the photograph it was made from.
        png: the encoded image, PNG or another format; b"" where it is elsewhere.
        path: of the image's file, relative to the data's folder; "archive.zip::member" for one inside a zip or tar archive.
        hash: of the encoded image, with what it is in front: "sha256:..." or, as zip archives hold it, "crc32:...:length".
        reference: path, as `path`, of the clean image it was made from.
    """

    id: str
    source: str
    split: str
    height: int
    width: int
    regions: tuple[RegionRecord, ...]
    png: bytes = b""
    path: str = ""
    hash: str = ""
    reference: str = ""

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError where its image, which is decoded, has another size."""
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"image {self.id} has {width} x {height} pixels (width x height), its record and its masks {self.width} x {self.height}: "
                f"correct the record, or fetch the image again. {GO_ON}"
            )

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, of an image whose bytes are in the record."""
        with PIL.Image.open(io.BytesIO(self.png)) as image:
            return np.array(image.convert("RGB"))

    def measured(self) -> ImageRecord:
        """With the box and area of each region.

        Raises:
            RegionError: names the region that does not belong to an image of this size, or covers no pixel.
        """
        try:
            return replace(self, regions=tuple(r.measured(self.height, self.width) for r in self.regions))
        except rle.RegionError as error:
            raise rle.RegionError(f"image {self.id}, region {first_malformed(self)}: {error}") from error


def first_malformed(record: ImageRecord) -> str:
    """The id of the first region whose mask is none of an image of this size, or covers no pixel."""
    for region in record.regions:
        try:
            replace(region, box=None).measured(record.height, record.width)
        except rle.RegionError:
            return region.id
    return "unknown"


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> PNG, lightly compressed."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
