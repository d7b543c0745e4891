"""One geometry for an image, its masks and its crops (reference facts 1.10: the released SEAGULL pipeline).

An image is resized by PIL so that its shorter side has the model's size, normalised, and squashed to a square by a plain
bilinear resize; or PIL resizes it straight to the square. A mask takes the same square by nearest neighbour. A crop is the region's box,
cut at the original resolution, and brought to a square in the same way, or to a rectangle by one resize; or it is the whole image's square
with the box drawn on it; or none is made, and who looks at the region cuts its box out of the image's own pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from components.batch import Batch, Labels, Regions, pad_stack
from components.outline import Outline

Interpolation = Literal["bilinear", "bicubic"]
CropEdges = Literal["inclusive", "released"]
Resizes = Literal["released", "one"]
CropSize = int | tuple[int, int]  # pixels: a square's side, or a rectangle's height and width
SLENDER = 16  # longer side over shorter above which an image is brought to its square in one resize
_PIL = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_UNSAID = (("outline", None), ("resizes", "released"), ("native", False))


@dataclass(frozen=True)
class Preprocess:
    """What a model wants to see: a `size` x `size` RGB image, (x / 255 - mean) / std.

    Attributes:
        crop_edges: whether a region's crop is its whole box, or lacks the last row and column, as the released code cuts it. Where
            nothing would be left of a side, one pixel of it is kept; there the released code fails.
        outline: where given, a region's crop is no part of the image but the whole of it, with the region's box drawn on it.
        resizes: how a square is made. "released": by PIL, with antialias, until the shorter side fits; then the longer one is squashed by
            plain bilinear sampling, which skips pixels, so that a long region looks sharper and noisier than it is. "one": by PIL alone.
        native: whether regions are looked at in the image's own pixels. Then no crops are made; the batch brings its images along as they
            are (`own_pixels`), out of which `cut_box` cuts a region.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    crop_edges: CropEdges = "inclusive"
    outline: Outline | None = None
    resizes: Resizes = "released"
    native: bool = False

    def told(self) -> dict[str, Any]:
        """As it is written beside a model; an outline that is not drawn, resizes as released and regions that are not native go unsaid,
        as by those who wrote before there was a choice."""
        return {k: v for k, v in dataclasses.asdict(self).items() if (k, v) not in _UNSAID}


def crop_shape(size: CropSize) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def prepare_image(image: Tensor, preprocess: Preprocess, size: CropSize | None = None) -> Tensor:
    """(3, H0, W0) uint8 -> (3, S, S) float32, normalised; S is `size` or the preprocessing's own. A rectangle of `size` is made by one
    resize, whatever the proportions of the image (as chencn2020/MobileIQA@c74fec9 resizes)."""
    size = size or preprocess.size
    short, long = sorted(image.shape[-2:])
    if short == 0:
        raise ValueError(f"an image of {image.shape[-1]} x {image.shape[-2]} pixels has nothing to look at")
    if not isinstance(size, int) or preprocess.resizes == "one":
        height, width = crop_shape(size)
        return _normalised(_resized(image, width, height, preprocess.interpolation), preprocess)
    if short * SLENDER < long:  # enlarging the short side to `size` would make an enormous image, only to squash it
        image = _resized(image, size, size, preprocess.interpolation)
        short = size
    if short != size:
        longer = max(1, int(size * long / short))
        wide = image.shape[-1] >= image.shape[-2]
        image = _resized(image, *((longer, size) if wide else (size, longer)), preprocess.interpolation)
    x = _normalised(image, preprocess)
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    return x


def _normalised(image: Tensor, preprocess: Preprocess) -> Tensor:
    x = (image.double() * (1 / 255)).float()  # the released code scales in double precision
    return (x - torch.tensor(preprocess.mean)[:, None, None]) / torch.tensor(preprocess.std)[:, None, None]


def _resized(image: Tensor, width: int, height: int, interpolation: Interpolation) -> Tensor:
    """(3, H, W) uint8 -> (3, height, width) uint8, by PIL with its antialias."""
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), _PIL[interpolation])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def own_pixels(images: Sequence[Tensor], preprocess: Preprocess) -> tuple[Tensor, ...]:
    """Images (3, H0, W0) uint8 -> `Batch.native` of them: as they are, where the model looks at its regions so; else nothing."""
    return tuple(images) if preprocess.native else ()


