"""From a clean image to a labelled sample: regions, distortions in them, and full-reference labels (reference facts 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.batch import Distortions
from datamodules.distortions.base import SETTINGS, Distortion
from datamodules.quality_labels.base import QualityLabel
from datamodules.records import RegionRecord

Image = NDArray[np.uint8]  # (H, W, 3)
Masks = NDArray[np.bool_]  # (R, H, W)
Applied = tuple[str, int] | None  # (type, setting), None for clean


@dataclass(frozen=True)
class Recipe:
    """How samples are made.

    Attributes:
        mixed: share of images whose regions each carry a distortion of their own; the others carry one all over.
        clean: share of regions (mixed) or images (uniform) left as they are.
        regions: most regions kept of an image.
        min_area: smallest region kept, as a fraction of the image.
        visible: a distorted region whose quality label is above this looks like the reference: it is labelled clean.
        full_impact: drop of the whole image's score at which a region's importance is 1; below, importance goes with the
            square root of the drop, since most regions are small.
    """

    mixed: float = 0.6
    clean: float = 0.1
    regions: int = 6
    min_area: float = 0.015
    visible: float = 0.97
    full_impact: float = 0.25


def synthesize(
    reference: Image,
    masks: Masks,
    distortions: Mapping[str, Distortion],
    label: QualityLabel,
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[Image, list[RegionRecord]]:
    """Distorts `reference` and labels its regions.

    Args:
        reference: (H, W, 3), clean.
        masks: (R, H, W), a partition of the image.

    Returns:
        The distorted image, and up to `recipe.regions` records whose ids are their indices; empty if all regions are too small.
    """
    groups = merge(masks, int(rng.integers(4, max(5, len(masks)) + 1)), rng)
    mixed = rng.random() < recipe.mixed
    applied = [_draw(distortions, recipe.clean, rng) for _ in (groups if mixed else groups[:1])]
    applied = applied if mixed else applied * len(groups)
    seed = int(rng.integers(2**31))
    distorted = _distort(reference, groups, applied, distortions, seed)
    big = [g for g in range(len(groups)) if groups[g].mean() >= recipe.min_area]
    kept = sorted(rng.permutation(big)[: recipe.regions].tolist())
    if not kept:
        return distorted, []
    quality, impact = label.label(distorted, reference, groups[kept])
    records = []
    for i, g in enumerate(kept):
        records.append(
            RegionRecord(
                id=str(i),
                counts=rle.encode(groups[g])["counts"],
                quality=float(np.clip(quality[i], 0, 1)),
                importance=float(np.sqrt(np.clip(impact[i] / recipe.full_impact, 0, 1))),
                distortions=_visible(applied[g], quality[i], recipe, distortions),
            )
        )
    return distorted, records


def merge(masks: Masks, count: int, rng: np.random.Generator) -> Masks:
    """Joins random neighbours of a partition until `count` regions are left: parts become objects of differing size."""
    labels = masks.argmax(0)
    pairs = np.concatenate(
        [
            np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()], 1),
            np.stack([labels[1:].ravel(), labels[:-1].ravel()], 1),
        ]
    )
    edges = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    owner = np.arange(len(masks))
    left = len(masks)
    for a, b in rng.permutation(edges):
        if left <= count:
            break
        if owner[a] != owner[b]:
            owner[owner == owner[b]] = owner[a]
            left -= 1
    return np.stack([np.isin(labels, np.flatnonzero(owner == g)) for g in np.unique(owner)])


def _draw(distortions: Mapping[str, Distortion], clean: float, rng: np.random.Generator) -> Applied:
    kind = str(rng.choice(sorted(distortions)))
    setting = int(rng.integers(SETTINGS))
    return None if rng.random() < clean else (kind, setting)


def _distort(reference: Image, groups: Masks, applied: list[Applied], distortions: Mapping[str, Distortion], seed: int) -> Image:
    out = reference.copy()
    for one in sorted({a for a in applied if a is not None}):
        mask = np.any([groups[g] for g in range(len(groups)) if applied[g] == one], axis=0)
        out[mask] = distortions[one[0]](reference, one[1], seed)[mask]
    return out


def _visible(one: Applied, quality: float, recipe: Recipe, distortions: Mapping[str, Distortion]) -> Distortions:
    if one is None or quality > recipe.visible:
        return ()
    return ((one[0], distortions[one[0]].severity(one[1])),)
