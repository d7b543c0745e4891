"""The numbers of one run: a table with one row per region in, a nested dictionary of plain numbers out.

Correlations are pooled over regions, and taken within each image as well, because the two answer different questions. The
whole-image control asks the same model about the whole image in place of each region; the image-mean control gives each region the
mean of the model's own answers about its image's regions. A model that its controls equal is not looking at the region.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from components.prompts import CLEAN, SEVERITIES
from components.tasks import TASKS
from evaluation.classification import SEVERAL, Classes, Classification, classify, read_classes
from evaluation.correlations import Vector, fit_logistic, krcc, plcc, plcc_fitted, rmse, rmse_fitted, srcc
from evaluation.grouped import ordered_pairs, within

Score = Literal["quality", "importance"]
SCORES: tuple[Score, ...] = ("quality", "importance")
CONTROLS = ("whole_image", "image_mean")
UNGRADED = "none"  # the severity of an answer that names none
MIN_REGIONS = 3  # of an image, for a correlation within it
MIN_GROUP = 10  # regions of a type or a size, for a correlation
AREAS = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)  # bounds of the sizes, as shares of the image

_ALWAYS = ("id", "image", "source")
_LABELS = {"quality": ("quality",), "importance": ("importance",), "distortion": ("types", "severities")}
_ANSWERS = {"quality": ("quality_pred",), "importance": ("importance_pred",), "distortion": ("types_pred", "severities_pred")}


def evaluate(table: pd.DataFrame) -> dict[str, Any]:
    """Every number of the report, JSON-ready; None stands for a number that does not exist.

    A task was asked if `table` has its column `<task>_parsed`. `dropped` counts the regions that have no label or whose answer did not
    parse, which enter no correlation; in classification an answer that did not parse counts as wrong. `distinct` is the number of
    different predicted values: 1 means that the model collapsed, few mean ties; `tied` counts the regions that share theirs.
    `unparsed` counts the answers that did not parse, of all regions, labelled or not.

    Raises:
        ValueError: columns missing, regions that occur twice, or scores that are infinite.
    """
    _check(table)
    failed = {task: int(unparsed(table, task).sum()) for task in TASKS if asked(table, task)}
    return plain(
        {
            **{task: score_agreement(table, task) for task in SCORES},
            **distortion_agreement(table),
            "control": {
                "whole_image": {task: _control(table, task) for task in SCORES},
                "image_mean": {task: _image_mean(table, task) for task in SCORES},
            },
            "unparsed": sum(failed.values()),
            "unparsed_by_task": failed,
            "n_regions": len(table),
            "n_images": table["image"].nunique(),
            "n_sources": table["source"].nunique(),
        }
    )


def asked(table: pd.DataFrame, task: str) -> bool:
    """Whether the model was asked this question."""
    return f"{task}_parsed" in table.columns


def unparsed(table: pd.DataFrame, task: str) -> pd.Series[bool]:
    """Of which regions the answer did not parse; a score that is said to have parsed and is no number counts as such."""
    parsed = table[f"{task}_parsed"]
    return parsed.eq(False) | (parsed.eq(True) & table[f"{task}_pred"].isna()) if task in SCORES else parsed.eq(False)


def usable(table: pd.DataFrame, task: Score) -> pd.DataFrame:
    """The regions with a label and an answer, those that enter the task's correlations."""
    if not asked(table, task):
        return table.iloc[:0].assign(**{f"{task}_pred": pd.Series(dtype=np.float64)})
    return table[_parsed(table, task) & table[task].notna() & table[f"{task}_pred"].notna()]


def score_agreement(table: pd.DataFrame, task: Score) -> dict[str, Any]:
    """One score task: pooled correlations, the order within images, and SRCC by labelled distortion and by share of the image."""
    rows = usable(table, task)
    pred, label = _columns(rows, f"{task}_pred", task)
    counts = np.unique(pred, return_counts=True)[1]
    fit, five = fit_logistic(pred, label), fit_logistic(pred, label, 5)
    within = within_image(rows, task)
    return {
        "srcc": srcc(pred, label),
        "plcc": plcc(pred, label),
        "plcc_fitted": plcc_fitted(pred, label, fit),
        "plcc_fitted_5": plcc_fitted(pred, label, five),
        "krcc": krcc(pred, label),
        "rmse": rmse(pred, label),
        "rmse_fitted": rmse_fitted(pred, label, fit),
        "n": len(rows),
        "dropped": len(table) - len(rows) if asked(table, task) else 0,
        "fit_converged": fit.converged,
        "fit_reason": fit.reason,
        "fit_5_converged": five.converged,
        "fit_5_reason": five.reason,
        "distinct": len(counts),
        "tied": int(counts[counts > 1].sum()),
        "at_bounds": int(((pred <= 0) | (pred >= 1)).sum()),
        "within_image_srcc": float(np.mean(within)) if within else math.nan,
        "within_image_images": len(within),
        "pair_accuracy": pair_accuracy(rows, task),
        "by_type": by_group(rows, task, pd.Series(type_names(rows), index=rows.index, dtype=object)),
        "by_area": by_group(rows, task, area_bins(rows)) if "area" in rows else {},
    }


def within_image(rows: pd.DataFrame, task: Score) -> list[float]:
    """SRCC of each image with at least three regions of differing labels; 0 where all its predictions are equal, as nothing was ordered."""
    found = within(*_columns(rows, f"{task}_pred", task), pd.factorize(rows["image"])[0])
    counted: list[float] = found.srcc[(found.sizes >= MIN_REGIONS) & ~np.isnan(found.srcc)].tolist()
    return counted


