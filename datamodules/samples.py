"""A sample of a record: its image decoded, its masks drawn when they are needed, both in one of eight positions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components import rle
from components.rle_many import Edges, edges_of, measure_edges, sample_all
from datamodules.records import GO_ON, ImageRecord, first_malformed

Options = ParamSpec("Options")


def _naming(read: Callable[Concatenate[RoiSample, Options], Tensor]) -> Callable[Concatenate[RoiSample, Options], Tensor]:
    """A malformed region's error names image and region, and says how to go on without."""

    @functools.wraps(read)
    def named(sample: RoiSample, /, *args: Options.args, **kwargs: Options.kwargs) -> Tensor:
        try:
            return read(sample, *args, **kwargs)
        except rle.RegionError as error:
            raise rle.RegionError(f"image {sample.record.id}, region {first_malformed(sample.record)}: {error}. {GO_ON}") from error

    return named


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
        self.record.check_size(*(self.image.shape[1:] if not self.turn & 4 else self.image.shape[:0:-1]))

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], record: ImageRecord) -> RoiSample:
        """Of pixels (H, W, 3) uint8, in position 0; the masks stay encoded."""
        return cls(torch.from_numpy(pixels).permute(2, 0, 1), record)

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
            sample_all(height, width, counts, rows, columns, out.numpy(), self._edges)
            return out
        masks = _turn(torch.from_numpy(sample_all(height, width, counts, rows, columns, known=self._edges)), self.turn)
        return masks if out is None else out.copy_(masks)

    @_naming
    def boxes(self) -> Tensor:
        """(R, 4) long: left, top, width, height of each region in pixels, in position `turn`. Raises RegionError for an empty one."""
        height, width = self.record.height, self.record.width
        x, y, w, h = self._measures[:, :4].unbind(1)
        x = width - x - w if self.turn & 1 else x
        y = height - y - h if self.turn & 2 else y
        return torch.stack((y, x, h, w) if self.turn & 4 else (x, y, w, h), 1)

    @_naming
    def areas(self) -> Tensor:
        """(R,) long: pixels of each region."""
        return self._measures[:, 4]

    @functools.cached_property
    def _edges(self) -> Edges:
        return edges_of(self.record.height, self.record.width, [r.counts for r in self.record.regions])

    @functools.cached_property
    def _measures(self) -> Tensor:
        """(R, 5) long, in position 0."""
        counts = [r.counts for r in self.record.regions]
        return torch.from_numpy(measure_edges(self.record.height, self.record.width, counts, self._edges))

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
