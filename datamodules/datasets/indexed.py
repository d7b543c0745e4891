"""Data on disk at any size: a folder of Parquet tables, the images in them, beside them or inside archives (docs/data.md).

Only numbers are kept of an image until it is asked for; then its row is read, its image decoded, and its masks stay run lengths.
Images that are not there are left out, counted and reported once; with `strict` they are an error.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.registry import ConfigError
from datamodules.archives import ImageFiles
from datamodules.datasets.base import DATASETS, RoiDataset
from datamodules.images import ImageError, decode_image
from datamodules.records import GO_ON, SPLITS, ImageRecord, RegionRecord, Split, encode_png
from datamodules.row_copies import make_copies
from datamodules.rows import Rows, TableFiles, parts_of, scan
from datamodules.tables import fingerprint, from_row, open_table, write_records

if TYPE_CHECKING:
    from datamodules.samples import RoiSample

MANIFEST = "data.json"  # what made the data, beside the tables
NAMED = 5  # of what is to be left out and is not there


@DATASETS.register("indexed")
class Indexed(RoiDataset):
    """Parquet tables of images and their regions, at any size; see the module's docstring.

    Args:
        root: folder of the tables, searched with its subfolders.
        images: folder that the images' paths are relative to; "" for the one that `data.json` names, or else `root`.
        regions: regions of a training sample; 0 for all. An image with more is shown in several samples, which part its regions
            evenly, by a seeded draw, so that each region is seen once an epoch. Images of val and test are always whole.
        exclude: file of images to leave out, as `python prepare.py validate --images --json` writes it; "" for none.
        strict: takes an image that is not there for an error.
        cache: folder for what training remembers of images, and for copies of the tables that are read faster; "" for neither.

    Raises:
        ConfigError: a number of regions below 0.
    """

    def __init__(
        self,
        *,
        root: str,
        images: str = "",
        regions: int = 0,
        exclude: str = "",
        strict: bool = False,
        seed: int = 0,
        cache: str = "outputs/cache",
    ) -> None:
        if regions < 0:
            raise ConfigError(f"indexed: regions: a number of regions for each training sample, 0 for all; got {regions}")
        self.root, self.regions, self.exclude, self.strict, self.seed = Path(root), regions, exclude, strict, seed
        self.images, self.cache = images, Path(cache) if cache else None

    def prepare(self) -> None:
        """Looks for every image, says which are not there, and copies the tables for reading.

        Raises:
            ConfigError: as `check` does; no room for the copies.
            ValueError: a table is damaged, or of another schema.
        """
        self.check()
        if self._copies is not None:
            make_copies(self.rows.parts, self._copies)

    def check(self) -> None:
        """As `prepare`, without the copies: enough for who reads a few samples.

        Raises:
            ConfigError: no tables; no split, or one source in two; no image that can be used; with `strict`, one that cannot.
            ValueError: a table is damaged, or of another schema.
        """
        rows = self.rows
        if rows.left_out and self.strict:
            raise ConfigError(f"{self.root}: {rows.coverage()}. Fetch what is missing, or set strict to false to go on without")
        if not rows.readable.any():
            remedy = f"Is {self.files.root} the folder of the images? `python prepare.py validate` lists what is wrong"
            raise ConfigError(f"{self.root}: no image can be used: {rows.coverage()}. {remedy}")
        if rows.unmatched:
            warnings.warn(f"{not_found(self.exclude, rows.unmatched)} of {self.root}", stacklevel=2)
        if rows.left_out or rows.unfit:
            warnings.warn(f"{self.root}: {rows.coverage()}", stacklevel=2)

    @functools.cached_property
    def rows(self) -> Rows:
        """Where each image is; read on first use."""
        excluded = excluded_by(self.exclude)
        rows = {self.root / part: {row for other, row in excluded.rows if other == part} for part, _ in excluded.rows}
        return scan(parts_of(self.root), self.files, excluded.names, rows)

    @property
    def most_types(self) -> int:
        """See the contract."""
        return self.rows.most_types

    @functools.cached_property
    def files(self) -> ImageFiles:
        """Reads encoded images."""
        named = Path(str(self.manifest.get("images", ".")))
        return ImageFiles(Path(self.images) if self.images else self.root / named)

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """What `data.json` says of the data; empty where there is none."""
        path = self.root / MANIFEST
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def split(self, name: Split) -> IndexedSamples:
        """The samples of a split."""
        return IndexedSamples(self.rows, self.rows.of(name), self.files, self.regions if name == "train" else 0, self.seed, self._copies)

    def pictures(self, name: Split) -> set[str]:
        """See the contract; of an image whose hash stands nowhere, the bytes are read where they are in the table."""
        rows, root = self.rows, self.files.root.resolve()
        chosen, found, tables = rows.of(name), set[str](), TableFiles(rows.parts)
        for number, part in enumerate(rows.parts):
            own = chosen[rows.part[chosen] == number]
            with open_table(part) as file:
                table = file.read(columns=["path", "hash"]).take(own - np.searchsorted(rows.part, number))
            paths, hashes = ([value or "" for value in table[column].to_pylist()] for column in ("path", "hash"))
            found.update(hashes, (str(root / path) for path in paths if path))
            for i in (i for i, path, mark in zip(own, paths, hashes, strict=True) if not path and not mark):
                png = tables.row(number, int(rows.group[i]), int(rows.row[i]))["png"]
                found.add(f"sha256:{hashlib.sha256(png).hexdigest()}")
        return found - {""}

    def labelled(self, name: Split) -> IndexedSamples:
        """The images of a split with regions, whether they are where the tables say or not: for their labels."""
        chosen = np.flatnonzero((self.rows.regions > 0) & (self.rows.split == SPLITS.index(name)))
        return IndexedSamples(self.rows, chosen, self.files, 0, self.seed, self._copies)

    @property
    def _copies(self) -> Path | None:
        return None if self.cache is None else self.cache / "rows"

    def describe(self) -> dict[str, Any]:
        """Hashes of the tables, how much of them can be used, and what made them."""
        rows = self.rows
        return {
            "dataset": "indexed",
            "root": str(self.root),
            "fingerprint": fingerprint(rows.parts),
            "images": {s: len(rows.of(s)) for s in SPLITS},
            "regions": {s: int(rows.regions[rows.of(s)].sum()) for s in SPLITS},
            "left_out": dict(rows.left_out),
            "regions_per_sample": self.regions,
            "seed": self.seed,
            "made": self.manifest,
        }

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """A few images of 40 x 56 pixels in a table, in samples of two regions each."""
        return {"root": _tiny_folder().name, "regions": 2}


class IndexedSamples:
    """Images `chosen` of `rows`, in samples of at most `regions` regions each, 0 for all.

    Args:
        copies: see `TableFiles`.
    """

    def __init__(
        self, rows: Rows, chosen: NDArray[np.int64], files: ImageFiles, regions: int, seed: int, copies: Path | None = None
    ) -> None:
        self.tables, self.files, self.seed = TableFiles(rows.parts, copies), files, seed
        self.place = np.stack([rows.part, rows.group, rows.row], 1)[chosen]  # (n, 3)
        held = rows.regions[chosen].astype(np.int64)
        self.pieces = -(-held // regions) if regions else np.ones_like(held)
        self.image = np.repeat(np.arange(len(held)), self.pieces)
        self.piece = np.arange(len(self.image)) - np.repeat(np.cumsum(self.pieces) - self.pieces, self.pieces)
        each, more = np.divmod(held, self.pieces)
        self.sizes = each[self.image] + (self.piece < more[self.image])

    def __len__(self) -> int:
        return len(self.image)

    def region_counts(self) -> NDArray[np.int64]:
        """(N,) regions of each sample, without reading it."""
        return self.sizes

    def __getitem__(self, index: int) -> RoiSample:
        from datamodules.samples import RoiSample  # needs PyTorch, which looking at data does without

        return RoiSample.of(*self.decoded(index))

    def decoded(self, index: int) -> tuple[NDArray[np.uint8], ImageRecord]:
        """Pixels (H, W, 3) uint8 of a sample, and what is known of it.

        Raises:
            ValueError: the image cannot be read, or is of another size than its record says.
        """
        row = self._row(index)
        try:
            data = row.pop("png") or self.files.read(row["path"])
            pixels = decode_image(data, row["path"] or row["id"])
        except ImageError as error:
            raise ImageError(f"{error}. {GO_ON}") from error
        record = _record(row)
        record.check_size(*pixels.shape[:2])
        return pixels, record

    def record(self, index: int) -> ImageRecord:
        """What is known of a sample, without its pixels."""
        return _record({**self._row(index), "png": None})

    def _row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        image, piece = int(self.image[index]), int(self.piece[index])
        row = self.tables.row(*(int(n) for n in self.place[image]))
        if self.pieces[image] > 1:
            row["regions"] = [row["regions"][r] for r in self._share(row["id"], len(row["regions"]), image, piece)]
            row["id"] = f"{row['id']}#{piece}"
        return row

    def _share(self, name: str, count: int, image: int, piece: int) -> list[int]:
        """Which regions of an image stand in its sample `piece`; the draw depends on the image's name alone."""
        order = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).permutation(count)
        return sorted(np.array_split(order, int(self.pieces[image]))[piece].tolist())


