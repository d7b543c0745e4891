"""Where the rows of a folder of tables are, and which of them can be used: read once, kept as arrays."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm.auto import tqdm

from components.registry import ConfigError
from datamodules.archives import INSIDE, ImageFiles, leads_out
from datamodules.images import ImageError, is_file
from datamodules.label_faults import LABELS, count_unfit, longest_label
from datamodules.records import GO_ON, SPLITS, Split
from datamodules.row_copies import RowCopy, needed_columns, place_of, plain
from datamodules.tables import open_table, read_group, read_groups

OPEN_TABLES = 32  # held open by one process
TOGETHER = 64  # row groups that are looked through at once
REPEATED = tuple(  # columns whose values are few in a row group
    f"regions.list.element.{name}"
    for name in ("counts", "quality_scale.direction", "importance_scale.direction", "distortions.list.element.type")
)


@dataclass(frozen=True)
class Rows:
    """N images of a folder of tables.

    Attributes:
        parts: the tables.
        part, group, row: (N,) which table, which of its row groups, which row of that.
        split: (N,) index into `SPLITS`; -1 for none, of an image that is left out.
        regions: (N,) how many regions the image has.
        readable: (N,) whether its image is where the table says; images without regions are not.
        left_out: why images are not readable, and how many.
        unfit: scores and standard deviations that cannot be of their scale, and distortions that are none: `from_row` takes them for
            unknown.
        most_types: the most distortions that the label of one region names.
        unmatched: what was to be left out and is not there: ids of images, and rows in words.
    """

    parts: tuple[Path, ...]
    part: NDArray[np.int32]
    group: NDArray[np.int32]
    row: NDArray[np.int32]
    split: NDArray[np.int8]
    regions: NDArray[np.int32]
    readable: NDArray[np.bool_]
    left_out: Mapping[str, int]
    unfit: int = 0
    most_types: int = 0
    unmatched: tuple[str, ...] = ()

    def of(self, split: Split) -> NDArray[np.int64]:
        """(n,) which images of a split can be used, in the tables' order."""
        return np.flatnonzero(self.readable & (self.split == SPLITS.index(split)))

    def coverage(self) -> str:
        """What can be used of how much, in a sentence, and why the rest cannot."""
        whole, good = len(self.readable), int(self.readable.sum())
        regions = int(self.regions[self.readable].sum())
        text = f"{good:,} of {whole:,} images ({good / max(whole, 1):.1%}) can be used, with {regions:,} regions"
        reasons = [f"{why} ({count:,} image{'s' if count > 1 else ''})" for why, count in self.left_out.items()]
        text += f"; left out: {'; '.join(reasons)}" if reasons else ""
        labels = f"{self.unfit:,} labels (scores or standard deviations that cannot be of their scale, unknown distortions)"
        return text + (f"; {labels} are taken for unknown: `python prepare.py validate` lists them" if self.unfit else "")


def parts_of(root: Path) -> tuple[Path, ...]:
    """The Parquet files in a folder and its subfolders, sorted; those with a leading dot are drafts.

    Raises:
        ConfigError: there are none.
    """
    parts = tuple(sorted(p for p in root.rglob("*.parquet") if not any(n.startswith(".") for n in p.relative_to(root).parts)))
    if not parts:
        what = "holds no Parquet file" if root.is_dir() else "is no folder"
        raise ConfigError(f"{root} {what}: `python prepare.py index` and `synthesize` make data of the form that docs/data.md describes")
    return parts


def scan(
    parts: Sequence[Path], files: ImageFiles, exclude: Collection[str] = (), rows_of: Mapping[Path, Collection[int]] | None = None
) -> Rows:
    """Reads what training must know of each row, in constant memory for each, and looks for its image; images are not opened.

    Args:
        exclude: ids of images to leave out. rows_of: numbers of rows to leave out, by their table.

    Raises:
        ConfigError: rows of no split, or of one source in two splits, that are not left out.
        ValueError: see `open_table`.
    """
    found: list[tuple[NDArray[Any], ...]] = []
    sources: dict[str, str] = {}
    why: Counter[str] = Counter()
    unfit, most, unwanted, seen = 0, 0, pa.array(sorted(exclude), pa.string()), set[str]()
    absent = {part: set(numbers) for part, numbers in (rows_of or {}).items()}
    for number, part in enumerate(tqdm(parts, unit="table", desc="reading the tables", delay=2)):
        count = 0
        for table, groups, rows in _columns(part):
            by_name = pc.is_in(table["id"], value_set=unwanted)
            seen.update(table["id"].filter(by_name).to_pylist() if len(unwanted) else ())
            left = by_name.to_numpy() | np.isin(np.arange(count, count + len(table)), sorted(absent.get(part, ())))
            count += len(table)
            named = table.select(["source", "split"])
            _check_splits(named.filter(pa.array(~left)) if left.any() else named, sources, part)
            regions = pc.list_value_length(table["regions"]).fill_null(0).to_numpy().astype(np.int32)
            reasons = _reasons(table["path"].fill_null("").to_pylist(), files)
            reasons = np.where(left, "excluded by name", reasons)
            reasons = np.where((regions == 0) & (reasons == ""), "without regions", reasons)
            why.update(r for r in reasons.tolist() if r)
            split = pc.index_in(table["split"], pa.array(SPLITS)).fill_null(-1).to_numpy().astype(np.int8)
            unfit += count_unfit(table["regions"])
            most = max(most, longest_label(table["regions"]))
            found.append((np.full(len(table), number, np.int32), groups, rows, split, regions, reasons == ""))
        absent[part] = {row for row in absent.get(part, ()) if not 0 <= row < count}
    part_of, group, row, split_of, held, readable = (np.concatenate(c) for c in zip(*found, strict=True))
    rows_absent = [f"row {number} of {part}" for part, numbers in absent.items() for number in sorted(numbers)]
    unmatched = (*sorted({*exclude} - seen), *rows_absent)
    return Rows(tuple(parts), part_of, group, row, split_of, held, readable, dict(sorted(why.items())), unfit, most, unmatched)


