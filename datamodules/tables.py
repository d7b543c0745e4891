"""The one schema on disk: a row of a Parquet file is an image with all its regions (in memory: `datamodules.records`).

On disk a score and its standard deviation are numbers of the scale that stands beside them, as they were given; in memory both
are on [0, 1]. A direction turns the score around and leaves the standard deviation as it is.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.tasks import Distortions
from datamodules.records import UNIT, ImageRecord, RegionRecord, Scale

VERSION = 2  # of the schema
VERSION_KEY = b"roi_iqa.schema"
GROUP_IMAGES, GROUP_BYTES = 32, 2**20  # a row group is closed by whichever comes first: reading one image reads its group
DIGITS = 12  # significant ones of a score on disk, so that what was given on a scale is written as it was given

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int32()
_SCALE = pa.struct([("low", _NUMBER), ("high", _NUMBER), ("direction", _TEXT)])
_BOX = pa.struct([("left", _COUNT), ("top", _COUNT), ("width", _COUNT), ("height", _COUNT)])
_PAIR = pa.struct([("type", _TEXT), ("severity", _TEXT)])
REGION = pa.struct(
    [
        ("id", _TEXT),
        ("counts", _TEXT),
        ("box", _BOX),
        ("area", _COUNT),
        ("quality", _NUMBER),
        ("quality_std", _NUMBER),
        ("quality_scale", _SCALE),
        ("importance", _NUMBER),
        ("importance_std", _NUMBER),
        ("importance_scale", _SCALE),
        ("distortions", pa.list_(_PAIR)),
        ("semantic", _TEXT),
        ("description", _TEXT),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("source", _TEXT),
        ("split", _TEXT),
        ("height", _COUNT),
        ("width", _COUNT),
        ("path", _TEXT),
        ("hash", _TEXT),
        ("reference", _TEXT),
        ("regions", pa.list_(REGION)),
        ("png", pa.binary()),
    ],
    {VERSION_KEY: str(VERSION).encode()},
)


_TASKS = ("quality", "importance")
_LARGE = {  # columns that are worth the longer compression
    *("id", "path", "hash", "reference", "png"),
    *(f"regions.list.element.{name}" for name in ("id", "counts", *_TASKS, *(f"{task}_std" for task in _TASKS), "description")),
}
_REPEATED = ["source", "split", "height", "width"] + [  # columns whose values stand many times in a row group
    f"regions.list.element.{name}"
    for name in (
        *("counts", "box.left", "box.top", "box.width", "box.height", "area", "semantic", "description"),
        *("distortions.list.element.type", "distortions.list.element.severity"),
        *(f"{task}_scale.{of}" for task in _TASKS for of in _SCALE.names),
    )
]


def _leaves(field: pa.Field, above: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """The columns of a Parquet file that a field becomes, with their types."""
    kind, path = field.type, f"{above}{field.name}"
    if pa.types.is_list(kind):
        kind, path = kind.value_type, f"{path}.list.element"
    if not pa.types.is_struct(kind):
        yield path, kind
        return
    for inner in kind:
        yield from _leaves(inner, f"{path}.")


def pointing(kind: pa.DataType) -> pa.DataType:
    """A type whose texts are held once each and pointed at, as they are in a file: what repeats need not be found again to be written."""
    if pa.types.is_string(kind):
        return pa.dictionary(pa.int32(), kind)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(pointing(f.type)) for f in kind])
    return pa.list_(pointing(kind.value_type)) if pa.types.is_list(kind) else kind


def to_row(record: ImageRecord) -> dict[str, Any]:
    """A record -> the row of `SCHEMA` that it is written as.

    Raises:
        RegionError: a mask that does not belong to an image of this size, or covers no pixel.
    """
    return {**vars(record), "regions": [_to_struct(r.measured(record.height, record.width)) for r in record.regions]}


def _to_struct(region: RegionRecord) -> dict[str, Any]:
    struct: dict[str, Any] = {**vars(region), "box": dict(zip(_BOX.names, region.box or (), strict=True))}
    for task in _TASKS:
        scale: Scale = struct[f"{task}_scale"]
        struct[f"{task}_scale"] = asdict(scale)
        if scale != UNIT:
            struct[task] = _rounded(struct[task], scale.given)
            struct[f"{task}_std"] = _rounded(struct[f"{task}_std"], scale.given_std)
    if region.distortions is not None:
        struct["distortions"] = [{"type": t, "severity": s} for t, s in region.distortions]
    return struct


def _rounded(value: float | None, convert: Callable[[float], float]) -> float | None:
    return None if value is None else float(f"{convert(value):.{DIGITS}g}")


def from_row(row: Mapping[str, Any]) -> ImageRecord:
    """A row of `SCHEMA` -> its record. No scale is [0, 1], higher is better; no path, hash, reference or image is an empty one.

    A score outside its scale, a standard deviation that cannot be of it or has no score, and distortions of unknown words or of one type
    twice are unknown (`datamodules.rows.scan` counts them, `datamodules.validation` locates them): what else is known of the region
    teaches. Box and area are not taken from the row: they follow from the mask, which a row may contradict.

    Raises:
        ValueError: a scale that is none.
    """
    values = {name: value for name, value in row.items() if value is not None or name in ("id", "source", "split", "height", "width")}
    return ImageRecord(**{**values, "regions": tuple(_from_struct(r) for r in row["regions"] or ())})


def _from_struct(struct: Mapping[str, Any]) -> RegionRecord:
    region = dict(struct)
    for task in _TASKS:
        scale = UNIT if region[f"{task}_scale"] is None else Scale(**region[f"{task}_scale"])
        region[f"{task}_scale"] = scale
        region[task], region[f"{task}_std"] = _on_unit(region[task], region[f"{task}_std"], scale)
    region["counts"] = region["counts"] or ""  # which no mask has
    region["distortions"] = _distortions(region["distortions"])
    region["box"] = region["area"] = None
    return RegionRecord(**region)


def _distortions(pairs: Sequence[Mapping[str, Any] | None] | None) -> Distortions | None:
    if pairs is None or any(pair is None or pair["type"] not in DISTORTION_TYPES or pair["severity"] not in SEVERITIES for pair in pairs):
        return None
    found = tuple((pair["type"], pair["severity"]) for pair in pairs if pair is not None)
    return found if len({kind for kind, _ in found}) == len(found) else None


def _on_unit(score: float | None, std: float | None, scale: Scale) -> tuple[float | None, float | None]:
    if score is None or not scale.holds(score):
        return None, None
    std = None if std is None or not 0 <= std <= scale.largest_std(score) else std
    if scale == UNIT:
        return score, std
    return scale.unit(score), None if std is None else scale.unit_std(std)


class RecordWriter:
    """Writes one Parquet file, row group by row group, in constant memory; the file is whole or it is not there.

    Equal records make equal bytes (with one version of pyarrow).

    Args:
        schema: of the tables for `write_table`: `SCHEMA`, or columns of it as `pointing` gives them.
    """

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        self.path, self._rows, self._bytes = path, list[dict[str, Any]](), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")  # pids repeat between containers
        own = schema.equals(SCHEMA)  # else the file is to be read as one of ours, whatever it was written from
        leaves = [leaf for field in schema for leaf in _leaves(field)]
        self._file = pq.ParquetWriter(
            self._draft,
            schema,
            compression="zstd" if own else {path: "zstd" if path in _LARGE else "snappy" for path, _ in leaves},
            use_dictionary=_REPEATED if own else [path for path, kind in leaves if pa.types.is_dictionary(kind)],
            store_schema=own,
        )
        if not own:
            self._file.add_key_value_metadata({VERSION_KEY.decode(): str(VERSION)})

    def write(self, record: ImageRecord) -> None:
        """Raises RegionError as `to_row` does."""
        self._rows.append(to_row(record))
        self._bytes += len(record.png)
        if len(self._rows) >= GROUP_IMAGES or self._bytes >= GROUP_BYTES:
            self._flush()

    def write_table(self, table: pa.Table, images: int) -> None:
        """A table of the writer's schema becomes row groups of its own, of `images` images each."""
        self._flush()
        self._file.write_table(table, row_group_size=images)

    def _flush(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        if rows:
            self._file.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=len(rows))

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._flush()
            self._file.close()
            if error is None:
                self._draft.replace(self.path)
        finally:
            self._draft.unlink(missing_ok=True)


