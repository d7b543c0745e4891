"""Looks for everything that is wrong with data, and says where: each sort of problem counted, its first finds located."""

from __future__ import annotations

import functools
import hashlib
import itertools
import statistics
import zlib
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from components import rle
from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError
from datamodules.archives import INSIDE, ImageFiles, leads_out
from datamodules.duplicates import Copies, Elsewhere
from datamodules.findings import Report
from datamodules.images import ImageError, decode_image, is_file
from datamodules.records import SPLITS, UNIT, Scale
from datamodules.row_copies import plain
from datamodules.rows import REPEATED, parts_of
from datamodules.tables import open_table, read_group

SAMPLED = 100_000  # standard deviations whose median is taken
FEW, SMALL, LARGE = (
    10,
    0.065,
    0.4,
)  # so many standard deviations whose median is no share of the scale between these were hardly given on it


class Spreads:
    """Standard deviations of each task and scale, whose median shows whether they were rescaled when their scores were."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._found: dict[tuple[str, Scale], list[float]] = defaultdict(list)

    def add(self, task: str, scale: Scale, std: float) -> None:
        """A standard deviation, as it was given on the scale. Where opinions agree in full it tells nothing."""
        found = self._found[task, scale]
        if std > 0 and len(found) < SAMPLED:
            found.append(std)

    def finish(self) -> None:
        """Adds what is found to the report."""
        for (task, scale), found in self._found.items():
            if len(found) < FEW:
                continue
            median = statistics.median(found)
            share = median / (scale.high - scale.low)
            if not SMALL < share < LARGE:
                said = f"the median of {len(found):,} is {median:g} on {scale.low:g} to {scale.high:g}"
                self.report.add("std very small" if share <= SMALL else "std very large", f"{task}_std", said)


def tests_of(root: Path, files: ImageFiles) -> Elsewhere:
    """The test images of a folder of tables, by their bytes, or where they are not there by their hashes.

    Raises:
        ConfigError: no tables, no test image in them, or a row of no split, which may hide one.
        ValueError: a damaged table.
    """
    found = Elsewhere()
    for part in tqdm(parts_of(root), unit="table", desc=f"reading test images of {root}", delay=2):
        for place, row in _rows(part, ["id", "split", "path", "hash", "png"]):
            if row["split"] not in SPLITS:
                said = f"{part} row {place}, image {row['id']!r} is in split {row['split']!r}, allowed are {', '.join(SPLITS)}"
                raise ConfigError(
                    f"{root}: which images are of its test is unsure, so nothing can be kept apart from them. Mend it: {said}"
                )
            if row["split"] != "test":
                continue
            try:
                marks = {_sha256(row["png"] or files.read(row["path"] or ""))}
            except ImageError:
                marks = {row["hash"] or ""} - {""}
            found.add(marks, f"{part} row {place}, image {row['id']!r}")
    if not found.images:
        raise ConfigError(f"{root} has no test image: there is nothing to keep apart from")
    return found


def validate(root: Path, files: ImageFiles, decode: bool = False, elsewhere: Elsewhere | None = None) -> Report:
    """Checks every row of the tables in a folder.

    Args:
        decode: reads and decodes every image too.
        elsewhere: test images that none of train and val may be; what is not read is compared by its hash.
    """
    check = _Check(root, files, decode, elsewhere)
    parts = parts_of(root)
    with tqdm(total=_rows_in(parts), unit="image", desc="validating") as bar:
        for part in parts:
            check.begin(part)
            try:
                for place, row in _rows(part):
                    check.image(row, place)
                    bar.update()
            except ValueError as error:
                check.report.add("table", str(part.relative_to(root)), str(error))
    check.finish()
    return check.report


def _rows_in(parts: tuple[Path, ...]) -> int:
    count = 0
    for part in parts:
        try:
            with open_table(part) as file:
                count += file.metadata.num_rows
        except ValueError:
            continue  # told when it is its turn
    return count


def _rows(part: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers; what repeats in a row group is one object in all of its rows."""
    with open_table(part, REPEATED) as file:
        place = 0
        for group in range(file.num_row_groups):
            for batch in read_group(file, part, group, columns).to_batches():
                for values in zip(*map(plain, batch.columns), strict=True):
                    yield place, dict(zip(batch.schema.names, values, strict=True))
                    place += 1


def _repeated(marks: array[int]) -> frozenset[int]:
    """Those that stand several times; sorts them in place."""
    if not marks:
        return frozenset()
    found = np.frombuffer(marks, np.int64)
    found.sort()
    return frozenset(found[1:][found[1:] == found[:-1]].tolist())


