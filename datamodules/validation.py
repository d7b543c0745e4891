"""Looks for everything that is wrong with data, and says where: each sort of problem counted, its first finds located."""

from __future__ import annotations

import functools
import hashlib
import statistics
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from components import rle
from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError
from datamodules.archives import INSIDE, ImageFiles, leads_out
from datamodules.images import ImageError, decode_image, is_file
from datamodules.records import SPLITS, UNIT, Scale
from datamodules.rows import parts_of
from datamodules.tables import open_table, read_group

SHOWN = 5  # finds of each sort that are named
SAMPLED = 100_000  # standard deviations whose median is taken
FEW, SMALL, LARGE = (
    10,
    0.065,
    0.4,
)  # so many standard deviations whose median is no share of the scale between these were hardly given on it

Weight = Literal["error", "warning"]
KINDS: dict[str, tuple[Weight, str]] = {
    "table": ("error", "a table is damaged or of another schema"),
    "column": ("error", "a column of a list is unknown"),
    "row": ("error", "a row of a list has no image, no id, not exactly one region, or other cells than its header"),
    "id missing": ("error", "an image or a region has no id"),
    "id twice": ("error", "an id stands twice"),
    "split": ("error", f"a split is none of {', '.join(SPLITS)}"),
    "split empty": ("warning", "no image of a split is left: nothing to train on, to choose a model by, or to test on"),
    "source missing": ("error", "an image has no source, so its split cannot be trusted"),
    "source in two splits": ("error", "images of one source are in several splits"),
    "group": ("error", "an image is in several groups"),
    "too few groups": ("error", "there are too few groups to deal them to splits"),
    "archive missing": ("error", "an archive is missing or damaged"),
    "path": ("error", "an image's path is absolute or leaves the data's folder, and is not read: write it relative to that folder"),
    "image missing": ("error", "an image is not where the table says"),
    "image unreadable": ("error", "an image cannot be decoded"),
    "image changed": ("error", "an image's bytes are not those that the table's hash was taken of"),
    "image of another size": ("error", "an image has another size than its row"),
    "image twice in splits": ("error", "the same image stands in several splits"),
    "image in another test": ("error", "an image of train or val is a test image of the data that this should keep apart from"),
    "reference in several sources": ("error", "versions of one clean image are of several sources, and these in several splits"),
    "reference missing": ("warning", "a clean image is not where the table says; training does without"),
    "image twice": ("warning", "the same image stands twice in a split"),
    "no regions": ("warning", "an image has no regions"),
    "mask": ("error", "a mask is malformed, or of another size than its image"),
    "empty region": ("error", "a mask covers no pixel"),
    "region": ("error", "a box or a polygon is none, or lies outside its image"),
    "region cut": ("warning", "a box or a polygon reaches out of its image, and is cut to it"),
    "opinions": ("error", "rows of one region show different places, or have standard deviations of their own"),
    "box or area": ("error", "a box or an area is not the mask's"),
    "scale": ("error", "a scale is none"),
    "number": ("error", "a score or a standard deviation is no number"),
    "label out of scale": ("error", "a score lies outside its scale"),
    "std not of the scale": ("error", "a standard deviation is negative, or larger than its scale allows: was it rescaled with the score?"),
    "std very small": ("warning", "the standard deviations of a scale are very small for it: were they rescaled and the scores not?"),
    "std very large": ("warning", "the standard deviations of a scale are very large for it: were the scores rescaled and they not?"),
    "std without score": ("error", "a standard deviation stands without its score"),
    "distortion": ("error", f"a distortion is not one of {', '.join(DISTORTION_TYPES)}, or named twice for a region"),
    "severity": ("error", f"a severity is none of {', '.join(SEVERITIES)}"),
}  # fmt: skip


class Place(NamedTuple):
    """A row of a table.

    Attributes:
        part: the table, relative to the folder. row: its number there. image, split: what it says it is.
    """

    part: str
    row: int
    image: str | None
    split: str | None