def write_records(path: Path, records: Iterable[ImageRecord]) -> None:
    """Writes one Parquet file atomically: it is whole or it is not there."""
    with RecordWriter(path) as writer:
        for record in records:
            writer.write(record)


def read_records(paths: Sequence[Path]) -> list[ImageRecord]:
    """Reads Parquet files written by `write_records`, in the order given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by `write_records`.
    """
    return [record for path in paths for record in iterate_records(path)]


def iterate_records(path: Path) -> Iterator[ImageRecord]:
    """As `read_records`, of one file, a row group in memory at a time."""
    with open_table(path) as file:
        for group in range(file.num_row_groups):
            for row in read_group(file, path, group).to_pylist():
                yield from_row(row)


def fingerprint(parts: tuple[Path, ...]) -> str:
    """Of names, sizes and footers, which hold place, size and extremes of each column: it tells tables apart without reading them, but for
    those that differ in values alone, none of which is an extreme, and are packed to the same sizes."""
    mark = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, os.SEEK_END)
            mark.update(f"{part.name} {part.stat().st_size} ".encode() + file.read(length))
    return mark.hexdigest()[:16]


def open_table(path: Path, repeated: Sequence[str] | None = None) -> pq.ParquetFile:
    """Opens a Parquet file of records and checks its schema.

    Args:
        repeated: columns whose values are kept once each and pointed at, as they are in the file.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let it be read: no permission, too many open files.
        ValueError: damaged, of another version, or somebody else's.
    """
    try:
        file = pq.ParquetFile(path, read_dictionary=repeated)
    except KeyError:  # it lacks one of them
        return open_table(path)  # which says so
    except (pa.ArrowException, OSError) as error:
        raise _unread(path, error) from error
    try:
        _check_schema(file.schema.to_arrow_schema(), path)
    except ValueError:
        file.close()
        raise
    return file


