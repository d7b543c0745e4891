"""The one schema in memory: an image with all its regions, and a sample of it (on disk: `datamodules.tables`)."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from components import rle
from components.batch import Distortions
from components.rle_many import sample_all

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Direction = Literal["higher", "lower"]
Box = tuple[int, int, int, int]
Number = TypeVar("Number", float, NDArray[np.float64])
Options = ParamSpec("Options")
ROUNDING = 1e-9  # of a scale
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
        """The largest sample standard deviation that a score on the scale can have: that of opinions at the scale's two ends."""
        return TWO_OPINIONS * math.sqrt(max((given - self.low) * (self.high - given), 0)) + ROUNDING * (self.high - self.low)


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
            raise rle.RegionError(f"image {self.id}, region {_first_malformed(self)}: {error}") from error

    def sample(self) -> RoiSample:
        """Decodes the pixels; the masks stay encoded."""
        return RoiSample(torch.from_numpy(self.pixels()).permute(2, 0, 1), self)


def _naming(read: Callable[Concatenate[RoiSample, Options], Tensor]) -> Callable[Concatenate[RoiSample, Options], Tensor]:
    """A malformed region's error names image and region, and says how to go on without."""

    @functools.wraps(read)
    def named(sample: RoiSample, /, *args: Options.args, **kwargs: Options.kwargs) -> Tensor:
        try:
            return read(sample, *args, **kwargs)
        except rle.RegionError as error:
            raise rle.RegionError(f"image {sample.record.id}, region {_first_malformed(sample.record)}: {error}. {GO_ON}") from error

    return named


def _first_malformed(record: ImageRecord) -> str:
    for region in record.regions:
        try:
            replace(region, box=None).measured(record.height, record.width)
        except rle.RegionError:
            return region.id
    return "unknown"


@dataclass(frozen=True)
class RoiSample:
    """One image with all its regions.

    Attributes:
        image: (3, H, W) uint8, in position `turn`.
        record: as stored, that is in position 0.
        turn: which of the eight positions of a square, 0 to 7, images and masks are in (see `turned`).
        clean: (3, H, W) uint8, the image before it was distorted; None where that is not known.

    Raises:
        ValueError: image and record are of different sizes.
    """

    image: Tensor
    record: ImageRecord
    turn: int = 0
    clean: Tensor | None = None

    def __post_init__(self) -> None:
        height, width = self.image.shape[1:] if not self.turn & 4 else self.image.shape[:0:-1]
        if (height, width) != (self.record.height, self.record.width):
            raise ValueError(
                f"image {self.record.id} has {width} x {height} pixels (width x height), its record and its masks "
                f"{self.record.width} x {self.record.height}: correct the record, or fetch the image again. {GO_ON}"
            )

    @_naming
    def masks(self) -> Tensor:
        """(R, H, W) bool, in position `turn`; decoded when they are needed.

        Raises:
            RegionError: a region's counts do not belong to an image of this size.
        """
        height, width = self.record.height, self.record.width
        masks = np.zeros((len(self.record.regions), height, width), np.bool_)
        for mask, region in zip(masks, self.record.regions, strict=True):
            mask[:] = rle.decode({"size": [height, width], "counts": region.counts})
        return _turn(torch.from_numpy(masks), self.turn)

    @_naming
    def masks_at(self, size: int, out: Tensor | None = None) -> Tensor:
        """(R, size, size) bool: `prepare_masks(self.masks(), size)`, without making masks of the image's size.

        Args:
            out: of that shape, all False, to draw into.

        Raises:
            RegionError: as `masks` does.
        """
        height, width = self.record.height, self.record.width
        rows, columns = (np.arange(size) * side // size for side in (height, width))
        rows = height - 1 - rows[::-1] if self.turn & 2 else rows  # ascending; turned back below
        columns = width - 1 - columns[::-1] if self.turn & 1 else columns
        counts = [r.counts for r in self.record.regions]
        if out is not None and not self.turn:
            sample_all(height, width, counts, rows, columns, out.numpy())
            return out
        masks = _turn(torch.from_numpy(sample_all(height, width, counts, rows, columns)), self.turn)
        return masks if out is None else out.copy_(masks)

    @_naming
    def boxes(self) -> Tensor:
        """(R, 4) long: left, top, width, height of each region in pixels, in position `turn`. Raises RegionError for an empty one."""
        height, width = self.record.height, self.record.width
        known = [r.measured(height, width).box for r in self.record.regions]
        x, y, w, h = torch.tensor(known, dtype=torch.long).reshape(-1, 4).unbind(1)
        x = width - x - w if self.turn & 1 else x
        y = height - y - h if self.turn & 2 else y
        return torch.stack((y, x, h, w) if self.turn & 4 else (x, y, w, h), 1)

    @_naming
    def areas(self) -> Tensor:
        """(R,) long: pixels of each region."""
        return torch.tensor([r.measured(self.record.height, self.record.width).area for r in self.record.regions], dtype=torch.long)

    def turned(self, turn: int) -> RoiSample:
        """The same sample in position `turn`: mirrored left to right if `turn & 1`, upside down if `& 2`, about the diagonal if `& 4`."""
        if self.turn:
            raise ValueError(f"this sample is in position {self.turn} already: turn the one it was made of")
        return RoiSample(_turn(self.image, turn), self.record, turn, None if self.clean is None else _turn(self.clean, turn))


def _turn(x: Tensor, turn: int) -> Tensor:
    """(..., H, W) -> (..., H, W), or (..., W, H) where the diagonal is the mirror."""
    x = x.flip(-1) if turn & 1 else x
    x = x.flip(-2) if turn & 2 else x
    return x.transpose(-2, -1).contiguous() if turn & 4 else x


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> PNG, lightly compressed."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
