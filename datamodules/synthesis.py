"""From a clean image to a labelled sample: regions, distortions in them, and full-reference labels (reference facts 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.registry import ConfigError
from components.tasks import Distortions
from datamodules.distortions.base import SETTINGS, STAGES, Distortion, Float, to_linear, to_uint8
from datamodules.engines.base import Clock
from datamodules.quality_labels.base import QualityLabel, Scores
from datamodules.records import RegionRecord

Image = NDArray[np.uint8]  # (H, W, 3)
Masks = NDArray[np.bool_]  # (R, H, W)
Parts = NDArray[np.integer[Any]]  # (H, W), which region a pixel is in: 0 ... regions - 1
Applied = tuple[tuple[str, int], ...]  # ((type, setting), ...) in the order of a camera, () for clean


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
        several: most types of distortion in one region; they happen one after the other, in the order of a camera.

    Raises:
        ConfigError: a value out of its range.
    """

    mixed: float = 0.6
    clean: float = 0.1
    regions: int = 6
    min_area: float = 0.015
    visible: float = 0.97
    full_impact: float = 0.25
    several: int = 1

    def __post_init__(self) -> None:
        for name, allowed, good in (
            ("mixed", "a share in [0, 1]", 0 <= self.mixed <= 1),
            ("clean", "a share in [0, 1)", 0 <= self.clean < 1),
            ("regions", "at least 1", self.regions >= 1),
            ("min_area", "a fraction of the image in [0, 1)", 0 <= self.min_area < 1),
            ("visible", "a quality in [0, 1]", 0 <= self.visible <= 1),
            ("full_impact", "a drop of the score in (0, 1]", 0 < self.full_impact <= 1),
            ("several", "at least 1", self.several >= 1),
        ):
            if not good:
                raise ConfigError(f"{name} is {allowed}, got {getattr(self, name)}")


def synthesize(
    reference: Image,
    masks: Masks,
    distortions: Mapping[str, Distortion],
    label: QualityLabel,
    recipe: Recipe,
    rng: np.random.Generator,
    clock: Clock | None = None,
    light: Float | None = None,
) -> tuple[Image, list[RegionRecord]]:
    """Distorts `reference` region by region, or all over, and labels its regions.

    Args:
        reference: (H, W, 3), clean.
        masks: (R, H, W), what a mask encoder proposes for `reference`; made a partition by `partition`.
        clock: is told how long distorting and labelling took.
        light: what `reference` was developed from, where it is a RAW photograph: see `Chains`.

    Returns:
        The distorted image, and up to `recipe.regions` records whose ids are their indices; empty if all regions are too small.
    """
    parts = partition(masks)
    parts = merge(parts, int(rng.integers(4, max(5, int(parts.max()) + 1) + 1)), rng)
    count = int(parts.max()) + 1
    mixed = rng.random() < recipe.mixed
    applied = [_draw(distortions, recipe, rng) for _ in range(count if mixed else 1)]
    applied = applied if mixed else applied * count
    clock = Clock() if clock is None else clock
    with clock("distorting"):
        chains = Chains(reference, distortions, light, seed=int(rng.integers(2**31)))
        distorted = _distort(reference, parts, applied, chains)
    big = np.flatnonzero(np.bincount(parts.ravel()) / parts.size >= recipe.min_area)
    kept = sorted(rng.permutation(big)[: recipe.regions].tolist())
    if not kept:
        return distorted, []
    regions = parts == np.array(kept)[:, None, None]  # (R, H, W)
    with clock("labelling"):
        scores = label.label(distorted, reference, regions)
        records = labelled(regions, scores, [applied[part] for part in kept], distortions, recipe)
    return distorted, records


def labelled(
    regions: Masks, scores: tuple[Scores, Scores], applied: Sequence[Applied], distortions: Mapping[str, Distortion], recipe: Recipe
) -> list[RegionRecord]:
    """The records of regions (R, H, W), which may overlap, from quality and impact and what was done to each; ids are their indices."""
    quality, impact = scores
    return [
        RegionRecord(
            id=str(i),
            counts=rle.encode(regions[i])["counts"],
            quality=float(np.clip(quality[i], 0, 1)),
            importance=float(np.sqrt(np.clip(impact[i] / recipe.full_impact, 0, 1))),
            distortions=_visible(applied[i], quality[i], recipe, distortions),
        )
        for i in range(len(regions))
    ]


