"""Regions listed in a CSV or JSONL file, one a row -> records: boxes, polygons, run lengths or mask files, and their labels.

Several rows of the same image and id are opinions about one region: their scores become a mean and a standard deviation.
Whatever is wrong with a row is kept with its line, and the next row is read: a list is mended once, not once for each mistake.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Prompt
from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError, suggest
from components.tasks import Distortions
from datamodules.archives import INSIDE, ImageFiles, leads_out
from datamodules.records import RegionRecord, Scale

FORMS = ("box", "polygon", "rle", "mask")
SCORES = ("quality", "importance")
COLUMNS = (
    "image",
    "id",
    *FORMS,
    *(f"{s}{of}" for s in SCORES for of in ("", "_std")),
    "distortion",
    "split",
    "group",
    "semantic",
    "description",
)
SHOWN = 20  # mistakes that are named
_NOTHING = ("nan", "none", "null", "<na>", "n/a")
_BOX = "40 30 120 90"  # what a message shows: a box whose right edge is at 160, the lower at 120

Row = Mapping[str, Any]

_CELLS = threading.Lock()
_HALVES = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # of characters that JSON writes in two


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a list, or odd about it.

    Attributes:
        kind: one of `datamodules.findings.KINDS`.
        line: where the row begins; 0 for the list as a whole.
        image: the row's; "" where it names none.
        stops: whether it must be mended, or its image left out, before anything is learned from the list.
    """

    kind: str
    line: int
    image: str
    what: str
    stops: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


@dataclass(frozen=True)
class RegionList:
    """The rows of a list.

    Attributes:
        rows: those with an image, an id and a region; what is empty is left out, and "line" is the line on which the row begins.
        images: of every row, by its line, the image that it names; "" for none.
        mistakes: why other rows are not among `rows`, and unknown columns.
    """

    rows: tuple[Row, ...]
    images: Mapping[int, str]
    mistakes: tuple[Mistake, ...]


def named(mistakes: Sequence[object]) -> str:
    """The first `SHOWN`, and how many more there are."""
    more = len(mistakes) - SHOWN
    return "; ".join([*map(str, mistakes[:SHOWN]), *([f"and {more:,} more"] if more > 0 else [])])


def read_list(path: Path) -> RegionList:
    """Reads a list, CSV or JSONL (by its name), UTF-8.

    Raises:
        ConfigError: missing, of another form, or without a row.
    """
    if not path.is_file():
        raise ConfigError(f"the list of regions {path} is missing: a CSV or JSONL file with the columns {', '.join(COLUMNS)}")
    rows: list[Row] = []
    images: dict[int, str] = {}
    mistakes: dict[object, Mistake] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="" if path.suffix != ".jsonl" else "\n") as file, cells_of_any_length():
            for line, row in _jsonl(file) if path.suffix == ".jsonl" else _csv(file):
                if isinstance(row, Mistake):
                    images[line] = row.image
                    mistakes[line] = row
                    continue
                known = {str(k): v for k, v in row.items() if v is not None and not (isinstance(v, str) and not v.strip())}
                images[line] = image = str(known.get("image", ""))
                for name in [k for k in map(str, row) if k not in COLUMNS]:
                    first = 1 if path.suffix != ".jsonl" else line
                    mistakes.setdefault(name, Mistake("column", first, "", f"unknown column {name!r}. {suggest(name, list(COLUMNS))}"))
                    known.pop(name, None)
                odd = next((mistake for name in known if (mistake := _of_another_sort(name, known[name], line, image))), None)
                forms = [f for f in FORMS if f in known]
                if odd:
                    mistakes[line] = odd
                elif "image" in known and "id" in known and len(forms) == 1:
                    rows.append({**known, "line": line})
                else:
                    said = f"a row has an image, an id, and one of {', '.join(FORMS)}; got {_short(known, 200)}"
                    mistakes[line] = Mistake("row", line, image, said)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} {_undecodable(path.read_bytes())}: save it as UTF-8 (in a spreadsheet, CSV UTF-8)") from error
    except csv.Error as error:
        raise ConfigError(f"{path} cannot be read as {path.suffix.lstrip('.')}: {error}") from error
    if not images:
        raise ConfigError(f"{path}: it lists nothing: below a header with the columns {', '.join(COLUMNS)}, or some, each row is a region")
    return RegionList(tuple(rows), images, tuple(mistakes.values()))


