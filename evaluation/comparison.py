"""Several models on the same regions: tables, intervals, paired differences, figures, and one page."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.tasks import TASKS
from evaluation import ranking, remarks
from evaluation.bootstrap import FEW_SOURCES, LEAST, SCALE, difference, interval, samples
from evaluation.classification import read_classes
from evaluation.comparison_page import write_page
from evaluation.correlations import MIN_POINTS, srcc
from evaluation.differences import paired
from evaluation.entries import Entry, align, heard
from evaluation.participants import Coverage, Tables, alike, alone, answered, remedies, without_answer
from evaluation.protocols import CLEAN, MIN_REGIONS, SCORES, UNGRADED, Score, distortion_agreement, graded, plain, score_agreement
from evaluation.report import Images, write_whole
from evaluation.splits import MIN_SOURCES, Splits, draw_splits, over_splits
from evaluation.weighted import (
    Ranks,
    Statistic,
    krcc_of,
    macro_f1_of,
    pair_accuracy_of,
    plcc_fitted_of,
    plcc_of,
    ratio_of,
    rmse_of,
    srcc_of,
    within_of,
)

CONTROL = "whole_image"  # SRCC of the whole-image answers: what a model's own is above it has the interval


def compare(
    entries: Sequence[Entry],
    out: Path,
    images: Images | None = None,
    draws: int = 1000,
    seed: int = 0,
    splits: Splits | None = None,
    absent: Mapping[str, str] | None = None,
    made_of: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes comparison.json, .csv, .md, .tex, splits.json and report.html into `out`, and returns what the first holds.

    Each task is judged on the regions that all of its models answered and that have a label. A task that a model was not asked, or of
    which it answered so little that the others would lose their regions, is absent from its results and a dash in the tables; the second
    is told in `notes`. How many regions each model skipped, failed on, or lost by another is in its `coverage`. Intervals and differences
    are those of `bootstrap`, over sources; Holm's correction is over the differences of a task in one statistic.

    Args:
        images: a region's id -> its image (H, W, 3) uint8 and mask (H, W) bool; without it the page has no gallery.
        splits: of the sources, for the medians over splits; ten random halves where none are given, nothing below four sources.
        absent: models that should take part and do not -> why; the page names them.
        made_of: as `place.made_of` has it, for comparison.json.

    Raises:
        ValueError: fewer than two entries, no task that two of them answered, or one that lacks so many regions that nothing is left to
            compare; such that `entries.align` refuses; or splits of other sources.
    """
    if len(entries) < 2:
        raise ValueError(f"{len(entries)} entries: a comparison needs at least two")
    result, tables, same, splits = judge(entries, draws, seed, splits)
    result |= {"absent": dict(absent or {}), "made_of": made_of}
    out.mkdir(parents=True, exist_ok=True)
    if splits:
        write_whole(out / "splits.json", splits.to_json().encode())
    _write_tables(out, result)
    write_page(out, result, tables, same, images)
    return result


Judged = tuple[dict[str, Any], dict[str, dict[str, pd.DataFrame]], list[Entry], Splits | None]


def judge(entries: Sequence[Entry], draws: int = 1000, seed: int = 0, splits: Splits | None = None) -> Judged:
    """What `compare` returns, of one entry or several; task -> model -> the rows compared; the aligned entries; the splits.

    Raises:
        ValueError: as `compare` does.
    """
    same, told = align(entries)
    notes = [*(f"{e.name}: {note}" for e in same for note in e.notes), *remarks.other_training(same)]
    coverage = told.pop("coverage")
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    absent: set[tuple[str, str]] = set()
    for task in TASKS:
        tables[task], excluded = answered(same, task)
        notes += [f"{name} is left out of {task}: {reason}" for name, reason in excluded.items()]
        absent |= {(name, task) for name in excluded}
        notes += without_answer(same, task, tables, coverage)
    if absent and max(map(len, tables.values())) < 2:
        raise ValueError(f"nothing is left to compare. {'; '.join(notes)}: {remedies([coverage[n][t] for n, t in absent])}")
    notes += alone(same, tables)
    models = {e.name: _model(e, coverage, tables) for e in same}
    splits = splits or _halves(pd.concat([e.table["source"] for e in same]), seed)
    differences: list[dict[str, Any]] = []
    for task in SCORES:
        for name, rows in tables[task].items():
            dealt = {"splits": over_splits(rows, task, splits)} if splits and len(rows) else {}
            models[name][task] = _score(rows, task) | dealt
        notes += [*remarks.equal_answers(models, task), *remarks.reversed_scale(models, task), *remarks.failed_fits(models, task)]
    classes = [_class_statistics(tables["distortion"], t) for t in ("distortion", "severity")]
    for judged, statistics, sources in [*(score_statistics(tables[t], t) for t in SCORES), *classes]:
        differences += _uncertainty(models, judged, statistics, _same_answers(tables, judged), sources, draws, seed)
    notes += [line for task in SCORES for line in remarks.blind(models, tables[task], task)]
    used = {"hash": splits.hash, "repeats": len(splits.held_out), "seed": splits.seed} if splits else None
    told["judged"] = {task: len(next(iter(own.values()))) for task, own in tables.items() if own}
    told |= {"notes": notes, "draws": draws, "seed": seed, "splits": used}
    return plain({**told, "models": models, "differences": differences}), tables, same, splits


