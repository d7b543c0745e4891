"""Your own images: a folder, and a list of regions with what people said of them (docs/data.md shows one)."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from components.registry import ConfigError
from datamodules.archives import leads_out
from datamodules.datasets.base import DATASETS, RoiDataset, Samples
from datamodules.datasets.indexed import Indexed
from datamodules.images import ImageError, load_image
from datamodules.records import SPLITS, ImageRecord, Scale, Split, encode_png
from datamodules.region_list import Row, RowError, named, read_list, regions_of
from datamodules.tables import RecordWriter

FORMAT = 3  # changes whenever the same files would give another table


@DATASETS.register("roi_folder")
class RoiFolder(RoiDataset):
    """Reads the list once into a table in the cache, and is from then on what `indexed` is.

    Args:
        root: folder of the images. table: the list in it, CSV or JSONL; columns: see `datamodules.region_list`.
        quality_scale, importance_scale: lowest and highest score possible. quality_direction, importance_direction: which end is
            the best quality, or the most important region.
        val, test: shares of the groups, where the list has no column `split`. Images of one group (by the column `group`, or by their
            folder and name before its first dot) stay in one split.
        regions, strict: see `indexed`.
        seed: of the split and of what `regions` deals.

    Raises:
        ConfigError: a scale that is none, or shares that leave nothing to train on.
    """

    def __init__(
        self,
        *,
        root: str,
        table: str = "labels.csv",
        quality_scale: tuple[float, ...] = (0.0, 1.0),
        quality_direction: Literal["higher", "lower"] = "higher",
        importance_scale: tuple[float, ...] = (0.0, 1.0),
        importance_direction: Literal["higher", "lower"] = "higher",
        val: float = 0.1,
        test: float = 0.2,
        regions: int = 0,
        strict: bool = False,
        seed: int = 0,
        cache: str = "outputs/cache",
    ) -> None:
        self.root, self.table, self.seed, self.strict = Path(root), table, seed, strict
        self.scales = {
            "quality": _scale("quality", quality_scale, quality_direction),
            "importance": _scale("importance", importance_scale, importance_direction),
        }
        if min(val, test) < 0 or val + test >= 1:
            raise ConfigError(f"roi_folder: val and test are shares whose sum is below 1, got {val} and {test}")
        self.shares = {"val": val, "test": test}
        self.regions, self.cache = regions, Path(cache)
        self._folder = self.cache

    def prepare(self) -> None:
        """Reads the list, if it or a file that it names has changed since it was read. Says each time what is left out.

        Raises:
            ConfigError: rows that cannot be used, the first of them named, and with them the images that cannot be read; fewer than three
                groups to deal; images that are left out, if `strict`.
        """
        found = self._part.with_name("found.json")
        if not self._part.is_file():
            records, missing, reaching = self._records()
            with RecordWriter(self._part) as writer:
                # first, since the table's name is what makes both count
                found.write_text(json.dumps({"missing": missing, "reaching": reaching}))
                for record in records:
                    writer.write(record)
        self._tell(**json.loads(found.read_text()))
        self._tables.prepare()

    def split(self, name: Split) -> Samples:
        """The samples of a split."""
        return self._tables.split(name)

    @property
    def tables(self) -> Indexed:
        """The data set of the table that `prepare` makes of the list."""
        return self._tables

    def describe(self) -> dict[str, Any]:
        """As `indexed`, with the list's hash and the scales."""
        scales = {name: vars(scale) for name, scale in self.scales.items()}
        own = {"dataset": "roi_folder", "root": str(self.root), "table": self.table, "scales": scales, "shares": self.shares}
        return {**self._tables.describe(), **own}

    @functools.cached_property
    def _tables(self) -> Indexed:
        folder = str(self._part.parent)
        return Indexed(root=folder, images=str(self.root), regions=self.regions, strict=self.strict, seed=self.seed, cache=str(self.cache))

    @functools.cached_property
    def _part(self) -> Path:
        path = self.root / self.table
        mark = hashlib.sha256(path.read_bytes() if path.is_file() else b"")
        files = [_stamp(self.root / name) for name in self._named] if path.is_file() else []
        mark.update(json.dumps([FORMAT, str(self.root.resolve()), repr(self.scales), self.shares, self.seed, files]).encode())
        return self._folder / f"roi_folder-{mark.hexdigest()[:16]}" / "part.parquet"

    @property
    def _named(self) -> list[str]:
        """The images and mask files of the list."""
        rows = list(read_list(self.root / self.table))
        return sorted({str(row[key]) for row in rows for key in ("image", "mask") if row.get(key)})

    def _tell(self, missing: list[str], reaching: int) -> None:
        if missing and self.strict:
            raise ConfigError(f"{len(missing)} images of {self.table} cannot be used: {named(missing)}")
        if missing:
            warnings.warn(f"{len(missing)} images of {self.table} are left out: {named(missing)}", stacklevel=3)
        if reaching:
            said = f"{reaching:,} boxes or polygons of {self.table} reach out of their images, and are cut to them"
            warnings.warn(f"{said}: are they left, top, width, height in pixels of the upright image?", stacklevel=3)

    def _records(self) -> tuple[list[ImageRecord], list[str], int]:
        """Of the images that can be read, why others are left out, and how many regions reach out of their images."""
        rows: dict[str, list[Row]] = {}
        for row in read_list(self.root / self.table):
            rows.setdefault(str(row["image"]), []).append(row)
        splits = self._splits(rows)
        records, wrong, missing, reaching = [], list[str](), list[str](), 0
        for image, listed in tqdm(rows.items(), unit="image", desc=f"reading {self.root}", delay=2):
            if leads_out(image):
                wrong.append(f"line {listed[0]['line']}: image {image!r} leads out of the folder: write it relative to {self.root}")
                continue
            try:
                pixels = load_image(self.root / image)
                found, out = regions_of(listed, pixels, self.root, self.scales, image)
            except ImageError as error:
                missing.append(str(error))
                continue
            except RowError as error:
                wrong += error.mistakes
                continue
            reaching += out
            group = _group(image, listed)
            height, width = pixels.shape[:2]
            records.append(ImageRecord(image, group, splits[group], height, width, tuple(found), path=image))
        if wrong:
            besides = f". Besides, {len(missing):,} images cannot be used: {named(missing)}" if missing else ""
            raise ConfigError(f"{self.root / self.table}: {len(wrong):,} mistakes in its rows: {named(wrong)}{besides}")
        if missing and not records:
            raise ConfigError(f"{len(missing)} of {len(rows)} images cannot be used: {named(missing)}")
        return records, missing, reaching

    def _splits(self, rows: dict[str, list[Row]]) -> dict[str, str]:
        """Of each group: as the list says, or dealt by the seed.

        Raises:
            ConfigError: a split for some rows only, an unknown one, or one group in two.
        """
        given: dict[str, set[str]] = {}
        for image, listed in rows.items():
            given.setdefault(_group(image, listed), set()).update(str(row.get("split", "")) for row in listed)
        stated = set().union(*given.values())
        if stated != {""}:
            bad = stated - set(SPLITS)
            if bad:
                raise ConfigError(f"{self.table}: split is {', '.join(SPLITS)} in every row, or in none; got {sorted(bad)}")
            torn = [group for group, splits in given.items() if len(splits) > 1]
            if torn:
                raise ConfigError(f"{self.table}: the group {torn[0]!r} is in several splits: what is tested would have been trained on")
            return {group: next(iter(splits)) for group, splits in given.items()}
        if len(given) < 3:
            raise ConfigError(f"{self.table} has {len(given)} groups of images: without a column split, three at least are dealt")
        order = [sorted(given)[i] for i in np.random.default_rng(self.seed).permutation(len(given))]
        counts = {s: max(1, round(share * len(order))) if share else 0 for s, share in self.shares.items()}
        names = ["test"] * counts["test"] + ["val"] * counts["val"]
        return {group: names[i] if i < len(names) else "train" for i, group in enumerate(order)}

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Five images of 40 x 56 pixels with boxes, scores of 1 to 5 and distortions."""
        return {"root": _tiny_folder().name, "quality_scale": (1.0, 5.0), "cache": f"{_tiny_folder().name}/cache"}


def _scale(score: str, ends: Sequence[float], direction: Literal["higher", "lower"]) -> Scale:
    if len(ends) != 2:
        raise ConfigError(f"roi_folder: {score}_scale is the lowest and the highest score, got {list(ends)}")
    try:
        return Scale(ends[0], ends[1], direction)
    except ValueError as error:
        raise ConfigError(f"roi_folder: {score}_scale: {error}") from error


def _stamp(path: Path) -> list[int]:
    """Changes whenever a file does; empty where there is none."""
    return [(found := path.stat()).st_size, found.st_mtime_ns] if path.is_file() else []


def _group(image: str, rows: Sequence[Row]) -> str:
    """As the list says, or the image's folder and name before its first dot."""
    named = {str(row["group"]) for row in rows if "group" in row}
    if len(named) > 1:
        raise ConfigError(f"image {image} is in the groups {', '.join(sorted(named))}: it has one")
    return next(iter(named), Path(image).with_name(Path(image).name.partition(".")[0]).as_posix())


@functools.cache
def _tiny_folder() -> tempfile.TemporaryDirectory[str]:
    """Written once by a process, and removed when it ends."""
    folder = tempfile.TemporaryDirectory(prefix="roi-iqa-")
    rng, lines = np.random.default_rng(0), ["image,id,box,quality,distortion"]
    for n in range(5):
        (Path(folder.name) / f"{n}.png").write_bytes(encode_png(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)))
        lines += [f"{n}.png,{r},{4 + 10 * r} 5 12 20,{1 + (n + r) % 5},{'clean' if r else 'severe blur; minor noise'}" for r in range(3)]
    (Path(folder.name) / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