@dataclass
class Report:
    """What was found.

    Attributes:
        counts: by sort of problem. finds: the first of each sort, as (where, what).
        unusable: ids of images that training must leave out, and the first sort of problem that makes them so: they are not there,
            cannot be read, their masks cannot, their split is none or another than that of their source, or they are test images.
        rows: the same of rows of tables that no id tells apart, since they have none or one that stands twice.
        images, regions: in all; splits: images by split; left: of these, those that training must leave out; labelled: regions by what
            is known of them.
        listed: rows of a list. lost: of these, those that training must leave out, by the reason.
        apart: what was compared with other data, in a sentence; "" for nothing.
    """

    counts: Counter[str] = field(default_factory=Counter)
    finds: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    unusable: dict[str, str] = field(default_factory=dict)
    rows: dict[Place, str] = field(default_factory=dict)
    images: int = 0
    regions: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    listed: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    apart: str = ""

    def add(self, kind: str, where: str, what: str = "") -> None:
        """Counts a find, and keeps it if it is among the first of its sort."""
        self.counts[kind] += 1
        if len(self.finds[kind]) < SHOWN:
            self.finds[kind].append((where, what))

    def leave_out(self, image: str | Place, kind: str) -> None:
        """Training must do without an image, or a row."""
        if isinstance(image, Place):
            self.rows.setdefault(image, kind)
        else:
            self.unusable.setdefault(image, kind)

    def name_rows(self, twice: Collection[str | None]) -> None:
        """Rows that are left out go by their image's id, where it is theirs alone.

        Args:
            twice: ids that several rows have.
        """
        self.left.update(str(place.split) for place in self.rows)
        for place in [place for place in self.rows if place.image and place.image not in twice]:
            self.unusable[str(place.image)] = self.rows.pop(place)

    def tell_empty_splits(self) -> None:
        """Warns of splits whose images must all be left out, once it is known which."""
        for split in SPLITS:
            if 0 < self.splits[split] <= self.left[split]:
                self.add("split empty", split, f"all of its {self.splits[split]:,} images must be left out")

    @property
    def errors(self) -> int:
        """Finds that are no mere warnings."""
        return sum(n for kind, n in self.counts.items() if KINDS[kind][0] == "error")

    @property
    def usable(self) -> int:
        """Images that training can use. Rows of a list that name no image are left out under the name "", which is none."""
        return self.images - len(self.rows) - sum(map(bool, self.unusable))

    @property
    def reasons(self) -> Counter[str]:
        """Why images are left out, and how many."""
        return Counter([*self.unusable.values(), *self.rows.values()])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        problems = [
            {"kind": k, "weight": KINDS[k][0], "meaning": KINDS[k][1], "count": self.counts[k], "first": [list(f) for f in self.finds[k]]}
            for k in KINDS
            if self.counts[k]
        ]
        coverage = {
            "images": self.images,
            "usable": self.usable,
            "left_out": dict(self.reasons),
            "regions": self.regions,
            "splits": dict(self.splits),
            "usable_splits": self._usable_splits(),
            "labelled": dict(self.labelled),
        }
        if self.listed:
            coverage["rows"] = {"listed": self.listed, "usable": self.listed - self.lost.total(), "left_out": dict(self.lost)}
        rows = [[place.part, place.row] for place in self.rows]
        left_out = {"unusable": list(self.unusable), **({"unusable_rows": rows} if rows else {})}
        return {"errors": self.errors, "problems": problems, "coverage": coverage, **left_out}

    def text(self) -> str:
        """For people: the problems, then how much of the data is whole."""
        lines = []
        for kind in (k for k in KINDS if self.counts[k]):
            lines.append(f"{KINDS[kind][0]}: {kind}: {self.counts[kind]:,} ({KINDS[kind][1]})")
            lines += [f"    {where}{f': {what}' if what else ''}" for where, what in self.finds[kind]]
            more = self.counts[kind] - len(self.finds[kind])
            lines += [f"    and {more:,} more"] if more else []
        splits = ", ".join(f"{n:,} {s}" for s, n in self._usable_splits().items())
        lines.append(f"{_share(self.usable, self.images, 'images')} can be used ({splits}){_because(self.reasons)}")
        if self.listed:
            rows = self.listed - self.lost.total()
            lines.append(f"{_share(rows, self.listed, 'rows of the list')} can be used{_because(self.lost)}")
        lines += [self.apart] if self.apart else []
        known = ", ".join(f"{name} {n / max(self.regions, 1):.1%}" for name, n in self.labelled.items())
        return "\n".join([*lines, f"{self.regions:,} regions; known of them: {known or 'nothing'}"])

    def _usable_splits(self) -> dict[str, int]:
        """Images that training can use, by split; what is no split has none."""
        return {split: count - self.left[split] for split, count in self.splits.items() if split in SPLITS or count > self.left[split]}


def _share(part: int, whole: int, what: str) -> str:
    return f"{part:,} of {whole:,} {what} ({part / max(whole, 1):.1%})"


def _because(reasons: Counter[str]) -> str:
    return f"; left out: {', '.join(f'{why} {count:,}' for why, count in reasons.items())}" if reasons else ""


@dataclass
class Elsewhere:
    """The test images of other data.

    Attributes:
        places: by whatever tells an image's bytes apart.
        images: how many. unknown: of these, those that are not there and have no hash.
    """

    places: dict[str, str] = field(default_factory=dict)
    images: int = 0
    unknown: int = 0

    def add(self, marks: Collection[str], where: str) -> None:
        """A test image; `marks` are none where nothing tells it apart."""
        self.images += 1
        self.unknown += not marks
        self.places |= dict.fromkeys(marks, where)

    def text(self, name: str) -> str:
        """How many were compared with."""
        known = _share(self.images - self.unknown, self.images, f"test images of {name}")
        return f"compared with {known}" + ("; the others are not there, and have no hash" if self.unknown else "")


