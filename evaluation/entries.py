"""What takes part in a comparison: runs of this project, and other people's predictions as a CSV file; brought to the same regions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from components.tasks import TASKS
from evaluation.nowhere import nothing_at
from evaluation.protocols import SCORES, Score, asked, unparsed, usable

_PLACE = ("id", "image", "source", "left", "top", "width", "height", "area", "quality", "importance", "types", "severities")
_LABELS = ("quality", "importance", "types", "severities")
_PLACES = ("image", "source")


@dataclass(frozen=True)
class Entry:
    """One model of a comparison.

    Attributes:
        name: as it stands in every table.
        table: one row per region, as `protocols.evaluate` takes it.
        parameters: all of them, None where unknown.
        ms_per_region: milliseconds of answers alone, the image's share included; None where it was not measured.
        peak_gib: peak memory of scoring; None where it was not measured, as in a process on a CPU that had trained before.
        device: where the two were measured.
        data: the fingerprint of the data, None where unknown.
        dataset: the name of the data it was measured on; None where unknown.
        trained_on: the name of the data it was trained on; None where unknown.
        trained_data: the fingerprint of these, None where unknown.
        steps: of its training, as configured; None where unknown.
        seed: of its training, None where unknown.
        commit: that trained it, with "-dirty" where files were changed; None where unknown.
        file: whether it came as a file of predictions, of which nothing else is known.
        notes: what a reader of the tables must know of what it came from.
        identity: of the model, whatever it was measured on: two of one name are the same where it is; None where unknown.
        origin: the name of the folder that the model lies in, "" where unknown.
    """

    name: str
    table: pd.DataFrame
    parameters: int | None = None
    ms_per_region: float | None = None
    peak_gib: float | None = None
    device: str | None = None
    data: str | None = None
    dataset: str | None = None
    trained_on: str | None = None
    file: bool = False
    notes: tuple[str, ...] = ()
    identity: str | None = None
    origin: str = ""
    trained_data: str | None = None
    steps: int | None = None
    seed: int | None = None
    commit: str | None = None

    def answers(self, task: str) -> bool:
        """Whether this model was asked about the task."""
        return asked(self.table, task)


def read_run(folder: Path) -> Entry:
    """A run that has been measured.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is a file, or it has no scores.parquet.
    """
    require(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give those of runs, and predictions as files whose names end in .csv")
    scores, record = folder / "scores.parquet", folder / "run.json"
    if not scores.exists():
        raise ValueError(f"{folder} has no scores.parquet: measure it first, with python eval.py {folder}")
    told = json.loads(record.read_text()) if record.exists() else {}
    measured = told.get("evaluation", {})
    parts = told.get("parts", {})
    trained, used = told.get("data") or {}, measured.get("data") or told.get("data") or {}
    model = Path(told.get("measured_from") or folder.resolve())
    return Entry(
        model.name,
        pd.read_parquet(scores),
        sum(int(p["parameters"]) for p in parts.values()) if parts else None,
        measured.get("ms_per_region"),
        measured.get("peak_gib"),
        measured.get("device"),
        used.get("fingerprint"),
        data_name(used),
        data_name(trained),
        notes=(f"its scorer's licence is {told['licence']}",) if told.get("licence") else (),
        identity=_identity(told) or str(folder.resolve()),
        origin=model.parent.name,
        trained_data=trained.get("fingerprint"),
        steps=_steps(folder / "config.yaml"),
        seed=told.get("seed"),
        commit=told.get("git"),
    )


def require(path: Path) -> None:
    """Raises FileNotFoundError where there is nothing, with the runs and CSV files that lie beside it."""
    if not path.exists():
        raise nothing_at(path, "runs and CSV files", _can_enter)


def is_predictions(path: Path) -> bool:
    """Whether a name is that of a file of predictions, not of a run's folder."""
    return path.suffix.lower() == ".csv"


def _can_enter(path: Path) -> bool:
    return is_predictions(path) or (path / "config.yaml").is_file() or (path / "scores.parquet").is_file()


