"""Copies of tables out of which a row is read by itself: Arrow's own format, not compressed, mapped into memory.

In a Parquet table a row can only be had with its whole row group, unpacked; training visits rows in random order, so that would be done for
each. A copy lies in the data's cache, can be made again at any time, and holds what training reads: no words, hashes or references.
Tables that hold the images themselves are not copied: their row groups are small, and copies would be as large as the data.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
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
    "box",
    "area",
    "distortions",
    *(f"{task}{of}" for task in ("quality", "importance") for of in ("", "_std", "_scale")),
)
_LARGE = 1024  # bytes: images that a table holds are larger


def needed_columns(file: pq.ParquetFile) -> list[str]:
    """The columns of a table that a sample is made of."""
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return [p for p in leaves if p in NEEDED or (p.startswith("regions.") and p.split(".")[3] in _REGIONS)]


def place_of(part: Path, folder: Path) -> Path:
    """Where the copy of a table lies in `folder`; another place once the table is written again: two tables may differ in a value alone,
    which `fingerprint` does not see."""
    written = part.stat()
    return folder / f"{part.stem}-{fingerprint((part,))}-{written.st_mtime_ns:x}-{written.st_ino:x}.arrow"


def make_copies(parts: Sequence[Path], folder: Path) -> None:
    """Copies the tables that are not copied yet, each whole or not at all.

    Raises:
        ConfigError: the folder has no room for them, or cannot be written to.
        ValueError: a table is damaged.
    """
    todo = [(part, place) for part in parts if not (place := place_of(part, folder)).is_file()]
    with tqdm(total=sum(part.stat().st_size for part, _ in todo), unit="B", unit_scale=True, desc="copying the tables", delay=2) as bar:
        for part, place in todo:
            try:
                _copy(part, place)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
                    raise
                raise ConfigError(
                    f"{folder}: the copy of {part} cannot be written there ({os.strerror(error.errno)}). It spares training from unpacking "
                    "a row group for each image: set data.cache to a folder with room, or to '' to train without copies"
                ) from error
            bar.update(part.stat().st_size)


def _copy(part: Path, place: Path) -> None:
    with open_table(part) as file:
        if _holds_images(file):
            return
        columns = needed_columns(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            groups = (read_group(file, part, g, columns) for g in range(file.num_row_groups))
            first = next(groups, None)
            if first is None:
                return
            with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
                for group in itertools.chain([first], groups):
                    writer.write_batch(as_batch(group))
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def _holds_images(file: pq.ParquetFile) -> bool:
    for g in range(file.num_row_groups):
        group = file.metadata.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            if column.path_in_schema == "png" and column.total_uncompressed_size > _LARGE + group.num_rows:
                return True
    return False


def as_batch(table: pa.Table) -> pa.RecordBatch:
    """A row group in one piece."""
    return next(iter(table.combine_chunks().to_batches()), pa.RecordBatch.from_pylist([], table.schema))


class RowCopy:
    """A copy that is open: rows by row group and place."""

    def __init__(self, path: Path) -> None:
        self._file = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._file)
        self._batch = functools.lru_cache(maxsize=64)(self._reader.get_batch)

    def row(self, group: int, row: int) -> pa.RecordBatch:
        """One row."""
        return self._batch(group).slice(row, 1)

    def close(self) -> None:
        """Gives the file back."""
        self._batch.cache_clear()
        self._file.close()


def plain(array: pa.Array) -> list[Any]:
    """As `Array.to_pylist`, column by column, which is several times as fast where structs hold structs."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
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