def pair_accuracy(rows: pd.DataFrame, task: Score) -> float:
    """Share of the pairs of regions of one image with differing labels that the predictions order rightly, in [0, 1]; a tie counts half."""
    right, pairs = ordered_pairs(*_columns(rows, f"{task}_pred", task), pd.factorize(rows["image"])[0])
    return right / pairs if pairs else math.nan


def by_group(rows: pd.DataFrame, task: Score, groups: pd.Series[Any]) -> dict[str, dict[str, Any]]:
    """SRCC within each group of regions, nan where it has fewer than ten."""
    out = {}
    for name, own in rows.groupby(groups, observed=True, sort=True):
        value = srcc(own[f"{task}_pred"], own[task]) if len(own) >= MIN_GROUP else float("nan")
        out[str(name)] = {"srcc": value, "n": len(own)}
    return out


def area_bins(rows: pd.DataFrame) -> pd.Series[Any]:
    """The bin of each region's share of its image."""
    names = [f"{low:.0%}-{high:.0%}" for low, high in pairwise(AREAS)]
    bins: pd.Series[Any] = pd.cut(rows["area"], AREAS, labels=names, include_lowest=True)
    return bins


def type_names(rows: pd.DataFrame) -> list[str]:
    """One name for each region's labelled distortion: its type, "clean", "several", or "unlabelled"."""
    sets = [read_classes(text, CLEAN) for text in rows["types"]]
    return ["unlabelled" if s is None else next(iter(s)) if len(s) == 1 else SEVERAL for s in sets]


def distortion_agreement(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """ "distortion": the types of all labelled regions, "clean" where there is none. "severity": the severities of the regions whose label
    is not clean, whatever types the answer gave them; "none" where the answer names no severity."""
    rows = table[table["types"].notna()] if asked(table, "distortion") else table.iloc[:0]
    severe = graded(rows)
    types = classify(_known(rows["types"], CLEAN), _answers(rows, "types_pred", CLEAN), (CLEAN,))
    severity = classify(_known(severe["severities"], UNGRADED), _answers(severe, "severities_pred", UNGRADED), SEVERITIES, (UNGRADED,))
    return {"distortion": _classification(types, "per_type_f1"), "severity": _classification(severity, "per_severity_f1")}


def _classification(result: Classification, per_class: str) -> dict[str, Any]:
    return {
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
        per_class: result.per_class_f1,
        "precision": result.precision,
        "recall": result.recall,
        "f1": result.f1,
        "n": result.n,
        "labels": list(result.labels),
        "confusion": result.confusion.tolist(),
    }


def graded(rows: pd.DataFrame) -> pd.DataFrame:
    """The regions whose label names a distortion and a severity."""
    clean, unknown = frozenset({CLEAN}), (None, frozenset({UNGRADED}))
    labels = zip(_read(rows["types"], CLEAN), _read(rows["severities"], UNGRADED), strict=True)
    return rows[np.array([t != clean and s not in unknown for t, s in labels], np.bool_)]


def _control(table: pd.DataFrame, task: Score) -> dict[str, Any]:
    """The whole-image score against the labels, on the regions that enter the model's own correlations."""
    column = f"{task}_image"
    rows = usable(table, task)
    rows = rows[rows[column].notna()] if column in table.columns else rows.iloc[:0].assign(**{column: pd.Series(dtype=np.float64)})
    pred, label = _columns(rows, column, task)
    return {"srcc": srcc(pred, label), "plcc": plcc(pred, label), "rmse": rmse(pred, label), "n": len(rows)}


def _image_mean(table: pd.DataFrame, task: Score) -> dict[str, Any]:
    """Each region gets the mean of the model's own answers about its image's regions: what is left when regions are not told apart."""
    rows = usable(table, task)
    mean = rows.groupby("image")[f"{task}_pred"].transform("mean")
    pred, label = _columns(rows.assign(**{f"{task}_pred": mean}), f"{task}_pred", task)
    return {"srcc": srcc(pred, label), "plcc": plcc(pred, label), "rmse": rmse(pred, label), "n": len(rows)}


def _columns(rows: pd.DataFrame, pred: str, label: str) -> tuple[Vector, Vector]:
    return rows[pred].to_numpy(np.float64), rows[label].to_numpy(np.float64)


def _parsed(table: pd.DataFrame, task: str) -> pd.Series[bool]:
    return table[f"{task}_parsed"].eq(True)


def _read(column: pd.Series[Any], empty: str) -> list[Classes | None]:
    return [read_classes(text, empty) for text in column]


def _known(column: pd.Series[Any], empty: str) -> list[Classes]:
    return [c for c in _read(column, empty) if c is not None]


def _answers(rows: pd.DataFrame, column: str, empty: str) -> list[Classes | None]:
    if rows.empty:
        return []
    return [c if ok else None for c, ok in zip(_read(rows[column], empty), _parsed(rows, "distortion"), strict=True)]


def _check(table: pd.DataFrame) -> None:
    needed = [*_ALWAYS, *(c for task in TASKS for c in _LABELS[task])]
    needed += [c for task in TASKS if asked(table, task) for c in _ANSWERS[task]]
    missing = [c for c in needed if c not in table.columns]
    if missing:
        raise ValueError(
            f"the table lacks {missing}; it has {list(table.columns)}. A task that was not asked has no `<task>_parsed` column"
        )
    twice = table["id"][table["id"].duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{len(twice)} regions occur more than once, the first is {twice[0]!r}: drop the duplicates a sampler may have padded with"
        )


def plain(value: Any) -> Any:
    """Python's own types all the way down, nan as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value
