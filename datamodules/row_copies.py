"""Copies of tables out of which a row is read by itself: Arrow's own format, not compressed, mapped into memory.

In a Parquet table a row can only be had with its whole row group, unpacked; training visits rows in random order, so that would be done for
each. A copy lies in the data's cache, can be made again at any time, and holds what training reads: no words, hashes or references.
The run lengths of a mask, which is that of each of an image's versions, stand once in a row group, as they do in the table: regions hold
their places in a column `masks`, whose first row has them all.
Tables that hold the images themselves are not copied: their row groups are small, and copies would be as large as the data.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from components.registry import ConfigError
from datamodules.tables import fingerprint, open_table, read_group

NEEDED = ("id", "source", "split", "height", "width", "path", "png")  # for a sample; of its regions, what follows
_REGIONS = (
    "id",
    "counts",
    "distortions",
    *(f"{task}{of}" for task in ("quality", "importance") for of in ("", "_std", "_scale")),
)
_LARGE = 1024  # bytes: images that a table holds are larger
_LIMIT = 2**31 - 1  # bytes of texts or images in one Arrow array, whose places are numbers of 32 bits
_FORM = 3  # of the copies; part of their names, so that those of another form are not read
_MASKS = "masks"
_COUNTS = "regions.list.element.counts"
_WIDTHS = {"INT32": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}  # bytes; of a text, those that say where it ends
_WORD = 8  # bytes: about the length of a type, a severity or a direction, which the table holds once in a row group
_BATCH = 4096  # bytes beside the values of a row group: what says where they are, and what fills up to whole words

_REMEDY = (
    "Copies spare training from unpacking a row group for each image: "
    "set data.cache to a folder with room, or to '' to train without copies"
)


def needed_columns(file: pq.ParquetFile) -> list[str]:
    """The columns of a table that a sample is made of."""
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return [p for p in leaves if p in NEEDED or (p.startswith("regions.") and p.split(".")[3] in _REGIONS)]


def place_of(part: Path, folder: Path) -> Path:
    """Where the copy of a table lies in `folder`; another place once the table is written again: two tables may differ in a value alone,
    which `fingerprint` does not see."""
    written = part.stat()
    return folder / f"{part.stem}-{fingerprint((part,))}-{written.st_mtime_ns:x}-{written.st_ino:x}.{_FORM}.arrow"


def make_copies(parts: Sequence[Path], folder: Path) -> None:
    """Copies the tables that are not copied yet, each whole or not at all.

    Raises:
        ConfigError: the folder has no room for them, or cannot be written to.
        ValueError: a table is damaged.
    """
    missing = [(part, place) for part in parts if not (place := place_of(part, folder)).is_file()]
    sizes = {part: size_of_copy(part) for part, _ in missing}
    needed, free = sum(sizes.values()), _free(folder)
    if needed > free:
        tables = sum(map(bool, sizes.values()))
        raise ConfigError(f"{folder}: copies of {tables:,} tables take about {needed:,} bytes there, and {free:,} are free. {_REMEDY}")
    with tqdm(total=needed, unit="B", unit_scale=True, desc=f"copying the tables to {folder}", delay=2) as bar:
        for part, place in missing:
            try:
                if sizes[part]:
                    _copy(part, place)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
                    raise
                said = f"{folder}: the copy of {part} cannot be written there ({os.strerror(error.errno)}). {_REMEDY}"
                raise ConfigError(said) from error
            bar.update(sizes[part])


def size_of_copy(part: Path) -> int:
    """About how many bytes the copy of a table takes, by the table's footer: numbers as wide as their types are, texts as long as they are
    in the table. 0 for a table that is not copied: it holds images, or so much text in a row group that this is no single batch.

    Raises:
        ValueError: the table is damaged.
    """
    with open_table(part) as file:
        if _holds_images(file) or _largest_column(file) > _LIMIT:
            return 0
        columns, size = {*needed_columns(file)}, 0
        for g in range(file.num_row_groups):
            group = file.metadata.row_group(g)
            size += _BATCH
            for column in (group.column(c) for c in range(group.num_columns)):
                path, kind = column.path_in_schema, column.physical_type
                if path in columns:
                    size += column.num_values * (_WIDTHS[kind] + _WORD * path.endswith((".type", ".severity", ".direction")))
                    size += column.total_uncompressed_size * (kind == "BYTE_ARRAY")
        return size


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    return shutil.disk_usage(next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())).free


def _copy(part: Path, place: Path) -> None:
    with open_table(part, [_COUNTS]) as file:
        columns = needed_columns(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            groups = (_with_places(as_batch(read_group(file, part, g, columns))) for g in range(file.num_row_groups))
            first = next(groups, None)
            if first is None:
                return
            with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
                for group in itertools.chain([first], groups):
                    writer.write_batch(group)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def _with_places(group: pa.RecordBatch) -> pa.RecordBatch:
    """A row group whose regions hold, in place of the run lengths, where these are in the column `masks`."""
    lists = group.column("regions")
    structs = lists.values
    names = [field.name for field in structs.type]
    fields = dict(zip(names, map(structs.field, names), strict=True))
    counts = fields["counts"]
    fields["counts"] = counts.indices
    regions = pa.StructArray.from_arrays(list(fields.values()), names, mask=structs.is_null())
    ends = [0, *[len(counts.dictionary)] * group.num_rows]
    placed = {name: group.column(name) for name in group.schema.names}
    placed["regions"] = pa.ListArray.from_arrays(lists.offsets, regions, mask=lists.is_null() if lists.null_count else None)
    placed[_MASKS] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), counts.dictionary)
    return pa.RecordBatch.from_pydict(placed)


def _holds_images(file: pq.ParquetFile) -> bool:
    for g in range(file.num_row_groups):
        group = file.metadata.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            if column.path_in_schema == "png" and column.total_uncompressed_size > _LARGE + group.num_rows:
                return True
    return False


def _largest_column(file: pq.ParquetFile) -> int:
    """Bytes of the texts of a column that is copied in a row group, at most."""
    groups, needed = [file.metadata.row_group(g) for g in range(file.num_row_groups)], {*needed_columns(file)}
    columns = [group.column(c) for group in groups for c in range(group.num_columns)]
    texts = [c for c in columns if c.physical_type == "BYTE_ARRAY" and c.path_in_schema in needed]
    return max((column.total_uncompressed_size for column in texts), default=0)


def as_batch(table: pa.Table) -> pa.RecordBatch:
    """A row group in one piece. Raises ValueError where it is too large for one."""
    pieces = table.combine_chunks().to_batches()
    if len(pieces) > 1:
        raise ValueError(f"a row group of {len(table):,} rows holds more than {_LIMIT:,} bytes of text in a column. {_REMEDY}")
    return pieces[0] if pieces else pa.RecordBatch.from_pylist([], table.schema)


class RowCopy:
    """A copy that is open: rows by row group and place."""

    def __init__(self, path: Path) -> None:
        self._file = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._file)
        self._batch = functools.lru_cache(maxsize=64)(self._reader.get_batch)

    def row(self, group: int, row: int) -> dict[str, Any]:
        """One row, in plain values."""
        found = self._batch(group)
        masks = found.column(_MASKS).values
        values = {name: plain(found.column(name).slice(row, 1))[0] for name in found.schema.names if name != _MASKS}
        regions = [region for region in values["regions"] or () if region is not None]
        places = pa.array([region["counts"] for region in regions], pa.int32())
        for region, counts in zip(regions, masks.take(places).to_pylist(), strict=True):
            region["counts"] = counts
        return values

    def close(self) -> None:
        """Gives the file back."""
        self._batch.cache_clear()
        self._file.close()


def plain(array: pa.Array) -> list[Any]:
    """As `Array.to_pylist`, column by column, which is several times as fast where structs hold structs."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        if len(array) < len(array.dictionary):
            return plain(array.dictionary_decode())
        words = plain(array.dictionary)
        return [None if at is None else words[at] for at in array.indices.to_pylist()]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        rows: list[Any] = [dict(zip(names, values, strict=True)) for values in zip(*map(plain, array.flatten()), strict=True)]
    elif pa.types.is_list(kind):
        inside, at = plain(array.flatten()), 0
        rows = []
        for length in pc.list_value_length(array).fill_null(0).to_pylist():
            rows.append(inside[at : at + length])
            at += length
    else:
        return list(array.to_pylist())
    return [row if there else None for row, there in zip(rows, array.is_valid().to_pylist(), strict=True)] if array.null_count else rows
