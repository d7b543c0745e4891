"""The one schema: an image with all its regions, on disk as a row of a Parquet file, in memory as a sample."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from components import rle
from components.batch import Distortions

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class RegionRecord:
    """One region and what is known of it. Scores are in [0, 1], 1 = best quality and 1 = most important; None where unknown.

    Attributes:
        counts: the mask, COCO compressed RLE; its size is the image's.
        distortions: ((type, severity), ...), () for a clean region, None where unknown.
    """

    id: str
    counts: str
    quality: float | None = None
    quality_std: float | None = None
    importance: float | None = None
    importance_std: float | None = None
    distortions: Distortions | None = None


@dataclass(frozen=True)
class ImageRecord:
    """One image. `source` is the group that must not be split: the photograph it was made from. `png` holds its pixels."""

    id: str
    source: str
    split: str
    height: int
    width: int
    regions: tuple[RegionRecord, ...]
    png: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        with PIL.Image.open(io.BytesIO(self.png)) as image:
            return np.array(image.convert("RGB"))

    def sample(self) -> RoiSample:
        """Decodes the pixels; the masks stay encoded."""
        return RoiSample(torch.from_numpy(self.pixels()).permute(2, 0, 1), self)


@dataclass(frozen=True)
class RoiSample:
    """One image with all its regions: `image` is (3, H, W) uint8; `masks()` decodes the regions when they are needed."""

    image: Tensor
    record: ImageRecord

    def masks(self) -> Tensor:
        """(R, H, W) bool."""
        size = [self.record.height, self.record.width]
        return torch.from_numpy(np.stack([rle.decode({"size": size, "counts": r.counts}) for r in self.record.regions]))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> PNG, lightly compressed."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


_PAIR = pa.struct([("type", pa.string()), ("severity", pa.string())])
_REGION = pa.struct(
    [
        ("id", pa.string()),
        ("counts", pa.string()),
        ("quality", pa.float64()),
        ("quality_std", pa.float64()),
        ("importance", pa.float64()),
        ("importance_std", pa.float64()),
        ("distortions", pa.list_(_PAIR)),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("regions", pa.list_(_REGION)),
        ("png", pa.binary()),
    ]
)


def write_records(path: Path, records: Iterable[ImageRecord]) -> None:
    """Writes one Parquet file atomically: it is whole or it is not there."""
    rows = []
    for record in records:
        row: dict[str, Any] = asdict(record)
        for region in row["regions"]:
            if region["distortions"] is not None:
                region["distortions"] = [{"type": t, "severity": s} for t, s in region["distortions"]]
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), draft)
    draft.replace(path)


def read_records(paths: Sequence[Path]) -> list[ImageRecord]:
    """Reads Parquet files written by `write_records`, in the order given."""
    records = []
    for path in paths:
        for row in pq.read_table(path, schema=SCHEMA).to_pylist():
            regions = []
            for region in row.pop("regions"):
                pairs = region.pop("distortions")
                known = None if pairs is None else tuple((p["type"], p["severity"]) for p in pairs)
                regions.append(RegionRecord(**region, distortions=known))
            records.append(ImageRecord(**row, regions=tuple(regions)))
    return records
