"""The images of a list of regions (`datamodules.region_list`): read, dealt to splits, and whatever is wrong with them by its line."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from datamodules.archives import INSIDE, ImageFiles, leads_out
from datamodules.images import ImageError, decode_image, image_bytes, is_file
from datamodules.records import SPLITS, ImageRecord, Scale
from datamodules.region_list import Mistake, RegionList, Row, regions_of

MISSING = ("archive missing", "image missing", "image unreadable")  # kinds of mistakes that leave an image out and stop nothing
CUT = "region cut"
OF_THE_LIST = ("column", "scale", "too few groups")  # kinds that are of no image: to leave images out does not mend them


@dataclass(frozen=True)
class ListedImage:
    """An image that can be read, with those of its regions that can.

    Attributes:
        line: of the list, of its first row. lines: of its regions' first rows, in the record's order.
    """

    record: ImageRecord
    line: int
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Listed:
    """What a list says.

    Attributes:
        table: its rows.
        images: in the order of their first rows.
        mistakes: by their lines.
        splits: of every image that has a row which can be read.
        excluded: images of the list that were left out by name.
    """

    table: RegionList
    images: tuple[ListedImage, ...]
    mistakes: tuple[Mistake, ...]
    splits: Mapping[str, str]
    excluded: tuple[str, ...] = ()


def read_images(
    table: RegionList,
    root: Path,
    scales: Mapping[str, Scale],
    shares: Mapping[str, float],
    seed: int,
    exclude: Collection[str] = (),
) -> Listed:
    """Reads every image of a list that lies in `root`.

    Args:
        shares: of val and test among the groups, where the list names no split; dealt by `seed`. All to test, whatever the list names,
            where that share is 1.
        exclude: images that are not looked at, nor their rows; "" for the rows that name none. Others keep their splits.
    """
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        rows[str(row["image"])].append(row)
    left = {*exclude} & {*table.images.values()}
    groups, mistakes = _groups(rows)
    splits, more = _splits(rows, groups, shares, seed, left)
    more += _repeated(rows)
    found: list[ListedImage] = []
    files = ImageFiles(root)
    for image, listed in tqdm(rows.items(), unit="image", desc=f"reading {root}", delay=2):
        if image in left:
            continue
        read, wrong = _image(image, listed, files, scales, groups[image], splits[groups[image]])
        found += [read] if read else []
        more += wrong
    kept = [row for row in table.rows if row["image"] not in left]
    for score, scale in scales.items():
        more = _of_another_scale(kept, score, scale, more)
    mistakes = [m for m in (*table.mistakes, *mistakes, *more) if m.kind in OF_THE_LIST or m.image not in left]
    dealt = {image: splits[group] for image, group in groups.items()}
    return Listed(table, tuple(found), tuple(sorted(mistakes, key=lambda m: m.line)), dealt, tuple(sorted(left)))


def _image(
    image: str, rows: Sequence[Row], files: ImageFiles, scales: Mapping[str, Scale], group: str, split: str
) -> tuple[ListedImage | None, list[Mistake]]:
    first = int(rows[0]["line"])
    archive, inside, member = image.partition(INSIDE)
    if leads_out(archive):
        said = f"image {image!r} leads out of the folder: write it relative to {files.root}"
        return None, [Mistake("path", first, image, said)]
    path, kind = files.root / image, "archive missing" if inside else "image missing"
    try:
        if inside and not files.missing(archive, [member]).any():
            kind = "image unreadable"
        elif inside:
            kind = "image missing"
        elif is_file(path):
            kind = "image unreadable"
        data = files.read(image) if inside else image_bytes(path)
        pixels = decode_image(data, str(path))
    except ImageError as error:
        return None, [Mistake(kind, first, image, str(error), stops=False)]
    found, mistakes = regions_of(rows, pixels, files, scales, image)
    height, width = pixels.shape[:2]
    mark = f"sha256:{hashlib.sha256(data).hexdigest()}"
    record = ImageRecord(image, group, split, height, width, tuple(r for _, r in found), path=image, hash=mark)
    return ListedImage(record, first, tuple(line for line, _ in found)), mistakes


def _repeated(rows: Mapping[str, Sequence[Row]]) -> list[Mistake]:
    """Rows that say what another of their region says, word for word, if no region has opinions that differ: opinions may agree."""
    found = []
    for image, listed in rows.items():
        firsts: dict[str, Row] = {}
        for row in listed:
            first = firsts.setdefault(str(row["id"]), row)
            if first is row:
                continue
            if {**first, "line": 0} != {**row, "line": 0}:
                return []
            said = f"region {str(row['id'])!r} stands on line {first['line']} with the same in every cell, and counts as a second opinion"
            found.append(Mistake("region twice", int(row["line"]), image, f"{said}: delete one of the two", stops=False))
    return found


def _of_another_scale(rows: Sequence[Row], score: str, scale: Scale, mistakes: list[Mistake]) -> list[Mistake]:
    """Where most scores of a list lie outside their scale, that is one mistake, in place of one for each."""
    values = np.array([v for v in (_number(row.get(score)) for row in rows) if np.isfinite(v)])
    off = int(np.count_nonzero((values < scale.low) | (values > scale.high)))
    if off <= max(1, len(values) // 2):
        return mistakes
    said = (
        f"{off:,} of {len(values):,} scores of {score} lie outside their scale, {scale.low:g} to {scale.high:g}: they go from "
        f"{values.min():g} to {values.max():g}. Say what they were given on: {score}_scale=[lowest,highest], behind --data or as an option "
        "of the data"
    )
    others = [m for m in mistakes if m.kind != "label out of scale" or not m.what.startswith(f"{score} ")]
    return [*others, Mistake("scale", 0, "", said)]


def _number(value: Any) -> float:
    """NaN for what is none."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _groups(rows: Mapping[str, Sequence[Row]]) -> tuple[dict[str, str], list[Mistake]]:
    """Of each image, as the list says, or its folder and name before its first dot."""
    groups, mistakes = {}, []
    for image, listed in rows.items():
        given = [row for row in listed if "group" in row]
        groups[image] = str(given[0]["group"]) if given else _scene(image)
        other = next((row for row in given if str(row["group"]) != groups[image]), None)
        if other is not None:
            said = f"image {image} is in the groups {groups[image]} and {other['group']}: it has one"
            mistakes.append(Mistake("group", int(other["line"]), image, said))
    return groups, mistakes