class Copy(NamedTuple):
    """An image that may stand elsewhere, too."""

    where: str
    split: str
    image: str | Place


class Copies:
    """Finds what stands twice. Of copies in several splits those are left out that are trained on; if a test image is among them, those
    of val too.

    Args:
        elsewhere: test images that none of train and val may be.
    """

    def __init__(self, report: Report, elsewhere: Elsewhere | None = None) -> None:
        self.report = report
        self._first: dict[str, Copy] = {}
        self._more: dict[str, list[Copy]] = defaultdict(list)
        self._elsewhere = elsewhere or Elsewhere()

    def add(self, image: str | Place, marks: Collection[str], split: str, where: str) -> None:
        """An image of a split, by whatever tells its bytes apart; two images are one if they share a mark."""
        other = next((self._elsewhere.places[mark] for mark in marks if mark in self._elsewhere.places), None)
        if other is not None and split != "test":
            self.report.add("image in another test", where, f"also at {other}")
            self.report.leave_out(image, "image in another test")
        ours = Copy(where, split, image)
        found = [copy for mark in marks if mark in self._first for copy in (self._first[mark], *self._more.get(mark, ()))]
        for mark in marks:
            if self._first.setdefault(mark, ours) is not ours:
                self._more[mark].append(ours)
        if found:
            kind = "image twice" if split == found[0].split else "image twice in splits"
            self.report.add(kind, where, f"also at {found[0].where}")
            copies = [copy for copy in (*found, ours) if copy.split in SPLITS]
            last = max((SPLITS.index(copy.split) for copy in copies), default=0)
            for copy in (copy for copy in copies if SPLITS.index(copy.split) < last):
                self.report.leave_out(copy.image, "image twice in splits")


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
    check = _Check(files, decode, elsewhere)
    parts = parts_of(root)
    whole = []
    with tqdm(total=_rows_in(parts), unit="image", desc="validating") as bar:
        for part in parts:
            try:
                for place, row in _rows(part):
                    check.image(row, part.relative_to(root).as_posix(), place)
                    bar.update()
                whole.append(part)
            except ValueError as error:
                check.report.add("table", str(part.relative_to(root)), str(error))
    twice = check.finish()
    for part in whole if twice else ():
        for place, row in _rows(part, ["id", "regions.list.element.id"]):
            for region in row["regions"] or ():
                if region is not None and hash(region["id"]) in twice:
                    check.report.add("id twice", f"{part.relative_to(root)} row {place}, image {row['id']!r}, region {region['id']!r}")
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
    with open_table(part) as file:
        place = 0
        for group in range(file.num_row_groups):
            for row in read_group(file, part, group, columns).to_pylist():
                yield place, row
                place += 1


