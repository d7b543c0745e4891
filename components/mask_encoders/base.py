"""The contract of a mask encoder, and the prompts it understands."""

from __future__ import annotations

import hashlib
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
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
ROOM = 256 * 2**20  # bytes of what an encoder keeps of the images that it has seen

# Files that are read, MPO by the opener of JPEG. Pillow would try more: for one of them it starts another program (Ghostscript), and
# decoders of others are rare.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Prompt:
    """One region, said in exactly one way. Coordinates are pixels of the image, x to the right, y downwards.

    Attributes:
        box: left, top, width, height.
        polygon: rings [x0, y0, x1, y1, ...]; their union is the region (COCO's polygon form). Or the points (x, y) of a single one.
        rle: COCO run-length encoding {"size": [H, W], "counts": str | bytes | list[int]}.
        mask: (H, W) array, not 0 inside, or an image file, its path or its bytes; `components.drawn_masks` says what is one region.
        point: x, y; needs a mask encoder that can grow a region from a point.
    """

    box: tuple[float, float, float, float] | None = None
    polygon: Sequence[Sequence[float]] | None = None
    rle: dict[str, Any] | None = None
    mask: NDArray[Any] | str | Path | bytes | None = None
    point: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        given = [k for k in ("box", "polygon", "rle", "mask", "point") if getattr(self, k) is not None]
        if len(given) != 1:
            raise RegionError(f"a region is said in exactly one way (box, polygon, rle, mask or point), got {given or 'none'}")
        return given[0]

    def reaches_out(self, size: tuple[int, ...]) -> bool:
        """Of a box or a polygon that can be drawn, whether it reaches out of an image of `size` (height, width) by a pixel or more, which
        is no rounding, so that a part of it is cut off."""
        rings = rings_of(() if self.polygon is None else self.polygon)
        if self.box is not None:
            left, top, width, height = self.box
            rings = [[left, top, left + width, top + height]]
        ends = [(min(axis), max(axis) - side) for ring in rings for axis, side in zip((ring[0::2], ring[1::2]), size[::-1], strict=True)]
        return any(first <= -1 or beyond >= 1 for first, beyond in ends)


def rings_of(polygon: Sequence[Any]) -> Sequence[Any]:
    """A polygon's rings: those that are given, or the one that three or more points (x, y) are. No ring has two numbers, so that one form
    is not taken for the other. What is no ring is left for who draws it to refuse."""
    of_points = len(polygon) >= 3 and all(isinstance(point, Sequence | np.ndarray) and len(point) == 2 for point in polygon)
    return [[value for point in polygon for value in point]] if of_points else polygon


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


class Seen:
    """What was made of the last images, by their content, so that who asks about several in turn does not have each made anew. May be used
    from several threads: of two that ask for one image at once, the second waits for what the first makes.

    An array that owns its memory and cannot be written to is known again without reading it.

    Args:
        look: image -> what is kept of it, an array or tensor. Whoever waits gets its error; whoever comes later tries again.
        room: bytes; the longest unused gives way. The last one is kept, whatever its size.
    """

    def __init__(self, look: Callable[[Image], Any], room: int = ROOM) -> None:
        self.look, self.room = look, room
        self._kept: OrderedDict[bytes, Future[Any]] = OrderedDict()  # the longest unused first
        self._known: dict[int, tuple[weakref.ref[Image], bytes]] = {}
        self._turn = threading.Lock()  # of the table, never held while something is made

    def of(self, image: Image) -> Any:
        """What is kept of an image."""
        key = self._key(image)
        with self._turn:
            found = self._kept.get(key)
            made: Future[Any] = Future() if found is None else found
            self._kept[key] = made
            self._kept.move_to_end(key)
        if found is None:
            self._make(key, image, made)
        return made.result()

    def clear(self) -> None:
        """Keeps nothing any more."""
        with self._turn:
            self._kept.clear()

    def _make(self, key: bytes, image: Image, made: Future[Any]) -> None:
        try:
            made.set_result(self.look(image))
        except BaseException as error:
            with self._turn:
                self._kept.pop(key, None)
            made.set_exception(error)
            return
        with self._turn:
            while len(self._kept) > 1 and sum(f.result().nbytes for f in self._kept.values() if f.done()) > self.room:
                self._kept.popitem(last=False)

    def _key(self, image: Image) -> bytes:
        fixed = image.base is None and not image.flags.writeable
        if fixed and (known := self._known.get(id(image))) is not None and known[0]() is image:
            return known[1]
        content = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
        content.update(np.ascontiguousarray(image).data)
        key = content.digest()
        if fixed:
            number, known_as = id(image), self._known
            known_as[number] = weakref.ref(image, lambda _: known_as.pop(number, None)), key
        return key


class MaskEncoder(ABC):
    """Prompts -> masks. `can_propose` says whether it can segment an image by itself."""

    can_propose: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy for another process: without locks, and without what is kept of images."""
        return {name: value for name, value in self.__dict__.items() if name not in ("turn", "seen")}

    @cached_property
    def turn(self) -> threading.Lock:
        """Held by whoever asks it while others may: an encoder need not be made for several threads."""
        return threading.Lock()

    @cached_property
    def seen(self) -> Seen:
        """`look` of the last images, for encoders that have one."""
        return Seen(self.look)

    def look(self, image: Image) -> Any:
        """The part of the work that an image takes whatever the prompts, as an array or tensor; `seen` keeps it."""
        raise NotImplementedError(f"{type(self).__name__} keeps nothing of an image")

    @abstractmethod
    def forward(self, image: Image, prompts: Sequence[Prompt]) -> Masks:
        """image (H, W, 3) uint8 -> (R, H, W) bool, one non-empty mask per prompt. Raises RegionError."""

    def codes(self, image: Image, prompts: Sequence[Prompt]) -> list[Code]:
        """The masks of `forward` as run-length codes. Who can makes no mask of the image's size, else one at a time. Raises RegionError."""
        return [rle.encode(self.forward(image, [prompt])[0]) for prompt in prompts]

    def propose(self, image: Image) -> Masks:
        """Segments everything: image (H, W, 3) uint8 -> (R, H, W) bool."""
        raise NotImplementedError(f"{type(self).__name__} cannot propose regions by itself: use superpixel or sam")

    def propose_codes(self, image: Image) -> Iterator[Code]:
        """The masks of `propose` as run-length codes, one after another. Who can makes one mask at a time, or none: of a photograph of 24
        megapixels forty together take a gigabyte."""
        yield from map(rle.encode, self.propose(image))

    def load_pretrained(self) -> None:
        """Reads trained weights where there are any; called once, after construction."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> dict[str, Any]:
        """Options of a small instance for tests."""


MASK_ENCODERS: Registry[MaskEncoder] = Registry("mask_encoder", __package__, MaskEncoder)