def _scene(image: str) -> str:
    """An image's folder, and its name before the first dot; in an archive, those of the member."""
    archive, inside, member = image.rpartition(INSIDE)
    path = PurePosixPath(member)
    return f"{archive}{inside}{path.with_name(path.name.partition('.')[0])}" if path.name.partition(".")[0] else image


def _splits(
    rows: Mapping[str, Sequence[Row]], groups: Mapping[str, str], shares: Mapping[str, float], seed: int, left: Collection[str]
) -> tuple[dict[str, str], list[Mistake]]:
    """Of each group: as the list says, or dealt by the seed."""
    if shares["test"] == 1:
        return dict.fromkeys(groups.values(), "test"), []
    if not any("split" in row for listed in rows.values() for row in listed):
        few = f"{len(set(groups.values()))} groups of images: without a column split, three at least are dealt"
        mistakes = [Mistake("too few groups", 0, "", few)] if len(set(groups.values())) < 3 else []
        return _dealt(sorted(set(groups.values())), shares, seed), mistakes
    splits, mistakes = dict[str, str](), list[Mistake]()
    for row in (row for image, listed in rows.items() if image not in left for row in listed):
        split, line, image = str(row.get("split", "")), int(row["line"]), str(row["image"])
        if split not in SPLITS:
            said = f"split is {', '.join(SPLITS)} in every row, or in none; got {split!r}"
            mistakes.append(Mistake("split", line, image, said))
        elif splits.setdefault(groups[image], split) != split:
            group = groups[image]
            said = f"the group {group!r} is in {splits[group]} and in {split}: what is tested would have been trained on"
            mistakes.append(Mistake("source in two splits", line, image, said))
    return {group: splits.get(group, SPLITS[0]) for group in groups.values()}, mistakes


def _dealt(groups: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    counts = {s: max(1, round(share * len(order))) if share else 0 for s, share in shares.items()}
    names = ["test"] * counts["test"] + ["val"] * counts["val"]
    return {group: names[i] if i < len(names) else "train" for i, group in enumerate(order)}