def _steps(config: Path) -> int | None:
    found = yaml.safe_load(config.read_text()) if config.exists() else None
    steps: int | None = found.get("trainer", {}).get("steps") if isinstance(found, dict) else None
    return steps


def _identity(told: Mapping[str, Any]) -> str:
    """A digest of what a run recorded of its training, which a measurement on other data has too; "" where it recorded nothing."""
    trained = {key: value for key, value in told.items() if key not in ("evaluation", "measured_from")}
    return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest() if trained else ""


def data_name(described: Mapping[str, Any]) -> str | None:
    """What a table calls a data set: its kind, and its folder's name where it has one; None where nothing was described."""
    kind, root = described.get("dataset"), str(described.get("root") or "")
    return kind if kind is None or root in ("", "embedded") else f"{kind} {Path(root).name}"


def read_csv(path: Path, data: Mapping[str, pd.DataFrame]) -> dict[str, Entry]:
    """Predictions with the columns image, region (or id), score, and perhaps task (quality if there is none), std, and data.

    Scores may have any scale; higher is better. One that is no finite number counts as an answer that did not parse, and is told in the
    entry's `notes`; a region without a row for a task that other regions have is one that was not asked, and its `<task>_parsed` is None.

    Args:
        data: the name of each data set -> a table of its regions and their labels.

    Returns:
        The name of each data set that the file has rows of -> the file's predictions there. A row is of the data set that has its region
        in its image; where several have, the column data tells which.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, has no rows or is no UTF-8, or it has fields that no comma separates, more of them than names, columns,
            tasks or data sets that are not these, a region twice, one that no data set has, or has in another image, or one that several
            have and no name tells apart.
    """
    require(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and its name ends in .csv as that of a file of predictions does: give a run another name")
    rows = _read_rows(path)
    strange = sorted(set(rows["task"].astype(str)) - set(SCORES))
    if strange:
        raise ValueError(f"{path} has the task {strange[0]!r}: allowed are {list(SCORES)}")
    nowhere = sorted(set(rows["data"].dropna()) - set(data))
    if nowhere:
        raise ValueError(f"{path} has the data set {nowhere[0]!r}: the runs were measured on {list(data)}")
    own = {name: _rows_of(rows, name, known) for name, known in data.items()}
    _check_places(path, rows, own, data)
    found = {name: _predictions(path, rows[mine], data[name]) for name, mine in own.items() if mine.any()}
    place = path.resolve()
    return {
        name: Entry(path.stem, table, file=True, notes=tuple(notes), identity=str(place), origin=place.parent.name)
        for name, (table, notes) in found.items()
    }


def _read_rows(path: Path) -> pd.DataFrame:
    """The rows of a file as text, with all columns but `std`; a row's index is two less than its line."""
    try:
        head = path.read_text(encoding="utf-8-sig").partition("\n")[0].rstrip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: its byte {error.start} is {error.object[error.start]:#x}; if it is Latin-1, "
            f"pandas.read_csv(path, encoding='latin-1').to_csv(path, index=False) writes such a file"
        ) from error
    separator = next((s for s in (";", "\t", "|") if s in head and "," not in head), None)
    if separator:
        raise ValueError(
            f"{path} separates its columns by {separator!r}, as its first line {head!r} says: commas are allowed, with points in numbers; "
            f"pandas.read_csv(path, sep={separator!r}, decimal=',').to_csv(path, index=False) writes such a file"
        )
    try:
        rows = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig", skipinitialspace=", " in head
        ).fillna("")
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty: its first line names the columns image, region (or id) and score") from error
    except pd.errors.ParserError as error:
        raise ValueError(f"{path}: {str(error).strip()}: each row needs as many fields as the first line, and numbers a point") from error
    if not isinstance(rows.index, pd.RangeIndex):
        raise ValueError(f"{path} has more fields in a row than names in its first line, {head!r}: numbers need a point, names no comma")
    rows = rows[(rows != "").any(axis=1)].rename(columns=str.strip)
    rows = rows.rename(columns={} if "region" in rows else {"id": "region"})
    missing = [c for c in ("image", "region", "score") if c not in rows]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}; it has {list(rows.columns)}, and needs image, region (or id) and score")
    if not len(rows):
        raise ValueError(f"{path} has no rows below its first line: each region of a run's scores.parquet needs one, with its score")
    return rows.assign(task=rows.get("task", "quality"), data=rows["data"].where(rows["data"] != "", None) if "data" in rows else None)


