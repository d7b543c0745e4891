"""The contract of a mask encoder, and the prompts it understands."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.registry import Registry
from components.rle import RegionError

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Masks = NDArray[np.bool_]  # (R, H, W)
Code = dict[str, Any]  # COCO's run-length code of a mask, as `components.rle` writes it

# Files that are read, MPO by the opener of JPEG. Pillow would try more: for one of them it starts another program (Ghostscript), and
# decoders of others are rare.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Prompt:
    """One region, said in exactly one way. Coordinates are pixels of the image, x to the right, y downwards.

    Attributes:
        box: left, top, width, height.
        polygon: rings [x0, y0, x1, y1, ...]; their union is the region (COCO's polygon form).
        rle: COCO run-length encoding {"size": [H, W], "counts": str | bytes | list[int]}.
        mask: (H, W) array, non-zero inside, or the path of an image file.
        point: x, y; needs a mask encoder that can grow a region from a point.
    """

    box: tuple[float, float, float, float] | None = None
    polygon: Sequence[Sequence[float]] | None = None
    rle: dict[str, Any] | None = None
    mask: NDArray[Any] | str | Path | None = None
    point: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        given = [k for k in ("box", "polygon", "rle", "mask", "point") if getattr(self, k) is not None]
        if len(given) != 1:
            raise RegionError(f"a region is said in exactly one way (box, polygon, rle, mask or point), got {given or 'none'}")
        return given[0]


def image_size(image: Image) -> tuple[int, int]:
    """(height, width) of an image that keeps the contract.

    Raises:
        ValueError: not (H, W, 3) uint8 with at least one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(f"an image is (height, width, 3) uint8 RGB, got shape {image.shape} of {image.dtype}: read it with load_image")
    return image.shape[0], image.shape[1]


def pixel_at(point: Sequence[float], size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the pixel that holds `point` (x, y) in an image of `size` (height, width).

    Raises:
        RegionError: not two finite numbers, or outside the image.
    """
    if len(point) != 2 or not np.isfinite(point).all():
        raise RegionError(f"a point is x, y: two finite numbers of pixels, got {point}")
    x, y = point
    if not (0 <= x < size[1] and 0 <= y < size[0]):
        raise RegionError(f"point ({x:g}, {y:g}) lies outside the image of {size[1]} x {size[0]} pixels (width x height)")
    return int(y), int(x)


class MaskEncoder(ABC):
    """Prompts -> masks. `can_propose` says whether it can segment an image by itself."""

    can_propose: bool = False

    @cached_property
    def turn(self) -> threading.Lock:
        """Held by whoever asks it while others may: a mask encoder may keep what it knows of the last image."""
        return threading.Lock()

    @abstractmethod
    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool, one non-empty mask per prompt. Raises RegionError."""

    def propose(self, image: Image) -> Masks:
        """Segments everything: image (H, W, 3) uint8 -> (R, H, W) bool."""
        raise NotImplementedError(f"{type(self).__name__} cannot propose regions by itself: use superpixel or sam")

    def propose_codes(self, image: Image) -> Iterator[Code]:
        """The masks of `propose` as run-length codes, one after another. Who can makes one mask at a time: of a photograph of 24 megapixels
        forty together take a gigabyte."""
        yield from map(rle.encode, self.propose(image))

    def load_pretrained(self) -> None:
        """Reads trained weights where there are any; called once, after construction."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small instance for tests."""


MASK_ENCODERS: Registry[MaskEncoder] = Registry("mask_encoder", __package__, MaskEncoder)
