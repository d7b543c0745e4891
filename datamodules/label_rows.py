"""A bucket's flat rows, one for each region, as rows of the schema, one for each image: by columns, never by objects.

What stands many times (a mask stands in each of the 120 versions of its image) is written once in a row group and pointed at.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError
from datamodules.archives import INSIDE, ImageFiles
from datamodules.images import ImageError, decode_image
from datamodules.label_join import one
from datamodules.records import ROUNDING, SPLITS, Scale
from datamodules.tables import REGION, SCHEMA, pointing

_POINTED = ("counts", "semantic", "description", "quality_scale", "importance_scale", "distortions")  # values that repeat
_FIELDS = pa.struct([f.with_type(pointing(f.type)) if f.name in _POINTED else f for f in REGION])
_ASKED = 3  # references whose images are compared with their masks' size, of each archive or folder
_ID, _HERE = "{Type}_{setting}/{id}", "\0"
ROWS = pa.schema([f.with_type(pa.list_(_FIELDS)) if f.name == "regions" else f for f in SCHEMA], SCHEMA.metadata)  # of `RowMaker`


class RowMaker:
    """Args: see `datamodules.seagull_100w.Indexer`; `files` reads the checksums of `archives`, and of no others."""

    def __init__(
        self, mapping: Mapping[str, Any], files: ImageFiles, archives: frozenset[str], shares: tuple[float, float, float], seed: int
    ) -> None:
        self.mapping, self.files, self.archives, self.shares, self.seed = mapping, files, archives, shares, seed
        self._damaged: set[str] = set()  # archives
        self._looked: set[str] = set()  # archives and folders, of which images have been compared with its masks' size

    def tables(self, rows: pa.Table, masks: pa.Table, images: int) -> Iterator[pa.Table]:
        """Flat rows (`number` of the mask, `image`, `type`, `setting`, scores), image by image -> tables of `ROWS`.

        Args:
            images: of a table.
        """
        if not len(rows):
            return
        ends = np.append(_starts(rows["image"].to_numpy()), len(rows))
        of_images, ids, kinds = self._images(rows.take(pa.array(ends[:-1])), masks)
        image = np.repeat(np.arange(len(of_images), dtype=np.int32), np.diff(ends))
        fields = self._regions(rows, masks, pa.array(ids).take(pa.array(image)), kinds[image])
        numbers = rows["number"].to_numpy()
        for first in range(0, len(of_images), images):
            group = of_images.slice(first, images)
            cuts = ends[first : first + len(group) + 1]
            here = {name: column.slice(cuts[0], cuts[-1] - cuts[0]) for name, column in fields.items()}
            here |= _of_masks(masks, numbers[cuts[0] : cuts[-1]])
            regions = pa.StructArray.from_arrays([here[f.name] for f in _FIELDS], fields=list(_FIELDS))
            lists = pa.ListArray.from_arrays(pa.array(cuts - cuts[0], pa.int32()), regions)
            yield group.set_column(SCHEMA.get_field_index("regions"), ROWS.field("regions"), lists)

    def _images(self, first: pa.Table, masks: pa.Table) -> tuple[pa.Table, list[str], NDArray[np.int8]]:
        """Of each image's first row: the table but for its regions, its name, and the place of its type in `DISTORTION_TYPES`."""
        own = masks.take(first["number"])
        versions = list(zip(first["type"].to_pylist(), first["setting"].to_pylist(), strict=True))
        references = own["reference"].to_pylist()
        kinds = {kind: self._kind(kind) for kind in dict.fromkeys(kind for kind, _ in versions)}
        ids, paths, clean = (
            _filled(template, versions, references, kinds) for template in (_ID, self.mapping["images"], self.mapping["references"])
        )
        columns = {
            "id": ids,
            "source": references,
            "split": [_split(r, self.seed, self.shares) for r in references],
            "height": own["height"],
            "width": own["width"],
            "path": paths,
            "hash": self._hashes(paths),
            "reference": clean,
            "regions": pa.nulls(len(ids), SCHEMA.field("regions").type),
            "png": pa.nulls(len(ids), pa.binary()),
        }
        self._check_sides(paths, own)
        table = pa.Table.from_pydict(columns, SCHEMA).combine_chunks()
        places = {given: DISTORTION_TYPES.index(kind) for given, kind in kinds.items()}
        return table, ids, np.array([places[given] for given, _ in versions], np.int8)

    def _check_sides(self, paths: Sequence[str], own: pa.Table) -> None:
        """Reads a few images of each archive, or folder, whose masks are not square.

        Raises:
            ConfigError: the sides of the masks of all of them are those of the images in the other order.
        """
        heights, widths = (own[side].to_numpy() for side in ("height", "width"))
        references = own["reference"].to_pylist()
        asked: dict[str, dict[str, int]] = {}  # holder -> reference -> place of an image of it
        for i in np.flatnonzero(heights != widths).tolist():
            archive, inside, _ = paths[i].partition(INSIDE)
            holder = archive if inside else paths[i].rpartition("/")[0]
            if holder not in self._looked and not (inside and archive not in self.archives):
                asked.setdefault(holder, {}).setdefault(references[i], i)
        for holder, places in asked.items():
            self._looked.add(holder)
            sizes = {i: size for i in [*places.values()][:_ASKED] if (size := self._size(paths[i]))}
            if sizes and all(size == (widths[i], heights[i]) for i, size in sizes.items()):
                i, (height, width) = next(iter(sizes.items()))
                first, second = self.mapping["masks"]["sides"]
                raise ConfigError(
                    f"masks.size: {paths[i]} is {width} x {height} pixels (width x height), its masks {height} x {width}: their sizes are "
                    f"given as [{second}, {first}]. Say so in a mapping (--mapping), and choose another folder or delete this one:\n"
                    f"masks:\n  sides: [{second}, {first}]"
                )

    def _size(self, path: str) -> tuple[int, int] | None:
        """Height and width of an image; None where it cannot be read, which `validate` tells."""
        try:
            height, width = decode_image(self.files.read(path), path).shape[:2]
        except ImageError:
            return None
        return height, width

    def _regions(self, rows: pa.Table, masks: pa.Table, ids: pa.Array, kinds: NDArray[np.int8]) -> dict[str, pa.Array]:
        """The columns of regions, but for the masks and their words."""
        own = masks.select(["region", "left_", "top_", "w", "h", "area"]).take(rows["number"]).combine_chunks()
        box = [one(own[c]) for c in ("left_", "top_", "w", "h")]
        fields: dict[str, pa.Array] = {
            "id": pc.binary_join_element_wise(ids, one(own["region"]), "/"),
            "box": pa.StructArray.from_arrays(box, fields=list(REGION.field("box").type)),
            "area": one(own["area"]),
            "distortions": self._distortions(one(rows["quality"]), kinds),
        }
        for task in ("quality", "importance"):
            fields |= {name: one(rows[name]) for name in (task, f"{task}_std")}
            kind = _FIELDS.field(f"{task}_scale").type
            values = vars(Scale(**self.mapping["scales"][task])).values()
            ends = [_same(value, len(rows), f.type) for value, f in zip(values, kind, strict=True)]
            fields[f"{task}_scale"] = pa.StructArray.from_arrays(ends, fields=list(kind))
        return fields

    def _distortions(self, given: pa.Array, kinds: NDArray[np.int8]) -> pa.Array:
        """One for each region, whose severity is a step of the quality; unknown where the quality is or is off its scale, or where it is
        not to be told."""
        kind = _FIELDS.field("distortions").type
        scale = Scale(**self.mapping["scales"]["quality"])
        quality = given.to_numpy(zero_copy_only=False)
        known = on_scale(quality, scale) & (self.mapping["severity"] == "quality")
        share = np.clip(scale.unit(quality[known]), 0, 1)  # to rounding
        step = np.minimum(((1 - share) * len(SEVERITIES)).astype(np.int32), len(SEVERITIES) - 1)
        codes = ((kinds[known].astype(np.int32), DISTORTION_TYPES), (step, SEVERITIES))
        pairs = pa.StructArray.from_arrays(
            [pa.DictionaryArray.from_arrays(pa.array(c), pa.array(words)) for c, words in codes], fields=list(kind.value_type)
        )
        offsets = np.concatenate([[0], np.cumsum(known)]).astype(np.int32)
        mask = np.concatenate([~known, [False]])  # a list of no pairs is a clean region; these are unknown
        return pa.ListArray.from_arrays(pa.array(offsets, mask=mask), pairs, type=kind)

    def _kind(self, name: str) -> str:
        kind = str(self.mapping["types"].get(name.lower(), name.lower()))
        if kind not in DISTORTION_TYPES:
            raise ConfigError(
                f"types: a distortion is called {name!r}, known are {', '.join(DISTORTION_TYPES)}: give its name there in a mapping"
            )
        return kind

    def _hashes(self, paths: Sequence[str]) -> list[str]:
        """The checksums that the images' archives hold; "" where an archive was not there when the index began, or is damaged."""
        found, asked = [""] * len(paths), dict[str, list[tuple[int, str]]]()
        for i, path in enumerate(paths):
            archive, inside, member = path.partition(INSIDE)
            if inside and archive in self.archives and archive not in self._damaged:
                asked.setdefault(archive, []).append((i, member))
        for archive, members in asked.items():
            try:
                marks = self.files.checksums(archive, [m for _, m in members])
            except ImageError:
                self._damaged.add(archive)
                continue
            for (i, _), mark in zip(members, marks, strict=True):
                found[i] = mark
        return found