def _rows_of(rows: pd.DataFrame, name: str, known: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are of a data set: it has their region in their image, and they do not name another."""
    home = known.set_index("id")["image"].astype(str)
    return (rows["region"].map(home) == rows["image"]) & (rows["data"].isna() | rows["data"].eq(name))


def _check_places(path: Path, rows: pd.DataFrame, own: Mapping[str, pd.Series[bool]], data: Mapping[str, pd.DataFrame]) -> None:
    times = np.sum(list(own.values()), axis=0)
    unknown = rows[times == 0]
    if len(unknown):
        first, home = unknown.iloc[0], next(iter(data.values())).iloc[0]
        raise ValueError(
            f"{path}: {len(unknown)} of {len(rows)} regions are not among those of the runs, the first is {first['region']!r} of image "
            f"{first['image']!r}: use the ids of a run's scores.parquet, such as {home['id']!r} of {home['image']!r}"
        )
    several = rows[times > 1]
    if len(several):
        region = several["region"].iloc[0]
        raise ValueError(
            f"{path}: {len(several)} of {len(rows)} regions are in several data sets by their names, the first is {region!r}, in "
            f"{[name for name, mine in own.items() if mine[several.index[0]]]}: add a column data that says which a row is about"
        )


def _predictions(path: Path, rows: pd.DataFrame, known: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table of the regions that `rows`, of one data set, are about; and which scores are no numbers."""
    twice = rows[rows.duplicated(["region", "task"])]
    if len(twice):
        raise ValueError(f"{path} scores {len(twice)} regions twice, the first is {twice['region'].iloc[0]!r}: keep one score of each")
    table = known.loc[known["id"].isin(rows["region"]), [c for c in _PLACE if c in known]].reset_index(drop=True)
    notes = []
    for task, own in rows.groupby("task"):
        numbers = pd.to_numeric(own["score"], errors="coerce").replace([np.inf, -np.inf], np.nan)
        bad = own["score"][numbers.isna()]
        if len(bad):
            first = f"{bad.iloc[0]!r} in line {bad.index[0] + 2}"
            notes.append(
                f"{len(bad):,} of {len(own):,} scores of {task} are no finite numbers, the first is {first}: they count as unparsed"
            )
        scores = numbers.set_axis(own["region"])
        table[f"{task}_pred"] = table["id"].map(scores).astype(np.float64)
        table[f"{task}_parsed"] = table[f"{task}_pred"].notna().astype(object).where(table["id"].isin(own["region"]), None)
        if "std" in own:
            table[f"{task}_std"] = table["id"].map(pd.to_numeric(own.set_index("region")["std"], errors="coerce"))
    return table, notes


def agree(first: Entry, other: Entry) -> bool:
    """Whether two entries were measured on the same data: they share regions, and no label of these differs."""
    return not set(first.table["id"]).isdisjoint(other.table["id"]) and disputed(first, other) is None


def disputed(first: Entry, other: Entry) -> tuple[str, str, Any, Any] | None:
    """The first region that two entries label differently: its id, the column, and both values; None where no label of theirs differs."""
    common = sorted(set(first.table["id"]) & set(other.table["id"]))
    a, b = (e.table.set_index("id").loc[common] for e in (first, other))
    for column in _LABELS:
        differ = np.flatnonzero(~_equal(a[column], b[column], column))
        if len(differ):
            return common[differ[0]], column, a[column].iloc[differ[0]], b[column].iloc[differ[0]]
    return None


def align(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, Any]]:
    """The entries with their regions in one order, and who scored which: nobody loses a region that another lacks.

    Which regions are compared is decided task by task, among the models that were asked (`participants.answered`). Of every task that an
    entry was asked, `coverage` counts the regions with a label (`labelled`), of these the answers that did not parse (`unparsed`, with
    those whose score is no number) and those without any (`skipped`: no row, or one that was not asked).

    Raises:
        ValueError: names that occur twice, an entry that shares no region with another, or labels, images or sources that differ.
    """
    names = [e.name for e in entries]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"two entries are named {twice[0]!r}: rename a folder or a file, the tables go by these names")
    told = [e.table[["id", *_PLACES, *_LABELS]].assign(told_by=e.name) for e in entries]
    known = pd.concat(told).drop_duplicates("id", ignore_index=True)
    order = pd.Series(known.index, index=known["id"])
    same = [replace(e, table=e.table.sort_values("id", key=lambda ids: ids.map(order), ignore_index=True)) for e in entries]
    counts = pd.concat([e.table["id"] for e in same]).value_counts()
    apart = [e.name for e in same if len(same) > 1 and counts[e.table["id"]].max() < 2]
    if apart:
        raise ValueError(f"no region of {apart[0]} was scored by another of {names}: were they measured on the same data and split?")
    for entry in same[1:]:
        _same_labels(known.set_index("id").loc[entry.table["id"]].reset_index(), entry)
    prints = {e.name: e.data for e in entries if e.data is not None}
    return same, {
        "regions": len(known),
        "sources": known["source"].nunique(),
        "scored_by_all": int((counts == len(same)).sum()),
        "fingerprints": prints,
        "same_data": len(set(prints.values())) <= 1,
        "coverage": {e.name: {t: _coverage(e.table, known, t) for t in TASKS if e.answers(t)} for e in same},
    }


