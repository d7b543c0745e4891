"""A small data set in the layout of SEAGULL-100w as it is downloaded: archives left packed, one missing, one cut short."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from components import rle
from components.prompts import DISTORTION_TYPES
from datamodules.records import encode_png

HEIGHT, WIDTH, REGIONS, SETTINGS = 24, 33, 3, 2
MISSING, DAMAGED = "Colorfulness_1", "Exposure_0"


def reference_ids(count: int) -> list[str]:
    return [f"{n:06d}" for n in range(count)]


def masks_of(reference: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(int(reference))
    found = []
    for r in range(REGIONS):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 8)
        mask[top : top + 8, left : left + 8] = True
        text = {"semantic": f"thing {r}", "description": f'a "thing", {{numbered}} {r} \\'}
        found.append({"id": r, "segmentation": rle.encode(mask), "bbox": [int(left), int(top), 8, 8], **text})
    return found


def scores_of(reference: str, kind: str, setting: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([int(reference), DISTORTION_TYPES.index(kind), setting])
    return [{"id": r, "quality_score": float(rng.random()), "importance_score": float(rng.random())} for r in range(REGIONS)]


def write_labels(folder: Path, references: int, mapping: bool = False) -> None:
    """As lists of records, or as mappings of names to lists of regions; scores in an order of their own."""
    folder = folder / "Labels"
    folder.mkdir(parents=True, exist_ok=True)
    ids = reference_ids(references)
    masks = {i: masks_of(i) for i in ids}
    versions = [(k, s) for s in range(SETTINGS) for k in DISTORTION_TYPES]
    scores = {f"{k.capitalize()}_{s}/{i}.png": scores_of(i, k, s) for k, s in versions for i in reversed(ids)}
    for name, value in (("mask-based-rois", masks), ("scores", scores)):
        listed = value if mapping else [{"id": i, "annotations": regions} for i, regions in value.items()]
        (folder / f"SEAGULL-100w_{name}.json").write_text(json.dumps(listed))


def write_images(folder: Path, references: int) -> None:
    """One archive is not written, and one is cut short."""
    for kind in DISTORTION_TYPES:
        for setting in range(SETTINGS):
            name = f"{kind.capitalize()}_{setting}"
            path = folder / "Dist.Images" / kind.capitalize() / f"{name}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == MISSING:
                continue
            rng = np.random.default_rng([DISTORTION_TYPES.index(kind), setting])
            with zipfile.ZipFile(path, "w") as archive:
                for i in reference_ids(references):
                    info = zipfile.ZipInfo(f"{name}/{i}.png")
                    archive.writestr(info, encode_png(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)))
            if name == DAMAGED:
                os.truncate(path, path.stat().st_size // 2)