class _Check:
    """Goes over rows one by one, and remembers what must be compared between them."""

    def __init__(self, files: ImageFiles, decode: bool, elsewhere: Elsewhere | None) -> None:
        self.files, self.decode, self.report = files, decode, Report()
        self._ids: set[str] = set()
        self._twice: set[str] = set()
        self._region_ids = array("q")  # hashes: of 33 million ids, a quarter of a gigabyte
        self._splits: dict[str | None, str] = {}
        self._crossing: set[str] = set()
        self._copies, self._spreads = Copies(self.report, elsewhere), Spreads(self.report)
        self._references: dict[str, str] = {}  # path -> what its bytes are known by, "" where only reading would tell
        self._versions: dict[str, tuple[str, str, str]] = {}  # by reference: place, source and split of the first version
        self._archives: dict[str, str] = {}

    def image(self, row: Mapping[str, Any], part: str, number: int) -> None:
        """Checks one row, by its number in the table `part`."""
        report, place = self.report, Place(part, number, row["id"], row["split"])
        report.images += 1
        where = f"{part} row {number}, image {row['id']!r}"
        if not row["id"]:
            report.add("id missing", where)
        elif row["id"] in self._ids:
            report.add("id twice", where)
            self._twice.add(row["id"])
        self._ids.add(row["id"])
        self._split(row, place, where)
        self._pixels(row, place, where)
        self._reference(row, where)
        regions = row["regions"] or []
        if not regions:
            report.add("no regions", where)
            report.leave_out(place, "no regions")
        for number, region in enumerate(regions):
            report.regions += 1
            if region is None:
                report.add("mask", f"{where}, region {number}", "the region is null")
                report.leave_out(place, "mask")
                continue
            here = f"{where}, region {region['id'] if region['id'] else number!r}"
            if region["id"]:
                self._region_ids.append(hash(region["id"]))
            else:
                report.add("id missing", here)
            wrong = self._mask(region, row["height"], row["width"], here)
            if wrong:
                report.leave_out(place, wrong)
            for task in ("quality", "importance"):
                self._score(place, region, task, here)
            self._distortions(place, region["distortions"], here)

    def finish(self) -> frozenset[int]:
        """Adds what shows in all rows together only. Returns the hashes of regions' ids that stand twice."""
        self._spreads.finish()
        self.report.name_rows(self._twice)
        self.report.tell_empty_splits()
        marks, counts = np.unique(np.array(self._region_ids, np.int64), return_counts=True)
        return frozenset(marks[counts > 1].tolist())

    def _split(self, row: Mapping[str, Any], place: Place, where: str) -> None:
        """Images without a source may be of one, so that they are in one split, too, or the later ones left out."""
        split, source = row["split"], row["source"]
        self.report.splits[str(split)] += 1
        if split not in SPLITS:
            self.report.add("split", where, repr(split))
            self.report.leave_out(place, "split")
        if not source:
            self.report.add("source missing", where)
        if split in SPLITS and self._splits.setdefault(source, split) != split:
            self.report.leave_out(place, "source in two splits" if source else "source missing")
            if source and source not in self._crossing:
                self._crossing.add(source)
                self.report.add("source in two splits", where, f"source {source!r} is in {self._splits[source]} and in {split}")

    def _pixels(self, row: Mapping[str, Any], place: Place, where: str) -> None:
        """Whether the image is there, is what its hash says, and stands once; with `decode`, whether it can be read."""
        path, data, report = row["path"] or "", row["png"] or b"", self.report
        if leads_out(path):
            report.add("path", where, path)
            if not data:
                report.leave_out(place, "path")
                return
        if not data and not self._is_there(path, where):
            report.leave_out(place, "image missing")
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
                    report.leave_out(place, "image of another size")
            except ImageError as error:
                report.add("image unreadable", where, str(error))
                report.leave_out(place, "image unreadable")
        self._same(marks, row, place, where)

    def _same(self, marks: set[str], row: Mapping[str, Any], place: Place, where: str) -> None:
        """Whether an image's bytes, known by `marks`, are those of its row's hash, and those of no other row."""
        given, path = row["hash"] or "", row["path"] or ""
        ours = next((mark for mark in marks if mark.partition(":")[0] == given.partition(":")[0]), "")
        if given and ours and ours != given:
            self.report.add("image changed", where, f"it has {ours}, its row {given}")
        if given and not ours:
            marks = {*marks, given}
        read = {mark for mark in marks if mark.startswith("sha256:")} if self.decode else set()  # enough, once every image is read
        self._copies.add(place, read or marks or {f"path:{path}"}, row["split"], where)

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

    def _score(self, image: Place, region: Mapping[str, Any], task: str, where: str) -> None:
        value, std = region[task], region[f"{task}_std"]
        self.report.labelled[task] += value is not None
        if std is not None:
            self.report.labelled[f"{task}_std"] += 1
        try:
            scale = UNIT if region[f"{task}_scale"] is None else Scale(**region[f"{task}_scale"])
        except (TypeError, ValueError) as error:
            self.report.add("scale", where, f"{task}: {error}")
            self.report.leave_out(image, "scale")
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

    def _distortions(self, image: Place, pairs: list[Mapping[str, Any] | None] | None, where: str) -> None:
        if pairs is None:
            return
        self.report.labelled["distortions"] += 1
        if None in pairs:
            self.report.add("distortion", where, "a pair of type and severity is null")
            self.report.leave_out(image, "distortion")
        named = [pair for pair in pairs if pair is not None]
        kinds = [pair["type"] for pair in named]
        for kind in sorted({str(k) for k in kinds if k not in DISTORTION_TYPES or kinds.count(k) > 1}):
            self.report.add("distortion", where, kind)
        for severity in [pair["severity"] for pair in named if pair["severity"] not in SEVERITIES]:
            self.report.add("severity", where, repr(severity))


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _crc32(data: bytes) -> str:
    """As `ImageFiles.checksum` has it of a member of a zip archive."""
    return f"crc32:{zlib.crc32(data):08x}:{len(data)}"


@functools.lru_cache(maxsize=2**14)  # a mask is that of each of an image's distorted versions
def _measure(counts: Any, height: Any, width: Any) -> tuple[tuple[str, str] | None, tuple[int, ...], int]:
    """(what is wrong, box, area)."""
    code = {"size": [height, width], "counts": counts}
    try:
        area = rle.area(code)
    except rle.RegionError as error:
        return ("mask", str(error)), (), 0
    return (None, rle.box(code), area) if area else (("empty region", ""), (), 0)