def _of_another_sort(column: str, value: Any, line: int, image: str) -> Mistake | None:
    """What JSON can hold in a column and a list cannot, and what programs write into a cell of a region that has nothing."""
    if column in FORMS and str(value).strip().lower() in _NOTHING:
        remedy = "leave the cell empty where another column has the region, or delete the row"
        return Mistake("region", line, image, f"{column} is {str(value)!r}, which is no region: {remedy}")
    scores = [f"{score}{of}" for score in SCORES for of in ("", "_std")]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if column in scores:
        kind, wanted = "number", "a number"
        fits = isinstance(value, str) or (number and (isinstance(value, float) or abs(value) <= sys.float_info.max))
    elif column == "distortion":
        kind, wanted = "distortion", "a text, or a list of texts or of pairs of severity and type"
        fits = isinstance(value, str) or (
            isinstance(value, list)
            and all(isinstance(v, str) or (isinstance(v, list) and all(isinstance(word, str) for word in v)) for v in value)
        )
    elif column in ("id", "group"):
        kind, wanted, fits = "row", "a text or a number", isinstance(value, str) or number
    elif column in ("image", "mask", "split", "semantic", "description"):
        kind, wanted, fits = "row", "a text", isinstance(value, str)
    elif column == "box":
        kind, wanted, fits = "region", "left, top, width, height: a text or a list", isinstance(value, str | list)
    elif column == "polygon":
        kind, wanted, fits = "region", "rings of x, y, x, y, ...: a text or a list of lists", isinstance(value, str | list)
    else:
        kind, wanted, fits = "mask", "a text, or a mapping of size and counts", isinstance(value, str | dict)
    if fits:
        return None
    return Mistake(kind, line, image, f"{column} is {wanted}; got {_short(json.dumps(value))}")


def _undecodable(data: bytes) -> str:
    """Where a file is no UTF-8."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "is UTF-16"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, shown = before.count(b"\n") + 1, before.rpartition(b"\n")[2].decode()[-20:]
        return f"line {line}: no UTF-8 behind {shown!r} (byte {data[error.start]:#04x})"
    return "is no UTF-8"


@contextmanager
def cells_of_any_length() -> Iterator[None]:
    """The reader's own limit, 128 KiB, is a global; run lengths and polygons may be longer."""
    with _CELLS:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def _csv(file: Any) -> Iterator[tuple[int, dict[str, str] | Mistake]]:
    """Rows by the line that they begin on: a quoted cell may hold lines of its own, and empty lines are none."""
    reader = csv.reader(file, strict=True)
    before, header = 0, list[str]()
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not cells:
                continue
            if not header:
                header = cells
                separator = next((s for s in (";", "\t", "|") if len(cells) == 1 and {*COLUMNS} & {*cells[0].split(s)} - {*cells}), "")
                if separator:
                    before = line - 1
                    raise csv.Error(
                        f"its cells are parted by {separator!r}: write commas between them (in a spreadsheet, save as CSV UTF-8)"
                    )
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    before = line - 1
                    raise csv.Error(f"the header has {', '.join(map(repr, twice))} twice")
            elif len(cells) != len(header):
                image = dict(zip(header, cells, strict=False)).get("image", "")
                remedy = "a cell that holds a comma stands in quotes, an empty one keeps its comma"
                yield line, Mistake("row", line, image, f"{len(cells)} cells under a header of {len(header)}: {remedy}")
            else:
                yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise csv.Error(f"line {before + 1}: {error}") from error


