"""Label files' flat rows, one for each region, as rows of the schema, one for each image: by columns, never by objects."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError
from datamodules.archives import INSIDE, ImageFiles
from datamodules.images import ImageError
from datamodules.records import SPLITS, Scale
from datamodules.tables import REGION, SCHEMA


class RowMaker:
    """Args: see `datamodules.seagull_100w.Indexer`; `files` reads the archives' checksums."""

    def __init__(self, mapping: Mapping[str, Any], files: ImageFiles, shares: tuple[float, float, float], seed: int) -> None:
        self.mapping, self.files, self.shares, self.seed = mapping, files, shares, seed
        self._absent: set[str] = set()  # archives

    def table(self, rows: pa.Table, masks: pa.Table) -> pa.Table:
        """Flat rows of whole images -> a table of `SCHEMA`."""
        starts = _image_starts(rows)
        first = rows.take(pa.array(starts)).to_pydict()
        kinds = [self._kind(t) for t in first["type"]]
        names = [
            {"Type": k.capitalize(), "type": k, "setting": s, "id": r}
            for k, s, r in zip(kinds, first["setting"], first["reference"], strict=True)
        ]
        ids = [f"{n['Type']}_{n['setting']}/{n['id']}" for n in names]
        paths = [self.mapping["images"].format(**n) for n in names]
        image = pa.array(np.repeat(np.arange(len(ids)), np.diff([*starts, len(rows)])))  # of each region
        own = masks.take(rows["number"])
        regions = self._regions(rows, own, pa.array(ids).take(image), pa.array(kinds).take(image))
        columns = {
            "id": ids,
            "source": first["reference"],
            "split": [_split(r, self.seed, self.shares) for r in first["reference"]],
            "height": own["height"].take(pa.array(starts)),
            "width": own["width"].take(pa.array(starts)),
            "path": paths,
            "hash": [self._hash(p) for p in paths],
            "reference": [self.mapping["references"].format(**n) for n in names],
            "regions": pa.ListArray.from_arrays(pa.array([*starts, len(rows)], pa.int32()), regions),
            "png": pa.nulls(len(ids), pa.binary()),
        }
        return pa.Table.from_pydict(columns, SCHEMA)

    def _regions(self, rows: pa.Table, masks: pa.Table, ids: pa.Array, kinds: pa.Array) -> pa.StructArray:
        count = len(rows)
        names = pc.binary_join_element_wise(ids, masks["region"].combine_chunks(), "/")
        box = [masks[c].combine_chunks() for c in ("left_", "top_", "w", "h")]
        fields: dict[str, pa.Array] = {
            "id": names,
            "box": pa.StructArray.from_arrays(box, fields=list(REGION.field("box").type)),
            "distortions": self._distortions(rows, kinds),
        }
        for task in ("quality", "importance"):
            scale = Scale(**self.mapping["scales"][task])
            values = [
                pa.repeat(pa.scalar(v, t.type), count)
                for v, t in zip(vars(scale).values(), REGION.field(f"{task}_scale").type, strict=True)
            ]
            fields[f"{task}_scale"] = pa.StructArray.from_arrays(values, fields=list(REGION.field(f"{task}_scale").type))
            fields |= {name: rows[name].combine_chunks() for name in (task, f"{task}_std")}
        fields |= {name: masks[name].combine_chunks() for name in ("counts", "area", "semantic", "description")}
        return pa.StructArray.from_arrays([fields[f.name].cast(f.type) for f in REGION], fields=list(REGION))

    def _distortions(self, rows: pa.Table, kinds: pa.Array) -> pa.Array:
        """One for each region, whose severity is a step of the quality; unknown where the quality is, or where it is not to be told."""
        kind, count = REGION.field("distortions").type, len(rows)
        scale = Scale(**self.mapping["scales"]["quality"])
        quality = rows["quality"].to_numpy(zero_copy_only=False)
        known = np.isfinite(quality) & (self.mapping["severity"] == "quality")
        share = np.clip(scale.unit(quality[known]), 0, 1)
        step = np.minimum(((1 - share) * len(SEVERITIES)).astype(int), len(SEVERITIES) - 1)
        pairs = pa.StructArray.from_arrays(
            [kinds.filter(pa.array(known)), pa.array(SEVERITIES).take(pa.array(step))], fields=list(kind.value_type)
        )
        offsets = np.concatenate([[0], np.cumsum(known)]).astype(np.int32)
        mask = np.concatenate([~known, [False]])  # a list of no pairs is a clean region; these are unknown
        return pa.ListArray.from_arrays(pa.array(offsets, mask=mask) if count else pa.array(offsets), pairs, type=kind)

    def _kind(self, name: str) -> str:
        kind = str(self.mapping["types"].get(name.lower(), name.lower()))
        if kind not in DISTORTION_TYPES:
            raise ConfigError(
                f"types: a distortion is called {name!r}, known are {', '.join(DISTORTION_TYPES)}: give its name there in a mapping"
            )
        return kind

    def _hash(self, path: str) -> str:
        """The checksum that the image's archive holds; "" where the archive is not there."""
        archive, inside, member = path.partition(INSIDE)
        if not inside or archive in self._absent:
            return ""
        try:
            return self.files.checksum(archive, member)
        except ImageError:
            self._absent.add(archive)
            return ""


def whole_images(rows: pa.Table, count: int) -> Iterator[pa.Table]:
    """The rows in groups of `count` images each."""
    starts = [*_image_starts(rows), len(rows)]
    for first in range(0, len(starts) - 1, count):
        last = min(first + count, len(starts) - 1)
        yield rows.slice(starts[first], starts[last] - starts[first])


def _image_starts(rows: pa.Table) -> list[int]:
    """Where the rows of each image begin."""
    if not len(rows):
        return []
    new = np.zeros(len(rows), np.bool_)
    new[0] = True
    for name in ("reference", "type", "setting"):
        codes = rows[name].combine_chunks().dictionary_encode().indices.to_numpy()
        new[1:] |= codes[1:] != codes[:-1]
    return np.flatnonzero(new).tolist()


@functools.lru_cache(maxsize=2**10)  # versions of a reference stand together
def _split(reference: str, seed: int, shares: tuple[float, float, float]) -> str:
    """Of a reference alone, so that another part of the data set gives it the same."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{reference}".encode()).digest()[:8], "big") / 2**64
    return SPLITS[min(int(np.searchsorted(np.cumsum(shares), draw, "right")), 2)]
