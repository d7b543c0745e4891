"""Paired differences of several models, in families: those of one task in one statistic, which Holm's correction is over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

from evaluation.bootstrap import FEW_SOURCES, LEAST, SCALE, SIGNIFICANT, Sample, difference, holm

LEADING = ("srcc", "macro_f1")  # of each task one statistic: headline, figures and terminal are about it
LOWER = ("rmse",)  # statistics of which less is better


def paired(task: str, drawn: Mapping[tuple[str, str], Sample], same: Collection[frozenset[str]]) -> list[dict[str, Any]]:
    """A row for each statistic and pair of models that both have it, statistics and models in the order in which `drawn` has them.

    Args:
        drawn: (model, statistic) -> its sample; all are of the same draws, so that those of a difference are the differences of theirs.
        same: the pairs of models whose answers are the same.

    Returns:
        What `bootstrap.Difference` holds of first - second, and `p_holm`, corrected within the family; `same_predictions`; and `ahead`, the
        model that is better, where that is told from chance, else None.
    """
    rows: list[dict[str, Any]] = []
    for statistic in dict.fromkeys(key for _, key in drawn):
        pairs = list(combinations([name for name, key in drawn if key == statistic], 2))
        least = LEAST.get(statistic, FEW_SOURCES)
        found = [difference(drawn[a, statistic], drawn[b, statistic], SCALE[statistic], {a, b} in same, least) for a, b in pairs]
        for (first, second), own, p in zip(pairs, found, holm([d.p for d in found]), strict=True):
            row = {"task": task, "statistic": statistic, "first": first, "second": second, **asdict(own), "p_holm": p}
            rows.append({**row, "same_predictions": {first, second} in same, "ahead": _ahead(row)})
    return rows


def leading(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The differences of each task's leading statistic."""
    return [row for row in rows if row["statistic"] in LEADING]


def families(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The differences of all other statistics: (task, statistic) -> those that were corrected together."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["statistic"] not in LEADING:
            found.setdefault((row["task"], row["statistic"]), []).append(row)
    return found


def untested(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a leading difference has no p-value since its sources are too few."""
    return any(row["untested"] for row in leading(rows))


def told_from_chance(row: Mapping[str, Any]) -> bool:
    """Whether a difference is a finding: sources are enough to test it, and its corrected p says so."""
    p = row["p_holm"]
    return not row["untested"] and p is not None and p < SIGNIFICANT


def _ahead(row: Mapping[str, Any]) -> str | None:
    """The better model, where the difference is told from chance."""
    if not told_from_chance(row):
        return None
    return str(row["first"] if (row["estimate"] < 0) == (row["statistic"] in LOWER) else row["second"])
