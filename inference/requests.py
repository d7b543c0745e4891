"""What is asked for: images and regions of them, from the command line, the reference's JSON, or a manifest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.mask_encoders.base import Prompt
from components.registry import ConfigError, check_keys
from components.rle import RegionError
from datamodules.images import SUFFIXES, is_file, list_images
from datamodules.region_list import are_fractions, cells_of_any_length, shape_of_cell

Kind = Literal["box", "point", "polygon", "rle", "mask", "whole", "proposed"]
REGION_KEYS = ("box", "point", "polygon", "rle", "mask")
MASK_TYPES = ("points", "rle")
_LARGEST = 1e12  # pixels; a larger number, or one that is none, is a slip
_REFERENCE_KEYS = ("img", "rle", "points")


@dataclass(frozen=True)
class Asked:
    """One region as it was asked for.

    Attributes:
        id: its name in the output.
        value: as it was written; what it means, and whether it fits, is seen when the image is there.
    """

    id: str
    kind: Kind
    value: Any = None

    def prompt(self, height: int, width: int) -> Prompt:
        """For a mask encoder, on an image of this size.

        Raises:
            RegionError: not of the form that its kind has.
        """
        if self.kind == "whole":
            return Prompt(box=(0, 0, width, height))
        if self.kind == "rle":
            if self.value is None:
                raise RegionError("its row has no run-length code, as a region that could not be scored has none: say where it is")
            return Prompt(rle=self.value if isinstance(self.value, dict) else {"size": [height, width], "counts": self.value})
        if self.kind == "mask":
            return Prompt(mask=Path(self.value))
        if self.kind == "polygon":
            flat = isinstance(self.value, list) and all(isinstance(x, (int, float)) for x in self.value)
            rings = [self.value] if flat else self.value
            if not isinstance(rings, list) or not all(isinstance(r, list) and all(_is_number(x) for x in r) for r in rings):
                raise RegionError(
                    "a polygon is rings [[x0, y0, x1, y1, ...], ...] or points [[x0, y0], [x1, y1], [x2, y2], ...], numbers of pixels, got "
                    f"{self.value!r}"
                )
            self._check_pixels(rings)
            return Prompt(polygon=rings)
        count = 4 if self.kind == "box" else 2
        if not isinstance(self.value, (list, tuple)) or len(self.value) != count or not all(_is_number(v) for v in self.value):
            form = "left, top, width, height" if self.kind == "box" else "x, y"
            raise RegionError(f"a {self.kind} is {form}, {count} numbers of pixels, got {self.value!r}")
        numbers = tuple(float(v) for v in self.value)
        self._check_pixels(numbers)
        return Prompt(box=numbers) if self.kind == "box" else Prompt(point=numbers)  # type: ignore[arg-type]

    def _check_pixels(self, shape: Any) -> None:
        if are_fractions(self.kind, shape):
            raise RegionError(f"{self.kind} {self.value} lies within a pixel: it is given in pixels, not in fractions of the image")


@dataclass(frozen=True)
class Request:
    """An image and the regions asked about, `proposed` standing for those that a mask encoder finds.

    Attributes:
        name: of the image, as it was written.
    """

    name: str
    path: Path
    regions: tuple[Asked, ...]


def gather(source: Path, regions: Sequence[Asked], images: Path | None = None, mask_type: str = "points") -> list[Request]:
    """The requests that `source` stands for.

    Args:
        source: an image, a folder of images, the reference's JSON (.json), or a manifest (.jsonl, .csv).
        regions: asked about in every image; for a list, which names its own, there are none. None means the whole image.
        images: where a list's images lie; None for the list's own folder.
        mask_type: which key of the reference's JSON is the region, "points" (a box) or "rle".

    Raises:
        ConfigError: a list that is not of its form, regions beside a list, or a file of no known sort.
        FileNotFoundError: no such file. ImageError: a folder without images.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: give an image, a folder of images, or a list (.json, .jsonl, .csv)")
    suffix = source.suffix.lower()
    listed = source.is_file() and suffix in (".json", ".jsonl", ".csv")
    if listed and regions:
        raise ConfigError(
            f"{source} names its own regions: leave out --box, --point, --mask, --propose and --map, or give an image or a folder"
        )
    if images is not None and not listed:
        raise ConfigError("--images says where the images of a list lie, and the input is no list")
    if listed:
        root = images or source.parent
        return _reference(source, root, mask_type) if suffix == ".json" else _manifest(source, root, told=images is not None)
    asked = tuple(regions) or (Asked("whole image", "whole"),)
    if source.is_dir():
        return [Request(p.relative_to(source).as_posix(), p, asked) for p in list_images(source)]
    if suffix == ".parquet":
        raise ConfigError(
            f"{source}: a list is .json, .jsonl or .csv, and Parquet is not read: let --out write .jsonl or .csv, or convert it"
        )
    if suffix not in SUFFIXES:
        raise ConfigError(f"{source} is neither an image ({', '.join(SUFFIXES)}) nor a list (.json, .jsonl, .csv)")
    return [Request(source.name, source, asked)]


