"""What the answers of a model in a comparison tell against taking its numbers as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from evaluation.entries import Entry
from evaluation.protocols import Score

REVERSED = -0.3  # an SRCC below it is more likely a scale on which lower is better than a model
_SAME_SCORE = 1e-4  # the share of a model's variance that lies within images: below it, answers of one image differ by rounding
_DIGITS = 3  # of the tables

Models = Mapping[str, Mapping[str, Any]]


def reversed_scale(models: Models, task: Score) -> list[str]:
    """A line for each model that orders a task against its labels."""
    found = {name: m[task]["srcc"] for name, m in models.items() if task in m}
    return [
        f"{name} orders {task} against the labels (SRCC {value:.3f}): is a higher score better in it?"
        for name, value in found.items()
        if value < REVERSED
    ]


def blind(models: Models, rows: Mapping[str, pd.DataFrame], task: Score) -> list[str]:
    """A line for each model that does not look at the region: all regions of an image get one score, or it does as well without them.

    Args:
        rows: model -> what it was judged on.
    """
    found = []
    for name, own in rows.items():
        if _one_score(own, task):
            found.append(f"{task}: {name} gives all regions of an image one score: it does not look at the region")
        elif _no_gain(models[name][task]):
            told = models[name][task]
            if round(told["srcc"], _DIGITS) <= round(told["whole_image"], _DIGITS):
                said = "does as well where it is shown the whole image"
            else:
                said = "is not told from chance to do better than where it is shown the whole image"
            found.append(
                f"{task}: {name} {said} (SRCC {told['whole_image']:.{_DIGITS}f}, and {told['srcc']:.{_DIGITS}f} of the region), and its "
                "order within images is not told from chance: nothing says that it looks at the region"
            )
    return found


def equal_answers(models: Models, task: Score) -> list[str]:
    """A line for each model that gives all regions one score."""
    return [
        f"{task}: {name} gives all {m[task]['n']:,} regions the same score: it orders nothing, and half of its pairs count as right"
        for name, m in models.items()
        if task in m and m[task]["n"] > 1 and m[task]["distinct"] == 1
    ]


def other_training(entries: Sequence[Entry]) -> list[str]:
    """A line where models were trained on different data, as far as that is known."""
    data: dict[tuple[str, str], list[str]] = {}
    for entry in (e for e in entries if e.trained_on):
        data.setdefault((str(entry.trained_on), entry.trained_data or ""), []).append(entry.name)
    titles = [title for title, _ in data]
    told = [f"{t}{f' {mark[:8]}' if titles.count(t) > 1 and mark else ''} ({', '.join(own)})" for (t, mark), own in data.items()]
    return [f"the models were trained on different data: {'; '.join(told)}"] if len(data) > 1 else []


def failed_fits(models: Models, task: Score) -> list[str]:
    """A line for the models whose logistic does not exist in some of the splits, and in others does; a dash tells where none does."""
    lines: dict[tuple[int, int], list[str]] = {}
    for name, splits in ((n, m[task]["splits"]) for n, m in models.items() if "splits" in m.get(task, {})):
        if 0 < splits["failed_fits"] < splits["repeats"]:
            lines.setdefault((splits["failed_fits"], splits["repeats"]), []).append(name)
    return [
        f"{task}: in {failed} of {repeats} splits there is no fitted PLCC of {', '.join(names)}, and the median is that of the others"
        for (failed, repeats), names in sorted(lines.items())
    ]


def _one_score(rows: pd.DataFrame, task: Score) -> bool:
    """Whether the predictions differ between images and not within them; not where each image has one region."""
    pred = rows[f"{task}_pred"]
    if not rows["image"].duplicated().any() or pred.nunique() < 2:
        return False
    within = pred - pred.groupby(rows["image"]).transform("mean")
    return bool((within**2).mean() < _SAME_SCORE * pred.var(ddof=0))


def _no_gain(found: Mapping[str, Any]) -> bool:
    """Whether neither the difference from its control nor its order within images is told from 0."""
    if found["whole_image"] is None or found["srcc"] < REVERSED:  # of a reversed scale another line tells
        return False
    within, above = (found.get("intervals", {}).get(key) for key in ("within_image_srcc", "over_whole_image"))
    no_higher = round(found["srcc"], _DIGITS) <= round(found["whole_image"], _DIGITS) or (above and above["low"] <= 0)
    return bool(no_higher and within and within["low"] <= 0 <= within["high"])