def _halves(sources: pd.Series[Any], seed: int) -> Splits | None:
    return draw_splits(sources, seed=seed) if sources.nunique() >= MIN_SOURCES else None


def _model(entry: Entry, coverage: Coverage, tables: Tables) -> dict[str, Any]:
    """What is not about one score: cost, distortions, and why each task's rows are not all that have a label."""
    own = coverage[entry.name]
    out: dict[str, Any] = {
        "parameters": entry.parameters,
        "ms_per_region": entry.ms_per_region,
        "peak_gib": entry.peak_gib,
        "device": entry.device,
        "file": entry.file,
        **{key: getattr(entry, key) for key in ("trained_on", "steps", "seed", "commit")},
        **{key: sum(counted[key] for counted in own.values()) for key in ("unparsed", "skipped")},
        "coverage": {},
    }
    for task, counted in own.items():
        judged = len(tables[task].get(entry.name, ()))
        lost = len(heard(entry.table, task)) - judged
        out["coverage"][task] = {**counted, "left_out": lost, "judged": judged}
    rows = tables["distortion"].get(entry.name)
    return out if rows is None else out | {k: v for k, v in distortion_agreement(rows).items() if v["n"]}


def _score(rows: pd.DataFrame, task: Score) -> dict[str, Any]:
    found = score_agreement(rows, task)
    if not _on_scale(rows, task):
        found |= {"rmse": None, "at_bounds": None}
    control = rows.dropna(subset=[f"{task}_image"]) if f"{task}_image" in rows else rows.iloc[:0]
    found["whole_image"] = srcc(control[f"{task}_image"], control[task]) if len(control) else None
    found["whole_image_reason"] = _no_control(control, task)
    found["over_whole_image"] = None  # until there is an interval of it
    return found


def _no_control(control: pd.DataFrame, task: Score) -> str:
    """Why the whole-image answers have no correlation, "" where they have one."""
    if control.empty:
        return "its predictions hold none"
    if len(control) < MIN_POINTS:
        return f"it is of {len(control)} regions, and at least {MIN_POINTS} are needed"
    flat = [name for name, column in (("its answers", f"{task}_image"), ("the labels", task)) if np.ptp(control[column]) == 0]
    return f"{flat[0]} are all equal" if flat else ""


def _on_scale(rows: pd.DataFrame, task: Score) -> bool:
    """Whether predictions can be on the labels' scale, [0, 1]; on another an error has no unit."""
    return bool(rows[f"{task}_pred"].between(0, 1).all())


def score_statistics(tables: Mapping[str, pd.DataFrame], task: Score) -> tuple[str, dict[str, dict[str, Statistic]], Any]:
    """The task; of each model the statistics of its score that have an interval, and `CONTROL`; and the rows' sources, (N,)."""
    statistics: dict[str, dict[str, Statistic]] = {}
    sources = _sources(tables)
    ranks: Ranks | None = None  # the labels are the same for all
    for name, rows in tables.items():
        if rows.empty:
            continue
        ranks = ranks or Ranks(rows[task])
        pair = rows[f"{task}_pred"].to_numpy(np.float64), rows[task].to_numpy(np.float64)
        statistics[name] = {
            "srcc": srcc_of(*pair, ranks),
            "plcc": plcc_of(*pair),
            "krcc": krcc_of(*pair, sources),
        }
        if np.ptp(pair[0]) > 0:  # of equal predictions these are 0 and a half by definition, without an error
            statistics[name]["within_image_srcc"] = within_of(*pair, rows["image"], MIN_REGIONS)
            statistics[name]["pair_accuracy"] = pair_accuracy_of(*pair, rows["image"])
        fitted = plcc_fitted_of(*pair)
        if fitted is not None:
            statistics[name]["plcc_fitted"] = fitted
        if _on_scale(rows, task):
            statistics[name]["rmse"] = rmse_of(*pair)
        if _has_control(rows, task):
            statistics[name][CONTROL] = srcc_of(rows[f"{task}_image"], rows[task], ranks)
    return task, statistics, sources


