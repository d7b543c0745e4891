"""The shape glossary, and the typed containers that travel between the parts.

B images   R regions of an image (padded)   K tokens of a region   C channels   H W rows, columns
T tokens of a sequence   D width of the language model   V vocabulary   S side of a region's crop
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from components.tasks import Distortions

Self = TypeVar("Self", bound="_Movable")


class _Movable:
    """A dataclass whose tensors (and nested movables) go to a device together."""

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """As `Tensor.to`, on every tensor inside; everything else is kept."""
        moved = {
            f.name: v.to(*args, **kwargs)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(v := getattr(self, f.name), (Tensor, _Movable))
        }
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Pyramid(_Movable):
    """What a vision encoder sees, fine to coarse: `maps[l]` is (B, C_l, H_l, W_l)."""

    maps: tuple[Tensor, ...]

    def to(self, *args: Any, **kwargs: Any) -> Pyramid:
        """As `Tensor.to`, on every map."""
        return Pyramid(tuple(m.to(*args, **kwargs) for m in self.maps))


@dataclass(frozen=True)
class Regions(_Movable):
    """The regions of each image, at the encoder's size.

    Attributes:
        masks: (B, R, H, W) bool.
        crops: (B, R, 3, H, W) of the scorer's `crop_size`, normalised like the image.
        boxes: (B, R, 4) left, top, width, height as fractions of the original image, in [0, 1].
        areas: (B, R) fraction of the original image's pixels, in [0, 1].
        valid: (B, R) bool; False where an image has fewer than R regions.
    """

    masks: Tensor
    crops: Tensor
    boxes: Tensor
    areas: Tensor
    valid: Tensor

    def between(self, first: int, end: int) -> Regions:
        """Those from `first` to before `end` of each image."""
        return Regions(**{f.name: getattr(self, f.name)[:, first:end] for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class Labels(_Movable):
    """What is known of each region. Scores are in [0, 1] (1 = best quality, 1 = most important), NaN where unknown.

    Attributes:
        quality, quality_std, importance, importance_std: (B, R).
        distortions: per image, per region: ((type, severity), ...), () for a clean region, None where unknown.
    """

    quality: Tensor
    quality_std: Tensor
    importance: Tensor
    importance_std: Tensor
    distortions: tuple[tuple[Distortions | None, ...], ...]


@dataclass(frozen=True)
class Batch(_Movable):
    """B images with their regions.

    Attributes:
        images: (B, 3, H, W), normalised; (B, 3, 0, 0) where `pyramid` stands for them.
        ids: names of each image's regions, for reports.
        pyramid: what a frozen vision encoder saw of the images, if that is known already (`Scorer.precompute`).
        clean: (B, R, 3, H, W), the regions' crops before the image was distorted; None where that is not known.
        native: B images (3, H0, W0) uint8 as they are, on the CPU wherever the batch goes; none where the scorer does not look at them.
    """

    images: Tensor
    regions: Regions
    labels: Labels | None = None
    ids: tuple[tuple[str, ...], ...] = ()
    pyramid: Pyramid | None = None
    clean: Tensor | None = None
    native: tuple[Tensor, ...] = ()


def pad_stack(rows: list[Tensor], fill: float | bool = 0) -> Tensor:
    """Stacks (R_b, ...) tensors of differing R_b to (B, max R, ...), filling what is missing."""
    longest = max(len(r) for r in rows)
    out = torch.full((len(rows), longest, *rows[0].shape[1:]), fill, dtype=rows[0].dtype, device=rows[0].device)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out


_PADDING: dict[type, float] = {Regions: 0, Labels: torch.nan}


def split(batch: Batch) -> list[Batch]:
    """B batches of one image each, without its padding; in memory of their own, so that a batch can be dropped."""
    singles = []
    for b in range(len(batch.images)):
        count = int(batch.regions.valid[b].sum())

        def cut(part: Any, b: int = b, count: int = count) -> Any:
            return None if part is None else _each(part, lambda x: x[b : b + 1, :count].clone(), lambda x: (x[b],))

        pyramid = None if batch.pyramid is None else Pyramid(tuple(m[b : b + 1].clone() for m in batch.pyramid.maps))
        clean = None if batch.clean is None else batch.clean[b : b + 1, :count].clone()
        shown, regions, labels = batch.images[b : b + 1].clone(), cut(batch.regions), cut(batch.labels)
        singles.append(Batch(shown, regions, labels, batch.ids[b : b + 1], pyramid, clean, batch.native[b : b + 1]))
    return singles


def join(batches: list[Batch]) -> Batch:
    """The inverse of `split`: regions are padded to the largest number."""

    def joined(kind: Any, parts: list[Any]) -> Any:
        def one(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], tuple):
                return tuple(row for value in values for row in value)
            return pad_stack([row for value in values for row in value], _PADDING[kind])

        return kind(*(one(f.name) for f in dataclasses.fields(kind)))

    return Batch(
        torch.cat([b.images for b in batches]),
        joined(Regions, [b.regions for b in batches]),
        None if batches[0].labels is None else joined(Labels, [b.labels for b in batches]),
        tuple(ids for b in batches for ids in b.ids),
        None
        if batches[0].pyramid is None
        else Pyramid(tuple(map(torch.cat, zip(*(b.pyramid.maps for b in batches if b.pyramid), strict=True)))),
        None if batches[0].clean is None else pad_stack([row for b in batches if b.clean is not None for row in b.clean]),
        tuple(image for b in batches for image in b.native),
    )


def _each(part: Any, tensor: Callable[[Tensor], Tensor], other: Callable[[Any], Any]) -> Any:
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    return type(part)(**{name: tensor(v) if isinstance(v, Tensor) else other(v) for name, v in values.items()})
