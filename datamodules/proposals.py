"""Regions of two sizes from any mask encoder, as in SEAGULL-100w (reference facts 3.1): objects from boxes, components from points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.mask_encoders.base import Image, MaskEncoder, Masks, Prompt
from components.rle import RegionError
from datamodules.synthesis import merge, partition

SAME = 0.9  # intersection over union above which two masks are one region


def propose_regions(
    image: Image, encoder: MaskEncoder, objects: int, components: int, min_area: float, rng: np.random.Generator
) -> tuple[list[str], Masks]:
    """Regions of a clean image; they may overlap, and the smaller may be part of the larger.

    Objects are what the encoder finds in boxes: the paper's come from a detector, ours are those of the largest regions that the encoder
    proposes, or, where its proposals part the image into patches, of neighbouring patches joined at random. Components are what it
    finds at random points. What repeats a region (`SAME`), or is smaller than `min_area`, is left out.

    Args:
        image: (H, W, 3).
        encoder: one that proposes, if there are to be objects.
        objects, components: how many are asked for.
        min_area: as a fraction of the image.

    Returns:
        Names ("object-0", "component-3", ...) and masks (R, H, W); none where nothing is found.
    """
    height, width = image.shape[:2]
    prompts = [(f"object-{i}", Prompt(box=box)) for i, box in enumerate(_boxes(image, encoder, objects, rng))]
    points = rng.random((components, 2)) * (width, height)
    prompts += [(f"component-{i}", Prompt(point=(float(x), float(y)))) for i, (x, y) in enumerate(points)]
    names: list[str] = []
    masks: list[NDArray[np.bool_]] = []
    for name, mask in zip([n for n, _ in prompts], _found(image, encoder, [p for _, p in prompts]), strict=True):
        if mask is not None and mask.mean() >= min_area and not any(_overlap(mask, other) > SAME for other in masks):
            names.append(name)
            masks.append(mask)
    return names, np.stack(masks) if masks else np.zeros((0, height, width), np.bool_)


def _boxes(image: Image, encoder: MaskEncoder, count: int, rng: np.random.Generator) -> list[tuple[float, float, float, float]]:
    if count == 0:
        return []
    proposals = encoder.propose(image)
    if (proposals.sum(0, dtype=np.int32) == 1).all():
        parts = merge(partition(proposals), count, rng)
        proposals = parts == np.arange(int(parts.max()) + 1)[:, None, None]
    largest = np.argsort(-proposals.sum((1, 2)), kind="stable")[:count]
    boxes = []
    for mask in proposals[largest]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = float(columns[0]), float(rows[0])
        boxes.append((left, top, float(columns[-1] + 1) - left, float(rows[-1] + 1) - top))
    return boxes


def _found(image: Image, encoder: MaskEncoder, prompts: list[Prompt]) -> list[NDArray[np.bool_] | None]:
    """What is at each prompt; None where the encoder finds nothing. All at once where it can be: an encoder looks at the image once."""
    if not prompts:
        return []
    try:
        return list(encoder.forward(image, prompts))
    except RegionError:
        return [_one(image, encoder, prompt) for prompt in prompts]


def _one(image: Image, encoder: MaskEncoder, prompt: Prompt) -> NDArray[np.bool_] | None:
    try:
        return encoder.forward(image, [prompt])[0]
    except RegionError:
        return None


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())