def _jsonl(file: Any) -> Iterator[tuple[int, dict[str, Any] | Mistake]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            yield line, Mistake("row", line, "", f"no JSON ({error})")
            continue
        if not isinstance(row, dict):
            yield line, Mistake("row", line, "", f"each line is a mapping, got {text.strip()[:60]}")
            continue
        odd = [key for key, value in row.items() if not _is_text(key, value)] if _HALVES.search(text) else []
        if odd:
            image = str(row.get("image", "")) if "image" not in odd else ""
            said = f"{json.dumps(odd[0])} holds half a character (one of \\ud800 to \\udfff without its other half): write it whole"
            yield line, Mistake("row", line, image, said)
            continue
        yield line, row


def _is_text(*values: Any) -> bool:
    """Whether all texts in what JSON gave can be written: "\\ud83d" alone is half a character."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def regions_of(
    rows: Sequence[Row], pixels: NDArray[np.uint8], files: ImageFiles, scales: Mapping[str, Scale], name: str
) -> tuple[list[tuple[int, RegionRecord]], list[Mistake]]:
    """The regions of one image with their lines, in the order of their first rows; their ids have the image's name in front. A region
    that reaches out of the image is what lies in it.

    Returns:
        The regions that can be read, with those of their labels that can, and what is wrong with which lines.
    """
    opinions: dict[str, list[Row]] = {}
    for row in rows:
        opinions.setdefault(str(row["id"]), []).append(row)
    found, mistakes = [], list[Mistake]()
    masks: dict[str, Row] = {}
    for region, of_region in opinions.items():
        read = _Region(of_region, name, mistakes)
        counts = read.counts(pixels, files)
        labels = {k: v for score in SCORES for k, v in read.label(score, scales[score]).items()}
        agreed = read.distortions()
        if counts:
            first = of_region[0]
            other = masks.setdefault(counts, first)
            if other is not first:
                said = f"region {region!r} has the pixels of region {str(other['id'])!r} on line {other['line']}"
                remedy = "delete one of the two, or give opinions about one region one id"
                mistakes.append(Mistake("region twice", int(first["line"]), name, f"{said}: {remedy}", stops=False))
            words: dict[str, Any] = {word: first.get(word) for word in ("semantic", "description")}
            found.append((int(first["line"]), RegionRecord(f"{name}/{region}", counts, distortions=agreed, **labels, **words)))
    return found, mistakes


class _Region:
    """The rows about one region; what is wrong with them is added to `mistakes`."""

    def __init__(self, rows: Sequence[Row], image: str, mistakes: list[Mistake]) -> None:
        self.rows, self.image, self.mistakes = rows, image, mistakes

    def counts(self, pixels: NDArray[np.uint8], files: ImageFiles) -> str:
        """The mask's run lengths; "" where there is none."""
        first = self.rows[0]
        form = next(f for f in FORMS if f in first)
        for row in self.rows:
            if _said(form, row) != _said(form, first):
                self._add("opinions", row, f"the rows of region {first['id']!r} show different regions: give each an id of its own")
        try:
            shape = _shape(form, first[form], files, pixels.shape[:2])
            if are_fractions(form, shape):
                raise ValueError(f"{form} {_short(first[form])} lies within a pixel: it is given in pixels, not in fractions of the image")
            (mask,) = MASK_ENCODERS.build({"plugin": "given"}).forward(pixels, [Prompt(**{form: shape})])
        except (KeyError, OSError, OverflowError, TypeError, ValueError) as error:
            said = f"mask {first[form]}: {error}" if form == "mask" and INSIDE in first[form] else str(error)
            self._add("mask" if form in ("rle", "mask") else "region", first, said)
            return ""
        if mask.sum() == 1:
            self._add("tiny region", first, f"{form} {_short(first[form])} is one pixel of the image: is it given in pixels?", False)
        if Prompt(**{form: shape}).reaches_out(pixels.shape[:2]):
            height, width = pixels.shape[:2]
            if form == "box" and _are_corners(shape, height, width):
                self._add("region", first, _either(shape, height, width))
                return ""
            self._add("region cut", first, f"{form} {_short(first[form])} reaches out of the image of {width} x {height} pixels", False)
        return str(rle.encode(mask)["counts"])

    def label(self, score: str, scale: Scale) -> dict[str, Any]:
        """Value, standard deviation and scale. The first two are on [0, 1]; a deviation is that of several opinions, or of the column."""
        values = [v for row in self.rows if (v := self._score(row, score, scale)) is not None]
        stds = [s for row in self.rows if (s := self._std(row, score)) is not None]
        value = statistics.fmean(values) if values else None
        std = stds[0] if stds else statistics.stdev(values) if len(values) > 1 else None
        scored, spread = ([row for row in self.rows if column in row] for column in (score, f"{score}_std"))
        if spread and max(len(scored), len(spread)) > 1:
            said = (
                f"region {self.rows[0]['id']!r} has several opinions on its {score}, and a {score}_std: opinions have none of their own. "
            )
            said += "Leave it empty, or delete the rows that repeat one"
            self._add("opinions", spread[0], said)
        elif stds and not scored:
            self._add("std without score", spread[0], f"{score}_std {stds[0]:g} without a {score}", False)
        elif stds and value is not None and stds[0] > (largest := scale.largest_std(value)):
            said = f"{score} {value:g} with a standard deviation of {stds[0]:g} on {scale.low:g} to {scale.high:g}; at most {largest:.3g}"
            self._add("std not of the scale", spread[0], said, False)
        return {
            score: None if value is None else scale.unit(value),
            f"{score}_std": None if std is None else scale.unit_std(std),
            f"{score}_scale": scale,
        }

    def distortions(self) -> Distortions | None:
        """Those that most rows name; None where none says."""
        opinions = []
        for row in self.rows:
            if "distortion" in row:
                try:
                    opinions.append(distortions(row["distortion"]))
                except ValueError as error:
                    self._add("distortion", row, str(error))
        return _agreed(opinions)

    def _score(self, row: Row, score: str, scale: Scale) -> float | None:
        value = self._number(row, score)
        if value is not None and not scale.low <= value <= scale.high:
            said = f"{score} {value:g} lies outside its scale, {scale.low:g} to {scale.high:g}: see {score}_scale"
            self._add("label out of scale", row, said)
            return None
        return value

    def _std(self, row: Row, score: str) -> float | None:
        value = self._number(row, f"{score}_std")
        if value is not None and not (math.isfinite(value) and value >= 0):
            self._add("std not of the scale", row, f"{score}_std is a number of the score's scale, at least 0; got {value:g}")
            return None
        return value

    def _number(self, row: Row, column: str) -> float | None:
        if column not in row:
            return None
        try:
            return float(row[column])
        except (TypeError, ValueError, OverflowError):
            self._add("number", row, f"{column} is a number, got {_short(row[column])!r}")
            return None

    def _add(self, kind: str, row: Row, what: str, stops: bool = True) -> None:
        self.mistakes.append(Mistake(kind, int(row["line"]), self.image, what, stops))


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def are_fractions(form: str, shape: Any) -> bool:
    """Whether the numbers of a box or a polygon all lie between 0 and 1, and are not whole."""
    numbers = list(shape) if form == "box" else [v for ring in shape for v in ring] if form == "polygon" else []
    return any(v % 1 for v in numbers) and all(0 <= v <= 1 for v in numbers)


def _said(form: str, row: Row) -> Any:
    """A region as a row says it, whatever stands between its numbers."""
    value = row.get(form)
    try:
        return shape_of_cell(form, value) if form in ("box", "polygon") and isinstance(value, str) else value
    except ValueError:
        return value


def _are_corners(box: Sequence[float], height: int, width: int) -> bool:
    """Whether the numbers, taken for left, top, right and bottom, are a box that lies in the image."""
    left, top, right, bottom = box
    return 0 <= left < right <= width and 0 <= top < bottom <= height


def _either(box: Sequence[float], height: int, width: int) -> str:
    """What is to be written, for a box that may be two."""
    left, top, third, fourth = box
    corners, cut = (left, top, third - left, fourth - top), (left, top, min(third, width - left), min(fourth, height - top))
    said = [" ".join(f"{v:g}" for v in numbers) for numbers in (box, corners, cut)]
    return (
        f"box {said[0]} reaches out of the image of {width} x {height} pixels as left, top, width, height, and lies in it as left, top, "
        f"right, bottom: a box is the former. If these are corners, write {said[1]}; if not, cut it to the image: {said[2]}"
    )


def _shape(form: str, value: Any, files: ImageFiles, size: tuple[int, ...]) -> Any:
    """A cell -> what `Prompt` takes."""
    if form == "mask":
        archive, inside, _ = str(value).partition(INSIDE)
        if leads_out(archive):
            raise ValueError(f"mask {str(value)!r} leads out of the folder: write it relative to {files.root}")
        return files.read(str(value)) if inside else str(files.root / archive)
    read = shape_of_cell(form, value) if isinstance(value, str) else value
    if form == "rle":
        return {"size": list(size), "counts": read} if isinstance(read, str) else read
    if form == "polygon":
        read = [read] if read and all(isinstance(value, int | float) for value in read) else read
        return [[float(v) for v in (numbers(ring) if isinstance(ring, str) else ring)] for ring in read]
    box = tuple(float(v) for v in read)
    if len(box) != 4:
        raise ValueError(f"a box is left, top, width, height, four numbers of pixels, as in {_BOX}; got {_short(value)}")
    return box


def shape_of_cell(form: str, text: str) -> Any:
    """A region as a cell of a list has it: numbers with blanks or commas between them and, between rings of a polygon, semicolons; or JSON.

    Raises:
        ValueError: another text, of a form that is numbers.
    """
    if form == "rle" and not text.lstrip().startswith("{"):
        return text
    if text.lstrip()[:1] in ("[", "{"):
        return json.loads(text)
    return [numbers(ring) for ring in text.split(";")] if form == "polygon" else numbers(text)


def numbers(text: str) -> list[float]:
    """ "40 30 120 90" or "40,30,120,90" -> its numbers. Raises ValueError: something else."""
    try:
        return [float(v) for v in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(
            f"numbers stand with blanks or commas between them, as in {_BOX}, a fraction behind a point; got {_short(text)!r}"
        ) from None


def distortions(value: Any) -> Distortions:
    """ "severe blur; minor noise" -> pairs of type and severity; "clean" -> none.

    Raises:
        ValueError: unknown words, or a type that is named twice.
    """
    if value in ("clean", []):
        return ()
    items = value.split(";") if isinstance(value, str) else value
    pairs = [tuple(item.split() if isinstance(item, str) else item) for item in items]
    for pair in pairs:
        if len(pair) != 2 or pair[0] not in SEVERITIES or pair[1] not in DISTORTION_TYPES:
            raise ValueError(
                f"distortion {' '.join(map(str, pair))!r}: write 'clean', or a severity ({', '.join(SEVERITIES)}) and a type "
                f"({', '.join(DISTORTION_TYPES)}), several with ';' between them"
            )
    kinds = [kind for _, kind in pairs]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), "")
    if twice:
        raise ValueError(f"distortion {_short(value)!r} names {twice} twice: a region has one severity of a type")
    return tuple((kind, severity) for severity, kind in pairs)


def _agreed(opinions: Sequence[Distortions]) -> Distortions | None:
    """Types that more than half name, each with the median of their severities."""
    if not opinions:
        return None
    agreed = []
    for kind in DISTORTION_TYPES:
        steps = sorted(SEVERITIES.index(severity) for opinion in opinions for named, severity in opinion if named == kind)
        if 2 * len(steps) > len(opinions):
            agreed.append((kind, SEVERITIES[steps[(len(steps) - 1) // 2]]))
    return tuple(agreed)