def _has_control(rows: pd.DataFrame, task: Score) -> bool:
    """Whether SRCC of the model shown the whole image and its own exist, and all of its regions were asked about so."""
    columns = [f"{task}_image", f"{task}_pred", task]
    return columns[0] in rows and len(rows) >= MIN_POINTS and bool(rows[columns[0]].notna().all() and rows[columns].nunique().min() > 1)


def _same_answers(tables: Tables, task: str) -> set[frozenset[str]]:
    """The pairs of models whose answers about a task, or about the severity, are the same on all regions that are compared."""
    if task in SCORES:
        return alike(tables[task], f"{task}_pred", f"{task}_parsed")
    rows = tables["distortion"]
    if task == "severity":
        return alike({n: graded(own) for n, own in rows.items() if len(own)}, "severities_pred", "distortion_parsed")
    return alike(rows, "types_pred", "distortion_parsed")


def _class_statistics(tables: Mapping[str, pd.DataFrame], task: str) -> tuple[str, dict[str, dict[str, Statistic]], Any]:
    """Of the type ("distortion") or the severity; an answer that did not parse names no class."""
    column, empty, drop = ("types", CLEAN, None) if task == "distortion" else ("severities", UNGRADED, UNGRADED)
    rows = {name: own if task == "distortion" else graded(own) for name, own in tables.items()}
    statistics: dict[str, dict[str, Statistic]] = {}
    for name, own in rows.items():
        if own.empty:
            continue
        label = [read_classes(t, empty) or frozenset() for t in own[column]]
        parsed = own["distortion_parsed"].eq(True)
        pred = [(read_classes(t, empty) or frozenset()) if ok else frozenset() for t, ok in zip(own[f"{column}_pred"], parsed, strict=True)]
        classes = sorted(frozenset().union(*label, *pred) - {drop})
        truth, answer = (np.array([[c in s for c in classes] for s in side], np.bool_) for side in (label, pred))
        right = [t == a for t, a in zip(label, pred, strict=True)]
        statistics[name] = {"macro_f1": macro_f1_of(truth, answer), "accuracy": ratio_of(right)}
    return task, statistics, _sources(rows)


def _sources(tables: Mapping[str, pd.DataFrame]) -> Any:
    """The sources (N,) of the N rows compared: every model has these rows, and `align` refuses one whose sources are others."""
    return next((rows["source"].to_numpy() for rows in tables.values()), np.empty(0, object))


def _uncertainty(
    models: dict[str, dict[str, Any]],
    task: str,
    statistics: Mapping[str, Mapping[str, Statistic]],
    same: Collection[frozenset[str]],
    sources: Any,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Adds `intervals` to each model's task, that of what its SRCC is above its control's among them, and returns the paired differences of
    all others; `same` are the pairs whose answers are."""
    if not statistics:
        return []
    flat = [(name, key) for name, own in statistics.items() for key in own]
    found = dict(zip(flat, samples([statistics[name][key] for name, key in flat], sources, draws, seed, bar=True), strict=True))
    for name, key in flat:
        if key == CONTROL:
            above = asdict(difference(found[name, "srcc"], found[name, key], SCALE["srcc"]))
            models[name][task]["over_whole_image"] = above["estimate"]
            told = {k: v for k, v in above.items() if k not in ("p", "untested")}
            models[name][task].setdefault("intervals", {})["over_whole_image"] = told
        else:
            told = asdict(interval(found[name, key], SCALE[key], LEAST.get(key, FEW_SOURCES)))
            models[name][task].setdefault("intervals", {})[key] = told
    return paired(task, {place: sample for place, sample in found.items() if place[1] != CONTROL}, same)


def _write_tables(out: Path, result: Mapping[str, Any]) -> None:
    models = result["models"]
    write_whole(out / "comparison.json", json.dumps(result, indent=2, ensure_ascii=False).encode())
    sections = ranking.sections(models, SCORES).items()
    told = [*result["notes"], *ranking.explained(models, SCORES)]
    tables = "\n".join(f"## {title}\n\n{s.legend}\n\n{ranking.markdown(ranking.rows_of(models, s), s.columns)}" for title, s in sections)
    write_whole(out / "comparison.md", (tables + "".join(["\n## Notes\n\n", *(f"- {line}\n" for line in told)])).encode())
    drawn = "\n".join(f"% {title}\n{ranking.latex(ranking.rows_of(models, s), s.columns)}" for title, s in sections)
    write_whole(out / "comparison.tex", (drawn + "".join(f"% {line}\n" for line in told)).encode())
    flat = pd.json_normalize([{"model": name, **m} for name, m in models.items()])
    kept = [c for c in flat if not str(c).endswith((".confusion", ".labels"))]  # tables of their own, in comparison.json
    write_whole(out / "comparison.csv", flat[kept].to_csv(index=False).encode())
    write_whole(out / "differences.csv", pd.DataFrame(result["differences"]).to_csv(index=False).encode())