def _columns(part: Path) -> Iterator[tuple[pa.Table, NDArray[np.int32], NDArray[np.int32]]]:
    """What must be known of a table's rows, and their row groups and places in these; some row groups at a time."""
    wanted = ["id", "source", "split", "path", *LABELS]
    with open_table(part) as file:
        if not file.num_row_groups:
            yield file.schema_arrow.empty_table(), np.empty(0, np.int32), np.empty(0, np.int32)
        for first in range(0, file.num_row_groups, TOGETHER):
            groups = range(first, min(first + TOGETHER, file.num_row_groups))
            sizes = [file.metadata.row_group(group).num_rows for group in groups]
            places = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
            yield read_groups(file, part, groups, wanted), np.repeat(np.array(groups, np.int32), sizes), places


def _check_splits(table: pa.Table, sources: dict[str, str], part: Path) -> None:
    """`sources` holds the split of each source seen so far."""
    pairs = table.group_by(["source", "split"]).aggregate([]).to_pylist()
    for pair in pairs:
        source, split = pair["source"], pair["split"]
        if split not in SPLITS:
            raise ConfigError(f"{part}: an image of source {source!r} is in split {split!r}, allowed are {', '.join(SPLITS)}. {GO_ON}")
        if sources.setdefault(source, split) != split:
            raise ConfigError(
                f"{part}: source {source!r} is in the splits {sources[source]} and {split}: what is tested would have been trained on. "
                f"Give all images of a source one split. {GO_ON}"
            )


def _reasons(paths: Sequence[str], files: ImageFiles) -> NDArray[np.str_]:
    """(N,) why the image at each path is not there; "" where it is, or where it is embedded."""
    reasons = np.full(len(paths), "", dtype=object)
    members: dict[str, list[tuple[int, str]]] = {}
    for i, path in enumerate(paths):
        archive, inside, member = path.partition(INSIDE)
        if inside:
            members.setdefault(archive, []).append((i, member))
        elif path and leads_out(path):
            reasons[i] = "path outside the folder"
        elif path and not is_file(files.root / path):
            reasons[i] = "file missing"
    for archive, asked in members.items():
        places = np.array([i for i, _ in asked])
        try:
            reasons[places[files.missing(archive, [m for _, m in asked])]] = f"{archive} lacks them"
        except ImageError:
            here = not leads_out(archive)
            found = "is damaged" if here and (files.root / archive).is_file() else "is missing" if here else "is outside the folder"
            reasons[places] = f"{archive} {found}"
    return reasons


class TableFiles:
    """Reads single rows of tables. It can be pickled; each process opens a table when it first reads from it.

    Args:
        copies: folder of `datamodules.row_copies`; a table without a copy there is read row group by row group.
        kept: row groups that stay in memory, so that neighbours are read once.
    """

    def __init__(self, parts: Sequence[Path], copies: Path | None = None, kept: int = 2) -> None:
        self.parts, self.copies, self.kept = tuple(parts), copies, kept
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "copies": self.copies, "kept": self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def row(self, part: int, group: int, row: int) -> dict[str, Any]:
        """A row as `from_row` takes it, without the words of its regions, its hash and its reference.

        Raises:
            ValueError: the table is damaged.
            OSError: the table cannot be opened or read, which says nothing of what it holds.
        """
        opened = self._opened(part)
        if isinstance(opened, RowCopy):
            return opened.row(group, row)
        key = (part, group)
        if key not in self._groups:
            if len(self._groups) >= self.kept:
                self._groups.popitem(last=False)
            file, columns = opened
            self._groups[key] = read_group(file, self.parts[part], group, columns)
        self._groups.move_to_end(key)
        (found,) = self._groups[key].slice(row, 1).to_batches()
        return {name: plain(column)[0] for name, column in zip(found.schema.names, found.columns, strict=True)}

    def _forget(self) -> None:
        self._open: OrderedDict[int, RowCopy | tuple[pq.ParquetFile, list[str]]] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def _opened(self, part: int) -> RowCopy | tuple[pq.ParquetFile, list[str]]:
        if part not in self._open:
            if len(self._open) >= OPEN_TABLES:
                _, last = self._open.popitem(last=False)
                (last if isinstance(last, RowCopy) else last[0]).close()
            self._open[part] = self._newly(part)
        self._open.move_to_end(part)
        return self._open[part]

    def _newly(self, part: int) -> RowCopy | tuple[pq.ParquetFile, list[str]]:
        copy = None if self.copies is None else place_of(self.parts[part], self.copies)
        if copy is not None and copy.is_file():
            return RowCopy(copy)
        file = open_table(self.parts[part], REPEATED)
        return file, needed_columns(file)