def read_group(file: pq.ParquetFile, path: Path, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """A row group. Raises ValueError where it is damaged, OSError where the system does not read it."""
    return read_groups(file, path, range(group, group + 1), columns)


def read_groups(file: pq.ParquetFile, path: Path, groups: range, columns: Sequence[str] | None = None) -> pa.Table:
    """As `read_group`, several of them, one behind the other."""
    try:
        return file.read_row_groups(list(groups), columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: Exception) -> Exception:
    """What the system refuses (it gives an errno) is not taken for damage: nobody is told to delete a whole file."""
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, f"cannot be read ({os.strerror(error.errno)}); nothing says that it is damaged", str(path))
    return ValueError(f"{path} is not a whole Parquet file ({error}): delete it and prepare the data again")


def _check_schema(found: pa.Schema, path: Path) -> None:
    version = (found.metadata or {}).get(VERSION_KEY, b"").decode()
    if found.equals(SCHEMA) and version in ("", str(VERSION)):
        return
    said = _differences(found, SCHEMA) if not found.equals(SCHEMA) else ["the columns are the same, their meaning may not be"]
    raise ValueError(
        f"{path} does not hold records of schema version {VERSION} (it names {f'version {version}' if version else 'none'}): "
        f"{'; '.join(said)}. Prepare the data again, or write its columns as docs/data.md says"
    )


def _differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    """What distinguishes two schemas, or two structs: columns that lack, that are unknown, of another type, in another order."""
    theirs, ours = ({f.name: f.type for f in fields} for fields in (found, wanted))
    said = [f"it lacks {where}{name} ({_plain(kind)})" for name, kind in ours.items() if name not in theirs]
    said += [f"it has {where}{name} ({_plain(kind)}), which is unknown" for name, kind in theirs.items() if name not in ours]
    for name, kind in ours.items():
        other = theirs.get(name, kind)
        if other == kind:
            continue
        inner = [t.value_type if pa.types.is_list(t) else t for t in (other, kind)]
        if all(pa.types.is_struct(t) for t in inner):
            said += _differences(inner[0], inner[1], f"{where}{name}.")
        else:
            said.append(f"{where}{name} is {_plain(other)} in place of {_plain(kind)}")
    return said or [f"the columns {where}* stand in another order: {', '.join(theirs)} in place of {', '.join(ours)}"]


def _plain(kind: pa.DataType) -> str:
    return str(kind) if not pa.types.is_nested(kind) else "nested"