def partition(masks: Masks) -> Parts:
    """Masks (R, H, W) -> which one each pixel is in; what is in none is one more region.

    Where masks overlap, as a mask encoder's parts and wholes do, the smaller one lies on top; one that is hidden is left out.
    """
    if (masks.sum(0, dtype=np.int16) == 1).all():
        parts = (np.arange(len(masks), dtype=np.int16)[:, None, None] * masks).sum(0, dtype=np.int16)
    else:
        parts = np.full(masks.shape[1:], len(masks), np.int16)
        for r in np.argsort(-masks.sum((1, 2)), kind="stable"):
            parts[masks[r]] = r
    found = np.bincount(parts.ravel()) > 0
    return (np.cumsum(found) - 1)[parts]


def merge(parts: Parts, count: int, rng: np.random.Generator) -> Parts:
    """Joins random neighbours until `count` regions are left: parts become objects of differing size."""
    left = int(parts.max()) + 1
    owner = np.arange(left)
    for a, b in rng.permutation(_neighbours(parts)):
        if left <= count:
            break
        if owner[a] != owner[b]:
            owner[owner == owner[b]] = owner[a]
            left -= 1
    return np.unique(owner, return_inverse=True)[1][parts]


def _neighbours(parts: Parts) -> NDArray[np.int64]:
    """(E, 2): the pairs of regions that share a border, the smaller number first, in order."""
    count = int(parts.max()) + 1
    touch = np.zeros((count, count), np.bool_)
    touch[parts[:, 1:], parts[:, :-1]] = touch[parts[1:], parts[:-1]] = True
    return np.argwhere(np.triu(touch | touch.T, 1))


@dataclass(frozen=True)
class Chains:
    """What is applied to one clean image. Where the light that it was developed from is known (linear, see `datamodules.raw`), all that can
    happen in the development does, one after the other, and is rounded to 8 bits at its end."""

    reference: Image
    distortions: Mapping[str, Distortion]
    light: Float | None
    seed: int

    def __call__(self, applied: Applied) -> Image:
        """The whole reference, (H, W, 3), with all of `applied`."""
        out, light, left = self.reference, self.light, list(applied)
        while light is not None and left and self.distortions[left[0][0]].develops:
            kind, setting = left.pop(0)
            coded = self.distortions[kind].coded(light, setting, self.seed)
            out, light = to_uint8(coded), to_linear(coded)
        for kind, setting in left:
            out = self.distortions[kind](out, setting, self.seed)
        return out


def _draw(distortions: Mapping[str, Distortion], recipe: Recipe, rng: np.random.Generator) -> Applied:
    names = sorted(distortions)
    if recipe.several == 1:
        drawn = [(str(rng.choice(names)), int(rng.integers(SETTINGS)))]
    else:
        kinds = rng.permutation(names)[: rng.integers(1, recipe.several + 1)]
        drawn = [(str(kind), int(rng.integers(SETTINGS))) for kind in sorted(kinds, key=lambda k: STAGES.index(distortions[k].stage))]
    return () if rng.random() < recipe.clean else tuple(drawn)


def _distort(reference: Image, parts: Parts, applied: Sequence[Applied], chains: Chains) -> Image:
    out = np.array(reference, order="C")
    for one in sorted(set(applied) - {()}):
        here = np.array([a == one for a in applied])[parts]  # (H, W)
        np.copyto(_whole_pixels(out), _whole_pixels(chains(one)), where=here)
    return out


def _whole_pixels(image: Image) -> NDArray[np.void]:
    """(H, W, 3) uint8 -> (H, W) items of three bytes: the same memory, much faster to copy under a mask."""
    return np.ascontiguousarray(image).view("V3")[..., 0]


def _visible(one: Applied, quality: float, recipe: Recipe, distortions: Mapping[str, Distortion]) -> Distortions:
    if quality > recipe.visible:
        return ()
    return tuple((kind, distortions[kind].severity(setting)) for kind, setting in one)
