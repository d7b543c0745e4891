"""The one schema: an image with all its regions, on disk as a row of a Parquet file, in memory as a sample."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
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
    """One image.

    Attributes:
        source: the group that must not be split: the photograph it was made from.
        png: its pixels; b"" in the record of a sample that was made on the fly, whose pixels are at hand.
    """

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
    """One image with all its regions.

    Attributes:
        image: (3, H, W) uint8, in position `turn`.
        record: as stored, that is in position 0.
        turn: which of the eight positions of a square, 0 to 7, image and masks are in (see `turned`).
    """

    image: Tensor
    record: ImageRecord
    turn: int = 0

    def masks(self) -> Tensor:
        """(R, H, W) bool, in position `turn`; decoded when they are needed.

        Raises:
            RegionError: a region's counts do not belong to an image of this size.
        """
        height, width = self.record.height, self.record.width
        masks = np.zeros((len(self.record.regions), height, width), np.bool_)
        for mask, region in zip(masks, self.record.regions, strict=True):
            mask[:] = rle.decode({"size": [height, width], "counts": region.counts})
        return _turn(torch.from_numpy(masks), self.turn)

    def turned(self, turn: int) -> RoiSample:
        """The same sample in position `turn`: mirrored left to right if `turn & 1`, upside down if `& 2`, about the diagonal if `& 4`."""
        if self.turn:
            raise ValueError(f"this sample is in position {self.turn} already: turn the one it was made of")
        return RoiSample(_turn(self.image, turn), self.record, turn)


def _turn(x: Tensor, turn: int) -> Tensor:
    """(..., H, W) -> (..., H, W), or (..., W, H) where the diagonal is the mirror."""
    x = x.flip(-1) if turn & 1 else x
    x = x.flip(-2) if turn & 2 else x
    return x.transpose(-2, -1).contiguous() if turn & 4 else x


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
    try:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_records(paths: Sequence[Path]) -> list[ImageRecord]:
    """Reads Parquet files written by `write_records`, in the order given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by `write_records`.
    """
    return [record for path in paths for record in _read(path)]


def _read(path: Path) -> Iterator[ImageRecord]:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}): delete it and prepare the data again") from error
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"{path} does not hold records: its columns are {_columns(table.schema)}, expected {_columns(SCHEMA)}")
    for row in table.to_pylist():
        regions = []
        for region in row.pop("regions"):
            pairs = region.pop("distortions")
            known = None if pairs is None else tuple((p["type"], p["severity"]) for p in pairs)
            regions.append(RegionRecord(**region, distortions=known))
        yield ImageRecord(**row, regions=tuple(regions))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name}: {f.type if not pa.types.is_nested(f.type) else '...'}" for f in schema)
