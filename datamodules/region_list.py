"""Regions listed in a CSV or JSONL file, one a row -> records: boxes, polygons, run lengths or mask files, and their labels.

Several rows of the same image and id are opinions about one region: their scores become a mean and a standard deviation.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import rle
from components.batch import Distortions
from components.mask_encoders.base import MASK_ENCODERS, Prompt
from components.prompts import DISTORTION_TYPES, SEVERITIES
from components.registry import ConfigError, check_keys
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

Row = Mapping[str, Any]


class RowError(ValueError):
    """Rows that cannot be used.

    Attributes:
        mistakes: each with its line.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__(named(mistakes))
        self.mistakes = tuple(mistakes)


def named(mistakes: Sequence[str]) -> str:
    """The first `SHOWN`, and how many more there are."""
    more = len(mistakes) - SHOWN
    return "; ".join([*mistakes[:SHOWN], *([f"and {more:,} more"] if more > 0 else [])])


def read_list(path: Path) -> list[dict[str, Any]]:
    """The rows, with what is empty left out, and their line numbers as "line".

    Raises:
        ConfigError: missing, of another form, an unknown column, or a row without image, id or region.
    """
    if not path.is_file():
        raise ConfigError(f"the list of regions {path} is missing: a CSV or JSONL file with the columns {', '.join(COLUMNS)}")
    try:
        rows = _jsonl(path) if path.suffix == ".jsonl" else _csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise ConfigError(f"{path} cannot be read as {path.suffix.lstrip('.')}: {error}") from error
    listed, wrong = [], []
    for number, row in enumerate(rows, 1 if path.suffix == ".jsonl" else 2):
        check_keys({str(k): v for k, v in row.items()}, list(COLUMNS), str(path))
        known = {str(k): v for k, v in row.items() if v is not None and v != ""}
        forms = [f for f in FORMS if f in known]
        if "image" not in known or "id" not in known or len(forms) != 1:
            wrong.append(f"line {number}: a row has an image, an id, and one of {', '.join(FORMS)}; got {known}")
        listed.append({**known, "line": number})
    if wrong:
        raise ConfigError(f"{path}: {len(wrong):,} rows cannot be used: {named(wrong)}")
    return listed


def _csv(path: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False, name=None)]


def _jsonl(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line is a mapping")
    return rows


def regions_of(
    rows: Sequence[Row], pixels: NDArray[np.uint8], root: Path, scales: Mapping[str, Scale], name: str
) -> tuple[list[RegionRecord], int]:
    """The regions of one image, in the order of their first rows; their ids have the image's name in front. And how many of them reach
    out of the image: what lies in it is their region.

    Raises:
        RowError: what is wrong with which lines; a box or polygon that lies outside the image, among others.
    """
    opinions: dict[str, list[Row]] = {}
    for row in rows:
        opinions.setdefault(str(row["id"]), []).append(row)
    found, wrong, reaching = [], [], 0
    for region, of_region in opinions.items():
        values: dict[str, Any] = {}
        for what in (
            lambda of=of_region: _place(of, pixels, root),
            *(lambda of=of_region, score=score: _label(of, score, scales[score]) for score in SCORES),
            lambda of=of_region: {"distortions": _agreed([distortions(row["distortion"]) for row in of if "distortion" in row])},
        ):
            try:
                values |= what()
            except ValueError as error:
                wrong.append(f"line {of_region[0]['line']}: {error}")
        reaching += values.pop("reaching", False)
        if not wrong:
            values |= {word: of_region[0].get(word) for word in ("semantic", "description")}
            found.append(RegionRecord(f"{name}/{region}", **values))
    if wrong:
        raise RowError(wrong)
    return found, reaching


def _place(rows: Sequence[Row], pixels: NDArray[np.uint8], root: Path) -> dict[str, Any]:
    first = rows[0]
    form = next(f for f in FORMS if f in first)
    if any(row.get(form) != first[form] for row in rows):
        raise ValueError(f"the rows of region {first['id']!r} show different regions: give each an id of its own")
    shape = _shape(form, first[form], root, pixels.shape[:2])
    (mask,) = MASK_ENCODERS.build({"plugin": "given"}).forward(pixels, [Prompt(**{form: shape})])
    return {"counts": rle.encode(mask)["counts"], "reaching": _reaches_out(form, shape, *pixels.shape[:2])}


def _reaches_out(form: str, shape: Any, height: int, width: int) -> bool:
    """Of a box or a polygon that was drawn, whether a part of it lies outside the image by more than rounding."""
    if form == "box":
        left, top, w, h = shape
        shape, form = [[left, top, left + w, top + h]], "polygon"
    if form != "polygon":
        return False
    x, y = ([v for ring in shape for v in ring[axis::2]] for axis in (0, 1))
    return min(*x, *y) <= -1 or max(x) >= width + 1 or max(y) >= height + 1


def _label(rows: Sequence[Row], score: str, scale: Scale) -> dict[str, Any]:
    value, std = _score(rows, score, scale)
    return {score: value, f"{score}_std": std, f"{score}_scale": scale}


def _shape(form: str, value: Any, root: Path, size: tuple[int, ...]) -> Any:
    """A cell -> what `Prompt` takes."""
    if form == "mask":
        return str(root / str(value))
    if form == "rle":
        code = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
        return {"size": list(size), "counts": code} if isinstance(code, str) else code
    if form == "box":
        return tuple(_numbers(value))
    rings = value.split(";") if isinstance(value, str) else value
    return [_numbers(ring) for ring in rings]


def _numbers(value: Any) -> list[float]:
    return [float(v) for v in (value.replace(",", " ").split() if isinstance(value, str) else value)]


def _score(rows: Sequence[Row], score: str, scale: Scale) -> tuple[float | None, float | None]:
    """Value and standard deviation on [0, 1]; the latter from the column of one row, or from several opinions."""
    given = [float(row[score]) for row in rows if score in row]
    for value in given:
        if not scale.low <= value <= scale.high:
            raise ValueError(f"{score} {value:g} lies outside its scale, {scale.low:g} to {scale.high:g}: see {score}_scale")
    stds = [float(row[f"{score}_std"]) for row in rows if f"{score}_std" in row]
    if not given:
        return None, None
    if stds and len(rows) > 1:
        raise ValueError(f"region {rows[0]['id']!r} has several rows and a {score}_std: opinions have none of their own")
    if any(not math.isfinite(s) or s < 0 for s in stds):
        raise ValueError(f"{score}_std is a number of the score's scale, at least 0; got {stds[0]:g}")
    spread = stds[0] if stds else statistics.stdev(given) if len(given) > 1 else None
    return scale.unit(statistics.fmean(given)), None if spread is None else scale.unit_std(spread)


def distortions(value: Any) -> Distortions:
    """ "severe blur; minor noise" -> pairs of type and severity; "clean" -> none.

    Raises:
        ValueError: unknown words.
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
