"""Your own images: a folder, and a list of regions with what people said of them (docs/data.md shows one)."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.registry import ConfigError
from datamodules.archives import INSIDE
from datamodules.datasets.base import DATASETS, RoiDataset, Samples
from datamodules.datasets.indexed import Exclusion, Indexed, excluded_by, not_found
from datamodules.images import is_file
from datamodules.listed_images import CUT, MISSING, Listed, read_images
from datamodules.making import write_json
from datamodules.records import GO_ON, Scale, Split, encode_png
from datamodules.region_list import Mistake, named, read_list
from datamodules.tables import RecordWriter

FORMAT = 6  # changes whenever the same files would give another table


@DATASETS.register("roi_folder")
class RoiFolder(RoiDataset):
    """Reads the list once into a table in the cache, and is from then on what `indexed` is.

    Args:
        root: folder of the images. table: the list in it, CSV or JSONL; columns: see `datamodules.region_list`.
        quality_scale, importance_scale: lowest and highest score possible. quality_direction, importance_direction: which end is
            the best quality, or the most important region.
        val, test: shares of the groups, where the list has no column `split`. Images of one group (by the column `group`, or by their
            folder and name before its first dot) stay in one split.
        only_test: makes a test image of every image, whatever the list says, for a model that was trained elsewhere.
        regions, exclude, strict: see `indexed`. Images that `exclude` names are not looked at, nor what is wrong with their rows.
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
        only_test: bool = False,
        regions: int = 0,
        exclude: str = "",
        strict: bool = False,
        seed: int = 0,
        cache: str = "outputs/cache",
    ) -> None:
        self.root, self.table, self.seed, self.exclude, self.strict = Path(root), table, seed, exclude, strict
        self.scales = {
            "quality": _scale("quality", quality_scale, quality_direction),
            "importance": _scale("importance", importance_scale, importance_direction),
        }
        if min(val, test) < 0 or val + test >= 1:
            raise ConfigError(f"roi_folder: val and test are shares whose sum is below 1, got {val} and {test}")
        self.only_test = only_test
        self.shares = {"val": 0.0, "test": 1.0} if only_test else {"val": val, "test": test}
        self.regions, self.cache = regions, Path(cache)
        self._folder = self.cache

    def prepare(self) -> None:
        """Reads the list, if it or a file that it names has changed since it was read. Says each time what is left out, or cut.

        Raises:
            ConfigError: mistakes of the list, the first of them named, and with them the images that cannot be read; fewer than three
                groups to deal; images that cannot be read, if `strict`.
        """
        self._read_once()
        self._tables.prepare()

    def check(self) -> None:
        """As `prepare`, without the copy of the table that is read faster: enough for who reads a few samples."""
        self._read_once()
        self._tables.check()

    def _read_once(self) -> None:
        found = self._part.with_name("found.json")
        if not self._part.is_file():
            listed = self.read(self._excluded.names)
            missing, cut, wrong = _sorted(listed.mistakes)
            self._refuse(wrong, missing, cut, len(listed.images))
            with RecordWriter(self._part) as writer:
                # first, since the table's name is what makes both count
                write_json(found, {"missing": missing, "cut": cut, "excluded": listed.excluded})
                for image in listed.images:
                    writer.write(image.record)
        self._tell(**json.loads(found.read_text()))

    def read(self, exclude: Collection[str] = ()) -> Listed:
        """All that the list says, and all that is wrong with it; images of the names `exclude` are not looked at.

        Raises:
            ConfigError: the list is missing, or of another form.
        """
        return read_images(read_list(self.root / self.table), self.root, self.scales, self.shares, self.seed, exclude)

    @functools.cached_property
    def most_types(self) -> int:
        """See the contract; of the list's labels, once `prepare` has read them."""
        return self._tables.most_types

    def split(self, name: Split) -> Samples:
        """The samples of a split."""
        return self._tables.split(name)

    def only_tested(self) -> dict[str, Any]:
        """See the contract: where the list has no column `split`."""
        return {} if self.only_test or any("split" in row for row in read_list(self.root / self.table).rows) else {"only_test": True}

    def pictures(self, name: Split) -> set[str]:
        """See the contract; reads the list, if it has not been read."""
        self._read_once()
        return self._tables.pictures(name)

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
        made = [FORMAT, str(self.root.resolve()), repr(self.scales), self.shares, self.seed, sorted(self._excluded.names), files]
        mark.update(json.dumps(made).encode())
        return self._folder / f"roi_folder-{mark.hexdigest()[:16]}" / "part.parquet"

    @property
    def _named(self) -> list[str]:
        """The images and mask files of the list, and the archives that such are in."""
        rows = read_list(self.root / self.table).rows
        return sorted({str(row[key]).partition(INSIDE)[0] for row in rows for key in ("image", "mask") if row.get(key)})

    @functools.cached_property
    def _excluded(self) -> Exclusion:
        return excluded_by(self.exclude)

    def _refuse(self, wrong: list[str], missing: list[str], cut: list[str], usable: int) -> None:
        if not wrong and usable:
            return
        besides = [
            *([f"{len(missing):,} images cannot be used: {named(missing)}"] if missing else []),
            *([f"{len(cut):,} boxes or polygons reach out of their images: {named(cut)}"] if cut else []),
        ]
        path = self.root / self.table
        if not wrong:
            raise ConfigError(f"{path}: no image can be used{': ' if besides else ', for it lists none'}{'. Besides, '.join(besides)}")
        said = ". Besides, ".join([f"{path}: {len(wrong):,} mistakes: {named(wrong)}", *besides])
        raise ConfigError(f"{said}. Mend them; `python prepare.py validate` lists them by sort. {GO_ON}")

    def _tell(self, missing: list[str], cut: list[str], excluded: list[str]) -> None:
        if missing and self.strict:
            raise ConfigError(f"{len(missing)} images of {self.table} cannot be used: {named(missing)}")
        if missing:
            warnings.warn(f"{len(missing)} images of {self.table} are left out: {named(missing)}", stacklevel=3)
        if excluded:
            warnings.warn(f"{len(excluded):,} images of {self.table} are left out, being named in {self.exclude}", stacklevel=3)
        rows = [f"row {number} of {part}" for part, number in sorted(self._excluded.rows)]
        unmatched = [*sorted(self._excluded.names - {*excluded}), *rows]
        if unmatched:
            warnings.warn(f"{not_found(self.exclude, unmatched)} of {self.table}", stacklevel=3)
        if cut:
            said = f"{len(cut):,} boxes or polygons of {self.table} reach out of their images, and are cut to them"
            remedy = "are they left, top, width, height in pixels of the upright image?"
            warnings.warn(f"{said} ({named(cut)}): {remedy}", stacklevel=3)

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


def _sorted(mistakes: Sequence[Mistake]) -> tuple[list[str], list[str], list[str]]:
    """In words: images that are left out, regions that are cut, and what stops training. Labels that are taken for unknown are counted
    when the table is read."""
    missing = [m.what for m in mistakes if m.kind in MISSING]
    return missing, [str(m) for m in mistakes if m.kind == CUT], [str(m) for m in mistakes if m.stops]


def _stamp(path: Path) -> list[int]:
    """Changes whenever a file does; empty where there is none."""
    return [(found := path.stat()).st_size, found.st_mtime_ns] if is_file(path) else []


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