def _record(row: Mapping[str, Any]) -> ImageRecord:
    try:
        return from_row(row)
    except ValueError as error:  # a scale that is none
        raise ValueError(f"image {row['id']}: {error}. {GO_ON}") from error


@dataclass(frozen=True)
class Exclusion:
    """What a file says is to be left out.

    Attributes:
        names: ids of images. rows: rows of tables that no id tells apart: table, relative to the folder, and number.
    """

    names: frozenset[str] = frozenset()
    rows: frozenset[tuple[str, int]] = frozenset()


def excluded_by(path: str) -> Exclusion:
    """What a file leaves out, as `python prepare.py validate --json` writes it; nothing for "".

    Raises:
        ConfigError: no such file, or another one.
    """
    if not path:
        return Exclusion()
    what = "as `python prepare.py validate --images --json` writes it"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None
    except ValueError as error:  # neither JSON nor UTF-8
        raise ConfigError(f"exclude: {path} is no JSON ({error}): it is a file {what}") from error
    if not isinstance(found, dict) or not isinstance(found.get("unusable"), list):
        raise ConfigError(f"exclude: {path} is no file with a list `unusable`, {what}")
    odd = next((name for name in found["unusable"] if not isinstance(name, str)), "")
    if odd != "":
        raise ConfigError(f"exclude: `unusable` of {path} is a list of images' ids, each a text; got {json.dumps(odd)[:60]}")
    rows = found.get("unusable_rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, list) and [type(v) for v in row] == [str, int] for row in rows):
        raise ConfigError(f"exclude: `unusable_rows` of {path} is a list of [table, number of the row]; got {json.dumps(rows)[:60]}")
    return Exclusion(frozenset(found["unusable"]), frozenset((part, number) for part, number in rows))


def not_found(path: str, names: Sequence[str]) -> str:
    """Says which of what a file leaves out is not there."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"exclude: {len(names):,} of what {path} leaves out ({', '.join(map(repr, names[:NAMED]))}{more}) are no images"


@functools.cache
def _tiny_folder() -> tempfile.TemporaryDirectory[str]:
    """Written once by a process, and removed when it ends."""
    folder = tempfile.TemporaryDirectory(prefix="roi-iqa-")
    rng = np.random.default_rng(0)
    records = []
    for n in range(9):
        regions = []
        for r in range(3):
            mask = np.zeros((40, 56), np.bool_)
            mask[4 + 10 * r : 16 + 10 * r, 5 + n : 30 + n] = True
            quality, importance = rng.random(2).tolist()
            counts, distortions = rle.encode(mask)["counts"], (("blur", "minor"),)[: r % 2]
            regions.append(RegionRecord(f"{n}-{r}", counts, quality, quality * (1 - quality), importance, distortions=distortions))
        pixels = encode_png(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        split = (*SPLITS, "train", "train")[n % 5]
        records.append(ImageRecord(f"image {n}", f"scene {n}", split, 40, 56, tuple(regions), pixels))
    write_records(Path(folder.name) / "part.parquet", records)
    return folder