class _Check:
    """Goes over rows one by one, and remembers what must be compared between them: of an image its number, hashes and split. Where a row is
    and what its image is called is read again, of those that are reported."""

    def __init__(self, root: Path, files: ImageFiles, decode: bool, elsewhere: Elsewhere | None) -> None:
        self.root, self.files, self.decode, self.report = root, files, decode, Report()
        self._parts: list[Path] = []
        self._names: list[str] = []  # of the tables, relative to the folder
        self._starts: list[int] = []  # number of each table's first image
        self._ids, self._region_ids = array("q"), array("q")  # hashes: of 33 million ids, a quarter of a gigabyte
        self._left: dict[int, str] = {}  # why training must do without images, by their numbers
        self._splits: dict[str | None, str] = {}
        self._crossing: set[str] = set()
        self._copies, self._spreads = Copies(self.report, self._where, self._leave_out, elsewhere), Spreads(self.report)
        self._references: dict[str, str] = {}  # path -> what its bytes are known by, "" where only reading would tell
        self._versions: dict[str, tuple[str, str, str]] = {}  # by reference: place, source and split of the first version
        self._archives: dict[str, str] = {}

    def begin(self, part: Path) -> None:
        """The rows that follow are of this table."""
        self._parts.append(part)
        self._names.append(part.relative_to(self.root).as_posix())
        self._starts.append(self.report.images)

    def image(self, row: Mapping[str, Any], place: int) -> None:
        """Checks one row, by its place in its table."""
        report, number = self.report, self.report.images
        report.images += 1
        where = _said(self._names[-1], place, row["id"])
        if row["id"]:
            self._ids.append(hash(row["id"]))
        else:
            report.add("id missing", where)
        self._split(row, number, where)
        self._pixels(row, number, where)
        self._reference(row, where)
        regions = row["regions"] or []
        if not regions:
            report.add("no regions", where)
            self._leave_out(number, "no regions")
        drawn: dict[str, str] = {}  # the regions of masks
        for r, region in enumerate(regions):
            report.regions += 1
            if region is None:
                report.add("mask", f"{where}, region {r}", "the region is null")
                self._leave_out(number, "mask")
                continue
            here = f"{where}, region {region['id'] if region['id'] else r!r}"
            if region["id"]:
                self._region_ids.append(hash(region["id"]))
            else:
                report.add("id missing", here)
            wrong = self._mask(region, row["height"], row["width"], here)
            if wrong:
                self._leave_out(number, wrong)
            elif (other := drawn.setdefault(region["counts"], here)) != here:
                report.add("region twice", here, f"its mask is that of {other}")
            for task in ("quality", "importance"):
                self._score(number, region, task, here)
            self._distortions(region["distortions"], here)

    def finish(self) -> None:
        """Adds what shows in all rows together only, and says by name or by row what training must leave out."""
        self._spreads.finish()
        if not (self.report.images or self.report.counts["table"]):
            self.report.add("no images", f"{len(self._parts):,} tables", "none of them has a row")
        twice = self._tell_twice()
        named = self._named(self._left)
        for number, kind in self._left.items():
            image, split = named[number]
            self.report.left[str(split)] += 1
            if image and image not in twice:
                self.report.leave_out(image, kind)
            else:
                self.report.rows[self._place(number)] = kind
        self.report.tell_empty_splits()

    def _tell_twice(self) -> set[str]:
        """Reads ids again if there are hashes that stand twice: every row but the first of an image's id is told, and every region of one.
        Returns the images' ids."""
        images, regions = _repeated(self._ids), _repeated(self._region_ids)
        seen, twice = set[str](), set[str]()
        for part, name, start, end in zip(self._parts, self._names, self._starts, self._ends(), strict=True) if images or regions else ():
            for place, row in itertools.islice(_rows(part, ["id", "regions.list.element.id"]), end - start):
                if row["id"] in seen:
                    self.report.add("id twice", _said(name, place, row["id"]))
                    twice.add(row["id"])
                elif row["id"] and hash(row["id"]) in images:
                    seen.add(row["id"])
                for region in row["regions"] or ():
                    if region is not None and region["id"] and hash(region["id"]) in regions:
                        self.report.add("id twice", f"{_said(name, place, row['id'])}, region {region['id']!r}")
        return twice

    def _leave_out(self, number: int, kind: str) -> None:
        self._left.setdefault(number, kind)

    def _where(self, number: int) -> str:
        return _said(*self._place(number), self._named([number])[number][0])

    def _place(self, number: int) -> tuple[str, int]:
        """The table of an image, and its row there."""
        table = bisect_right(self._starts, number) - 1
        return self._names[table], number - self._starts[table]

    def _ends(self) -> list[int]:
        """The number behind that of each table's last image."""
        return [*self._starts[1:], self.report.images]

    def _named(self, numbers: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
        """The ids and splits of images, read again, from the row groups that hold them alone."""
        wanted, found = np.array(sorted(numbers), np.int64), dict[int, tuple[str | None, str | None]]()
        for part, first, behind in zip(self._parts, self._starts, self._ends(), strict=True):
            ours = wanted[slice(*np.searchsorted(wanted, [first, behind]))]
            if not len(ours):
                continue
            with open_table(part) as file:
                start = first
                for group in range(file.num_row_groups):
                    end = start + file.metadata.row_group(group).num_rows
                    here = ours[slice(*np.searchsorted(ours, [start, end]))]
                    if len(here):
                        rows = read_group(file, part, group, ["id", "split"]).take(here - start)
                        pairs = zip(rows["id"].to_pylist(), rows["split"].to_pylist(), strict=True)
                        found.update(zip(here.tolist(), pairs, strict=True))
                    start = end
        return found

    def _split(self, row: Mapping[str, Any], number: int, where: str) -> None:
        """Images without a source may be of one, so that they are in one split, too, or the later ones left out."""
        split, source = row["split"], row["source"]
        self.report.splits[str(split)] += 1
        if split not in SPLITS:
            self.report.add("split", where, repr(split))
            self._leave_out(number, "split")
        if not source:
            self.report.add("source missing", where)
        if split in SPLITS and self._splits.setdefault(source, split) != split:
            self._leave_out(number, "source in two splits" if source else "source missing")
            if source and source not in self._crossing:
                self._crossing.add(source)
                self.report.add("source in two splits", where, f"source {source!r} is in {self._splits[source]} and in {split}")

    def _pixels(self, row: Mapping[str, Any], number: int, where: str) -> None:
        """Whether the image is there, is what its hash says, and stands once; with `decode`, whether it can be read."""
        path, data, report = row["path"] or "", row["png"] or b"", self.report
        if leads_out(path):
            report.add("path", where, path)
            if not data:
                self._leave_out(number, "path")
                return
        if not data and not self._is_there(path, where):
            self._leave_out(number, "image missing")
            return
        marks = {_sha256(data), _crc32(data)} if data else {self._checksum(path)} - {""}
        if self.decode:
            try:
                data = data or self.files.read(path)
                marks |= {_sha256(data)}
                height, width = decode_image(data, path or str(row["id"])).shape[:2]
                if (height, width) != (row["height"], row["width"]):
                    said = f"{width} x {height} pixels (width x height), its row says {row['width']} x {row['height']}"
                    report.add("image of another size", where, said)
                    self._leave_out(number, "image of another size")
            except ImageError as error:
                report.add("image unreadable", where, str(error))
                self._leave_out(number, "image unreadable")
        self._same(marks, row, number, where)

    def _same(self, marks: set[str], row: Mapping[str, Any], number: int, where: str) -> None:
        """Whether an image's bytes, known by `marks`, are those of its row's hash, and those of no other row."""
        given, path = row["hash"] or "", row["path"] or ""
        ours = next((mark for mark in marks if mark.partition(":")[0] == given.partition(":")[0]), "")
        if given and ours and ours != given:
            self.report.add("image changed", where, f"it has {ours}, its row {given}")
        if given and not ours:
            marks = {*marks, given}
        read = {mark for mark in marks if mark.startswith("sha256:")} if self.decode else set()  # enough, once every image is read
        self._copies.add(number, read or marks or {f"path:{path}"}, row["split"], where)

    def _reference(self, row: Mapping[str, Any], where: str) -> None:
        """Whether the clean image is there, and its versions are of one source, though it may lie there under several names."""
        path = row["reference"] or ""
        if not path:
            return
        if path not in self._references:
            self._references[path] = self._mark_of_reference(path, where)
        for mark in {path, self._references[path] or path}:
            place, source, split = self._versions.setdefault(mark, (where, row["source"], row["split"]))
            if source != row["source"] and split != row["split"]:
                said = f"{path}: source {row['source']!r} in {row['split']}, and source {source!r} in {split} at {place}"
                self.report.add("reference in several sources", where, said)
                return

    def _mark_of_reference(self, path: str, where: str) -> str:
        try:
            return self._checksum(path) or (_sha256(self.files.read(path)) if self.decode else self._found(path))
        except ImageError as error:
            self.report.add("reference missing", where, str(error))
            return ""

    def _found(self, path: str) -> str:
        """ "" for a file that is there; raises ImageError where it is not."""
        archive, inside, member = path.partition(INSIDE)
        there = not self.files.missing(archive, [member])[0] if inside else is_file(self.files.place(path))
        if not there:
            raise ImageError(f"{path} is not there")
        return ""

    def _is_there(self, path: str, where: str) -> bool:
        archive, inside, member = path.partition(INSIDE)
        if not inside:
            there = bool(path) and is_file(self.files.root / path)
            if not there:
                self.report.add("image missing", where, path or "neither a path nor bytes")
            return there
        if archive not in self._archives:
            try:
                self.files.directory(archive)
                self._archives[archive] = ""
            except ImageError as error:
                self._archives[archive] = str(error)
                self.report.add("archive missing", archive, str(error))
        if self._archives[archive]:
            self.report.add("image missing", where, path)
            return False
        if self.files.missing(archive, [member])[0]:
            self.report.add("image missing", where, path)
            return False
        return True

    def _checksum(self, path: str) -> str:
        """Of a zip's member, from the archive's directory; "" where only reading the image would tell."""
        archive, inside, member = path.partition(INSIDE)
        return self.files.checksum(archive, member) if inside else ""

    def _mask(self, region: Mapping[str, Any], height: int, width: int, where: str) -> str:
        """The sort of problem that makes the mask none of an image of this size, or an empty one; box and area are compared with it where
        they are given."""
        wrong, box, area = _measure(region["counts"], height, width)
        if wrong:
            self.report.add(wrong[0], where, wrong[1])
            return wrong[0]
        given = None if region["box"] is None else tuple(region["box"].values())
        if given not in (None, box) or region["area"] not in (None, area):
            self.report.add("box or area", where, f"box {given}, area {region['area']}; the mask's are {box} and {area}")
        return ""

    def _score(self, number: int, region: Mapping[str, Any], task: str, where: str) -> None:
        value, std = region[task], region[f"{task}_std"]
        self.report.labelled[task] += value is not None
        if std is not None:
            self.report.labelled[f"{task}_std"] += 1
        try:
            given = region[f"{task}_scale"]
            scale = UNIT if given is None else _scale(given["low"], given["high"], given["direction"])
        except (TypeError, ValueError) as error:
            self.report.add("scale", where, f"{task}: {error}")
            self._leave_out(number, "scale")
            return
        of = f"on {scale.low:g} to {scale.high:g}"
        if value is not None and not scale.holds(value):
            self.report.add("label out of scale", where, f"{task} {value:g} {of}")
        elif std is not None and value is None:
            self.report.add("std without score", where, f"{task}_std {std:g}")
        elif std is not None and value is not None:
            largest = scale.largest_std(value)
            if not 0 <= std <= largest:
                self.report.add(
                    "std not of the scale", where, f"{task} {value:g} with a standard deviation of {std:g} {of}; at most {largest:.3g}"
                )
            self._spreads.add(task, scale, std)

    def _distortions(self, pairs: list[Mapping[str, Any] | None] | None, where: str) -> None:
        if pairs is None:
            return
        self.report.labelled["distortions"] += 1
        if None in pairs:
            self.report.add("distortion", where, "a pair of type and severity is null")
        named = [pair for pair in pairs if pair is not None]
        kinds = [pair["type"] for pair in named]
        for kind in sorted({str(k) for k in kinds if k not in DISTORTION_TYPES or kinds.count(k) > 1}):
            self.report.add("distortion", where, kind)
        for severity in [pair["severity"] for pair in named if pair["severity"] not in SEVERITIES]:
            self.report.add("severity", where, repr(severity))


def _said(table: str, row: int, image: str | None) -> str:
    return f"{table} row {row}, image {image!r}"


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _crc32(data: bytes) -> str:
    """As `ImageFiles.checksum` has it of a member of a zip archive."""
    return f"crc32:{zlib.crc32(data):08x}:{len(data)}"


@functools.lru_cache(maxsize=2**10)
def _scale(low: Any, high: Any, direction: Any) -> Scale:
    return Scale(low, high, direction)


@functools.lru_cache(maxsize=2**12)  # a mask is that of each of an image's distorted versions
def _measure(counts: Any, height: Any, width: Any) -> tuple[tuple[str, str] | None, tuple[int, ...], int]:
    """(what is wrong, box, area)."""
    code = {"size": [height, width], "counts": counts}
    try:
        area = rle.area(code)
    except rle.RegionError as error:
        return ("mask", str(error)), (), 0
    return (None, rle.box(code), area) if area else (("empty region", ""), (), 0)