def on_scale(given: NDArray[np.float64], scale: Scale) -> NDArray[np.bool_]:
    """`Scale.holds` of an array."""
    return np.abs(scale.unit(given) - 0.5) <= 0.5 + ROUNDING


def _filled(template: str, versions: Sequence[tuple[str, int]], references: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
    """A template of the mapping for each image; what it says of a version (type and setting) is worked out once for all references.

    Args:
        kinds: what types are called here, by what they are called there.
    """

    def said(version: tuple[str, int], reference: str) -> str:
        kind = kinds[version[0]]
        return template.format(Type=kind.capitalize(), type=kind, setting=version[1], id=reference)

    if any(name and name.startswith("id") and (name, spec, how) != ("id", "", None) for _, name, spec, how in Formatter().parse(template)):
        return [said(version, reference) for version, reference in zip(versions, references, strict=True)]  # "{id:0>8}", say
    around = {version: said(version, _HERE).split(_HERE) for version in dict.fromkeys(versions)}
    return [reference.join(around[version]) for version, reference in zip(versions, references, strict=True)]


def _starts(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the rows of each image begin."""
    return np.flatnonzero(np.append(True, image[1:] != image[:-1]))


def _of_masks(masks: pa.Table, numbers: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Run lengths and words of the masks `numbers`, each held once: those of a reference stand together in `masks`."""
    low = int(numbers.min())
    near, places = masks.slice(low, int(numbers.max()) - low + 1), pa.array(numbers - low)
    return {name: one(near[name]).dictionary_encode().take(places) for name in ("counts", "semantic", "description")}


def _same(value: Any, count: int, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return pa.repeat(pa.scalar(value, kind), count)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value], kind.value_type))


@functools.lru_cache(maxsize=2**10)  # versions of a reference stand together
def _split(reference: str, seed: int, shares: tuple[float, float, float]) -> str:
    """Of a reference alone, so that another part of the data set gives it the same."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{reference}".encode()).digest()[:8], "big") / 2**64
    return SPLITS[min(int(np.searchsorted(np.cumsum(shares), draw, "right")), 2)]