def cut_box(image: Tensor, place: Tensor) -> Tensor:
    """The box of a region, as it stands in the image.

    Args:
        image: (3, H0, W0).
        place: (4,), of `Regions.boxes`, whose float32 says the pixel of a side of up to eight million.

    Returns:
        (3, h, w), a view.
    """
    height, width = image.shape[-2:]
    x, y, w, h = (place.cpu().double() * torch.tensor([width, height, width, height])).round().long().tolist()
    return image[:, y : y + h, x : x + w]


def prepare_masks(masks: Tensor, size: int) -> Tensor:
    """(R, H0, W0) bool -> (R, size, size) bool by nearest neighbour, source index = floor(target * H0 / size)."""
    rows = torch.arange(size) * masks.shape[-2] // size
    columns = torch.arange(size) * masks.shape[-1] // size
    return masks[:, rows[:, None], columns]


def mask_boxes(masks: Tensor) -> Tensor:
    """(R, H, W) bool -> (R, 4) long: left, top, width, height of the tight box, edges included. Empty masks are refused."""
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ValueError(f"masks must be (R, H, W) bool, got {tuple(masks.shape)} {masks.dtype}")
    boxes = []
    for r, mask in enumerate(masks):
        columns, rows = torch.nonzero(mask.any(0))[:, 0], torch.nonzero(mask.any(1))[:, 0]
        if not len(rows):
            raise ValueError(f"region {r} is empty: no pixel of its mask is set. Give a region that covers at least one pixel")
        boxes.append([columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1])
    return torch.tensor(boxes, dtype=torch.long).reshape(-1, 4)


def prepare_regions(image: Tensor, masks: Tensor, preprocess: Preprocess, crop_size: CropSize) -> Regions:
    """The regions of one image, (R, ...) each without the batch axis.

    Args:
        image: (3, H0, W0) uint8. masks: (R, H0, W0) bool, none empty.
        crop_size: of the crops; 0 for a model that looks at none, or cuts them itself (crops are then (R, 3, 0, 0)).
    """
    if masks.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"masks are {tuple(masks.shape[-2:])} but the image is {tuple(image.shape[-2:])} (height, width)")
    areas = torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.long)  # torch's sum takes 8 bytes a pixel
    return crop_regions(image, prepare_masks(masks, preprocess.size), mask_boxes(masks), areas, preprocess, crop_size)


def crop_regions(image: Tensor, masks: Tensor, boxes: Tensor, areas: Tensor, preprocess: Preprocess, crop_size: CropSize) -> Regions:
    """As `prepare_regions`, of masks that have the model's size already.

    Args:
        image: (3, H0, W0) uint8. masks: (R, size, size) bool.
        boxes: (R, 4) long, see `mask_boxes`; areas: (R,) long. Both in pixels of the image.
    """
    height, width = image.shape[-2:]
    places = boxes.float() / torch.tensor([width, height, width, height])
    crops = torch.zeros(len(masks), 3, *crop_shape(crop_size))
    if crop_size and preprocess.outline and len(masks):
        crops = preprocess.outline.draw(prepare_image(image, preprocess, crop_size), places, preprocess.mean, preprocess.std)
    elif crop_size:
        less = int(preprocess.crop_edges == "released")
        for r, (x, y, w, h) in enumerate(boxes.tolist()):
            crops[r] = prepare_image(image[:, y : y + max(1, h - less), x : x + max(1, w - less)], preprocess, crop_size)
    return Regions(
        masks=masks,
        crops=crops,
        boxes=places,
        areas=areas / (height * width),
        valid=torch.ones(len(masks), dtype=torch.bool),
    )


def stack(images: list[Tensor], regions: list[Regions], labels: Labels | None = None, ids: tuple[tuple[str, ...], ...] = ()) -> Batch:
    """Prepared images (3, S, S) and their `prepare_regions` -> one `Batch`, regions padded to the largest R."""
    return Batch(torch.stack(images), stack_regions(regions), labels, ids)


def stack_regions(regions: list[Regions], masks: Tensor | None = None) -> Regions:
    """The `prepare_regions` of several images -> those of a batch, padded to the largest R.

    Args:
        masks: (B, R, S, S), theirs, where they were drawn into one tensor: they are most of a batch and are then not copied.
    """
    rest = {name: pad_stack([getattr(r, name) for r in regions]) for name in ("crops", "boxes", "areas", "valid")}
    return Regions(pad_stack([r.masks for r in regions]) if masks is None else masks, **rest)