def heard(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """The labelled regions whose answer counts: one that did not parse is a wrong one about distortions, and none about a score."""
    if task == "distortion":
        return table[table["types"].notna() & table["distortion_parsed"].notna()]
    return usable(table, cast("Score", task))


def label_column(task: str) -> str:
    """The column that holds a label of the regions that have one."""
    return "types" if task == "distortion" else task


def _coverage(table: pd.DataFrame, known: pd.DataFrame, task: str) -> dict[str, int]:
    label = label_column(task)
    labelled, failed = int(known[label].notna().sum()), int(unparsed(table[table[label].notna()], task).sum())
    answered = int(heard(table, task)[f"{task}_parsed"].eq(True).sum())
    return {"labelled": labelled, "unparsed": failed, "skipped": labelled - failed - answered}


_MIXED = {
    **dict.fromkeys(_LABELS, "they were measured on different data"),
    "image": "numbers within images would be of other images",
    "source": "intervals and splits go over sources, and would be of other ones",
}


def _same_labels(known: pd.DataFrame, other: Entry) -> None:
    """Raises ValueError where an entry's labels, images or sources are not those `known` of the same rows."""
    for column in (*_LABELS, *_PLACES):
        a, b = known[column], other.table[column]
        differ = np.flatnonzero(~_equal(a, b, column))
        if len(differ):
            at = int(differ[0])
            what = f"{column}s" if column in _PLACES else f"{column} labels"
            raise ValueError(
                f"{known['told_by'][at]} and {other.name} have different {what} for {len(differ)} regions, the first is "
                f"{known['id'][at]!r} ({a[at]} and {b[at]}): {_MIXED[column]}; measure both again with eval.py"
            )


def _equal(a: pd.Series[Any], b: pd.Series[Any], column: str) -> NDArray[np.bool_]:
    if column in SCORES:
        return np.isclose(a.astype(np.float64), b.astype(np.float64), atol=1e-6, equal_nan=True)
    return ((a == b) | (a.isna() & b.isna())).to_numpy(np.bool_)
