"""Test images and their regions as files for whoever scores them with another system, and the table that its scores go into."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tqdm.auto import tqdm

from components import rle
from datamodules.alone import LOCK, alone
from datamodules.datasets.base import Samples
from datamodules.records import ImageRecord, encode_png

DATA, TABLE = "data.json", "regions.csv"
COLUMNS = ("image", "region", "picture", "mask", "left", "top", "width", "height", "score")


def hand_out(samples: Samples, described: Mapping[str, Any], out: Path) -> dict[str, int]:
    """Writes `out`: images/ and masks/ (PNG; a mask is 255 inside the region and 0 elsewhere), and regions.csv, a row for each region with
    its box in pixels and an empty score. No label is among them. Whoever is killed goes on; the table comes last.

    Args:
        described: what tells these samples from others (`RoiDataset.describe`).

    Returns:
        The numbers of images and of regions.

    Raises:
        FileExistsError: `out` has a table already, in which scores may stand, or holds something else, other samples among that.
    """
    asked = json.loads(json.dumps({"data": described}))
    _check_place(out, asked)
    with alone(out):
        _check_place(out, asked)
        for draft in out.rglob(".*.[0-9]*"):  # of processes that were killed
            draft.unlink(missing_ok=True)
        _write(out / DATA, (json.dumps(asked, indent=2) + "\n").encode())
        for folder in ("images", "masks"):
            (out / folder).mkdir(exist_ok=True)
        return {"images": len(samples), "regions": _write_all(samples, out)}


def _check_place(out: Path, asked: dict[str, Any]) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file, and a folder is wanted: choose another name")
    if (out / TABLE).exists():
        raise FileExistsError(f"{out / TABLE} is there already, and scores may stand in it: choose another folder, or remove this one")
    begun = out / DATA
    if not begun.exists() and out.exists() and any(p.name != LOCK and not p.name.startswith(f".{DATA}.") for p in out.iterdir()):
        raise FileExistsError(f"{out} holds something else than regions that were begun here: choose another folder")
    if begun.exists() and json.loads(begun.read_text(encoding="utf-8")) != asked:
        raise FileExistsError(f"{out} was begun with the regions of other data: choose another folder, or remove this one")


def _write_all(samples: Samples, out: Path) -> int:
    """Image by image; returns the number of regions."""
    draft, regions = out / f".{TABLE}.{os.getpid()}", 0
    with draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for n in tqdm(range(len(samples)), unit="image", desc=f"writing {out.name}"):
            sample = samples[n]
            record, picture = sample.record.measured(), f"images/{n:06d}.png"
            for r, region in enumerate(record.regions):
                table.writerow((record.id, region.id, picture, _mask(n, r), *(region.box or ()), ""))
            if not (out / picture).exists():  # it comes after its masks
                _write_masks(record, out, n)
                _write(out / picture, encode_png(sample.image.permute(1, 2, 0).numpy()))
            regions += len(record.regions)
    draft.replace(out / TABLE)
    return regions


def _mask(image: int, region: int) -> str:
    return f"masks/{image:06d}_{region:03d}.png"


def _write_masks(record: ImageRecord, out: Path, number: int) -> None:
    for r, region in enumerate(record.regions):
        mask: NDArray[np.bool_] = rle.decode({"size": [record.height, record.width], "counts": region.counts})
        buffer = io.BytesIO()
        PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
        _write(out / _mask(number, r), buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    """The file is whole, or not there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)
