"""Samples -> a `Batch` of the scorer's own geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.batch import Batch, Labels, Pyramid, Regions, pad_stack
from components.preprocess import CropSize, Preprocess, crop_regions, own_pixels, prepare_image, prepare_regions, stack, stack_regions
from datamodules.records import RegionRecord
from datamodules.samples import RoiSample


class Collate:
    """Brings samples to a scorer's size and pads them to one batch.

    Args:
        preprocess: of the scorer's vision encoder.
        crop_size: of the crops the scorer wants, 0 for none.
        whole: gives each image one region, itself, without labels: what the whole-image control is asked about.
    """

    def __init__(self, preprocess: Preprocess, crop_size: CropSize, whole: bool = False) -> None:
        self.preprocess, self.crop_size, self.whole = preprocess, crop_size, whole

    def __call__(self, samples: Sequence[RoiSample]) -> Batch:
        images = [prepare_image(s.image, self.preprocess) for s in samples]
        return dataclasses.replace(self.regions(samples), images=torch.stack(images))

    def regions(self, samples: Sequence[RoiSample], pyramid: Pyramid | None = None) -> Batch:
        """All but the images: for a batch of which the vision encoder's `pyramid` is known."""
        records = [() if self.whole else s.record.regions for s in samples]
        ids = tuple((s.record.id,) if self.whole else tuple(r.id for r in s.record.regions) for s in samples)
        shape = (len(samples), max(map(len, ids)), self.preprocess.size, self.preprocess.size)
        masks = torch.from_numpy(np.zeros(shape, np.bool_))  # whose zeros, most of it, are not written before they are read
        regions = stack_regions([self._regions(s, own[: len(n)]) for s, own, n in zip(samples, masks, ids, strict=True)], masks)
        native = own_pixels([s.image for s in samples], self.preprocess)
        return Batch(torch.empty(len(samples), 3, 0, 0), regions, self._labels(records), ids, pyramid, self._clean(samples), native)

    def pixels(self, samples: Sequence[RoiSample]) -> Batch:
        """The images alone, without regions."""
        images = [prepare_image(s.image, self.preprocess) for s in samples]
        none = [
            prepare_regions(s.image, torch.zeros(0, *s.image.shape[1:], dtype=torch.bool), self.preprocess, self.crop_size) for s in samples
        ]
        return stack(images, none)

    def _clean(self, samples: Sequence[RoiSample]) -> Tensor | None:
        if not self.crop_size or any(s.clean is None for s in samples):
            return None
        clean = [RoiSample(s.clean, s.record, s.turn) for s in samples if s.clean is not None]
        return pad_stack([self._regions(s).crops for s in clean])

    def _regions(self, sample: RoiSample, masks: Tensor | None = None) -> Regions:
        """The masks are drawn into `masks` (R, S, S), all False, where it is given."""
        if self.whole:
            mask = torch.ones(1, *sample.image.shape[1:], dtype=torch.bool)
            whole = prepare_regions(sample.image, mask, self.preprocess, self.crop_size)
            return whole if masks is None else dataclasses.replace(whole, masks=masks.copy_(whole.masks))
        drawn, boxes, areas = sample.masks_at(self.preprocess.size, masks), sample.boxes(), sample.areas()
        return crop_regions(sample.image, drawn, boxes, areas, self.preprocess, self.crop_size)

    def _labels(self, records: Sequence[Sequence[RegionRecord]]) -> Labels:
        extra: list[Any] = [None] if self.whole else []

        def column(name: str) -> Tensor:
            rows = [[getattr(r, name) for r in rs] + extra for rs in records]
            return pad_stack([torch.tensor([torch.nan if v is None else float(v) for v in row]) for row in rows], torch.nan)

        known = tuple((*(r.distortions for r in rs), *extra) for rs in records)
        return Labels(column("quality"), column("quality_std"), column("importance"), column("importance_std"), known)