def _reference(file: Path, root: Path, mask_type: str) -> list[Request]:
    """[{"img": name, "rle": counts, "points": [x, y, w, h]}, ...], one region each (reference facts 1.14)."""
    try:
        records = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not JSON ({error})") from error
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ConfigError(
            f"{file} must hold a list of records with the keys {', '.join(_REFERENCE_KEYS)}; a manifest ends in .jsonl or .csv"
        )
    rows = []
    for number, record in enumerate(records):
        where = f"{file}, record {number}"
        check_keys(record, list(_REFERENCE_KEYS), where)
        if mask_type not in record or "img" not in record:
            raise ConfigError(f"{where}: needs 'img' and '{mask_type}' (--mask-type {mask_type}), got {', '.join(record) or 'nothing'}")
        kind: Kind = "box" if mask_type == "points" else "rle"
        rows.append((str(record["img"]), Asked(str(number), kind, record[mask_type])))
    return _grouped(rows, root)


def _manifest(file: Path, root: Path, told: bool) -> list[Request]:
    """Rows with `image`, exactly one of box, point, polygon, rle, mask (or none: the whole image), and perhaps `id`; or rows of `--out`.

    Args:
        told: somebody said that the images lie in `root`.
    """
    rows, before = [], False
    for number, record in enumerate(_records(file)):
        where = f"{file}, row {number + 1}"
        if record.get("image") and {"region", "kind"} <= set(record):
            rows.append((str(record["image"]), _scored_before(record)))
            before = True
            continue
        check_keys(record, ["image", "id", *REGION_KEYS], where)
        given = {k: record[k] for k in REGION_KEYS if record.get(k) not in (None, "")}
        if not record.get("image"):
            raise ConfigError(f"{where}: has no 'image'")
        if len(given) > 1:
            raise ConfigError(f"{where}: a region is said in one way, got {' and '.join(given)}")
        name = str(number if record.get("id") in (None, "") else record["id"])
        asked = Asked(name, "whole")
        for kind, value in given.items():
            value = _read(kind, value)
            if kind == "mask" and not isinstance(value, str):
                raise ConfigError(f"{where}: a mask is a file name, got {value!r}")
            asked = Asked(name, kind, str(file.parent / value) if kind == "mask" else value)  # type: ignore[arg-type]
        rows.append((str(record["image"]), asked))
    if before and not told and not any(is_file(root / name) for name, _ in rows):
        raise ConfigError(
            f"{file} is what a prediction wrote, and none of its images ({rows[0][0]}, say) lies in {root}: say with --images FOLDER where "
            "they lie"
        )
    return _grouped(rows, root)


def _scored_before(record: Mapping[str, Any]) -> Asked:
    """The region of a row that a prediction wrote."""
    code = record.get("rle")
    if record.get("counts"):
        size = [int(str(side)) if str(side).isdecimal() else side for side in (record.get("image_height"), record.get("image_width"))]
        code = {"size": size, "counts": record["counts"]}
    return Asked(str(record["region"]), "rle", code)


def _records(file: Path) -> list[Mapping[str, Any]]:
    try:
        text = io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")  # ends a line at \n and \r, as no U+2028 does
        if file.suffix.lower() == ".csv":
            with cells_of_any_length():
                rows = list(csv.DictReader(text, strict=True))
            if any(None in row for row in rows):
                raise ConfigError(f"{file}: row {next(i for i, r in enumerate(rows, 1) if None in r)} has more fields than the header")
            return [{k: v for k, v in row.items() if v is not None} for row in rows]
        found = [json.loads(line) for line in text if line.strip()]
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{file} is not a manifest: {'a CSV with a header' if file.suffix == '.csv' else 'one JSON object a line'} ({error})"
        ) from error
    if not all(isinstance(row, dict) for row in found):
        raise ConfigError(f"{file} is not a manifest: each line is one JSON object, such as {{'image': 'a.jpg', 'box': [40, 30, 120, 90]}}")
    return found


def _read(kind: str, value: Any) -> Any:
    """A cell as `shape_of_cell` reads it, or the text itself where it is another."""
    try:
        if isinstance(value, str) and kind == "rle" and value.lstrip().startswith("["):
            return json.loads(value)  # counts that are not compressed
        return shape_of_cell(kind, value) if isinstance(value, str) and kind != "mask" else value
    except ValueError:
        return value


def _grouped(rows: Iterable[tuple[str, Asked]], root: Path) -> list[Request]:
    """One request per image, in order of first appearance."""
    groups: dict[str, list[Asked]] = {}
    named: set[tuple[str, str]] = set()
    for name, asked in rows:
        if (name, asked.id) in named:
            raise ConfigError(
                f"two regions of {name} are called {asked.id!r} (a row without an id is called by its number): say them apart"
            )
        named.add((name, asked.id))
        groups.setdefault(name, []).append(asked)
    if not groups:
        raise ConfigError(f"the list names no regions: give at least one row (images are looked for in {root})")
    return [Request(name, root / name, tuple(regions)) for name, regions in groups.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
