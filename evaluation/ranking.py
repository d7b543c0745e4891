"""The table of a comparison as text: for a terminal, as CSV, Markdown and LaTeX; best bold, second underlined, a dash for no answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.bootstrap import FEW_SOURCES, FEW_WITHIN
from evaluation.correlations import MIN_POINTS

DASH = "–"
NO_FIT = "no fit"


@dataclass(frozen=True)
class Column:
    """One column: the path of its number within a model's results, and which end is better ("" for no ranking).

    Attributes:
        within: the path of what must be the same for all models that have a number, or none is marked.
        failed: the path of why there is no number; where it is not empty, the cell says so in place of a dash.
        interval: what the path leads to is an interval, shown by its ends.
        words: it leads to words, shown as they are.
    """

    title: str
    path: tuple[str, ...]
    best: Literal["high", "low", ""] = "high"
    digits: int = 3
    within: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    interval: bool = False
    words: bool = False


@dataclass(frozen=True)
class Section:
    """One table of a comparison.

    Attributes:
        about: the task it is about, "" for none.
        legend: what a reader must know about its columns.
    """

    about: str
    columns: Sequence[Column]
    legend: str = ""


HEADLINE = [
    Column("Quality SRCC", ("quality", "srcc")),
    Column("in image", ("quality", "within_image_srcc")),
    Column("whole image", ("quality", "whole_image"), ""),
    Column("Importance SRCC", ("importance", "srcc")),
    Column("in image", ("importance", "within_image_srcc")),
    Column("whole image", ("importance", "whole_image"), ""),
    Column("Type macro-F1", ("distortion", "macro_f1")),
    Column("Severity macro-F1", ("severity", "macro_f1")),
    Column("Unparsed", ("unparsed",), "", 0),
    Column("Skipped", ("skipped",), "", 0),
]
COST = [
    Column("Parameters", ("parameters",), "low", 0),
    Column("ms/region", ("ms_per_region",), "low", 2, ("device",)),
    Column("Peak GiB", ("peak_gib",), "low", 2, ("device",)),
    Column("Regions quality", ("quality", "n"), "", 0),
    Column("Distinct quality", ("quality", "distinct"), "", 0),
    Column("Regions importance", ("importance", "n"), "", 0),
    Column("Distinct importance", ("importance", "distinct"), "", 0),
]
TRAINING = [
    Column("Trained on", ("trained_on",), "", words=True),
    Column("Steps", ("steps",), "", 0),
    Column("Seed", ("seed",), "", words=True),
    Column("Commit", ("commit",), "", words=True),
]
SPLITS = [
    Column(f"{task.capitalize()} {title}" if title == "SRCC" else title, (task, "splits", key))
    for task in ("quality", "importance")
    for title, key in (("SRCC", "srcc"), ("PLCC", "plcc"), ("PLCC fitted", "plcc_fitted"))
]
_MARKS = "Best bold, second underlined; what a dash stands for is said below the tables."
_CONTROL = (
    "“Whole image” is SRCC of the same model shown the whole image in place of the region: one that it equals is not looking at the region."
)
_ABOVE = "“Above it” is by how much SRCC is higher, paired over source images."
_WITHIN = "“Images” is how many have three regions or more whose labels differ: order in image is the mean over these."
_COUNTS = (
    "Of the labelled regions: answers that did not parse, regions without an answer, and those left out because another model lacks them. "
    "None is filled in."
)
_TIES = "“Distinct” is how many values were predicted, “tied” how many regions share theirs."
_BOUNDS = "“At 0 or 1” is how many lie at the ends of the scale, where some scorers cut off what lies beyond."
_VALUES = (
    "PLCC of raw predictions, and after a rising logistic fitted to the same points; RMSE where predictions lie in [0, 1], and "
    "“fitted”, after the logistic of four parameters, wherever they lie."
)
_SAMPLES = "Precision, recall and F1 of each region, averaged; macro-F1 over the classes. An answer that did not parse is wrong."
_GRADED = "On the regions labelled with a distortion, whatever type was named."
_CLASSED = {"distortion": ("Distortion type", _SAMPLES), "severity": ("Severity", _GRADED)}
_SUBSETS = "SRCC within each; a dash where fewer than ten regions, or all their predictions or labels equal."
_NAMED = 6  # models in a line
_MOST = 8  # columns of groups in one table


def order_columns(task: str) -> list[Column]:
    """How well a score task's order is met, over all regions and within images, beside the control."""
    return [
        Column("SRCC", (task, "srcc")),
        _interval(task, "srcc"),
        Column("KRCC", (task, "krcc")),
        Column("In image", (task, "within_image_srcc")),
        _interval(task, "within_image_srcc"),
        Column("Pairs", (task, "pair_accuracy")),
        _interval(task, "pair_accuracy"),
        Column("Whole image", (task, "whole_image"), ""),
        Column("Above it", (task, "over_whole_image"), ""),
        _interval(task, "over_whole_image"),
    ]


def value_columns(task: str) -> list[Column]:
    """How well a score task's values are met."""
    return [
        Column("PLCC", (task, "plcc")),
        _interval(task, "plcc"),
        Column("4 parameters", (task, "plcc_fitted"), failed=(task, "fit_reason")),
        _interval(task, "plcc_fitted"),
        Column("5 parameters", (task, "plcc_fitted_5"), failed=(task, "fit_5_reason")),
        Column("RMSE", (task, "rmse"), "low"),
        _interval(task, "rmse"),
        Column("RMSE fitted", (task, "rmse_fitted"), "low", failed=(task, "fit_reason")),
    ]


def class_columns(task: str) -> list[Column]:
    """How well classes are named: a region at a time and averaged, and over the classes."""
    measured = [Column(title, (task, key)) for title, key in _CLASS_NUMBERS.items()]
    measured.insert(1, _interval(task, "accuracy"))
    return [*measured, _interval(task, "macro_f1"), Column("Regions", (task, "n"), "", 0)]


_CLASS_NUMBERS = {"Accuracy": "accuracy", "Precision": "precision", "Recall": "recall", "F1": "f1", "Macro-F1": "macro_f1"}


def count_columns(task: str) -> list[Column]:
    """How many regions a task was judged on, why not on all of them, and how many predictions are ties."""
    counts = {"Labelled": "labelled", "Unparsed": "unparsed", "Skipped": "skipped", "Left out": "left_out", "Judged": "judged"}
    found = [Column(title, ("coverage", task, key), "", 0) for title, key in counts.items()]
    ties = {"Distinct": "distinct", "Tied": "tied", "At 0 or 1": "at_bounds", "Images": "within_image_images"}
    return found + ([] if task == "distortion" else [Column(title, (task, key), "", 0) for title, key in ties.items()])


def group_columns(models: Mapping[str, Mapping[str, Any]], task: str, group: str) -> list[Column]:
    """SRCC within each group of regions that any model has, with the number of regions."""
    sizes = {name: found["n"] for m in models.values() for name, found in m.get(task, {}).get(group, {}).items()}
    return [Column(f"{name} ({n:,})", (task, group, name, "srcc")) for name, n in sizes.items()]


def _interval(task: str, key: str) -> Column:
    return Column("95 % interval", (task, "intervals", key), "", interval=True)


def sections(models: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> dict[str, Section]:
    """The tables of a comparison by their titles, each narrow enough for a page; what no model was asked has none."""
    overview = f"{_MARKS} {_CONTROL} “Unparsed” and “skipped” count labelled regions over all tasks."
    found = {"Overview": Section("", HEADLINE, overview)}
    for task in scores:
        found |= _score_sections(models, task)
    for task, (title, legend) in _CLASSED.items():
        if any(task in m for m in models.values()):
            found[title] = Section("distortion", class_columns(task), legend)
    found |= _counts(models, "distortion")
    if any(value(m, c.path) is not None for m in models.values() for c in SPLITS):
        found["Medians over splits"] = Section("", SPLITS)
    legend = f"Time and memory are ranked within one device only. {_TIES}"
    found["Cost, regions and ties"] = Section("", COST, legend)
    if any(_at(m, c.path) is not None for m in models.values() for c in TRAINING):
        found["Training"] = Section("", TRAINING, "What a model was trained on, and the seed and the version of the code that trained it.")
    return found


def _score_sections(models: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Section]:
    name, found = task.capitalize(), {}
    if any(task in m for m in models.values()):
        found[f"{name}: order"] = Section(task, order_columns(task), f"Intervals of 95 % over source images. {_CONTROL} {_ABOVE}")
        found[f"{name}: values"] = Section(task, value_columns(task), _VALUES)
        for group, title in (("by_type", "by distortion"), ("by_area", "by share of the image")):
            columns = group_columns(models, task, group)
            parts = [columns[start : start + _MOST] for start in range(0, len(columns), _MOST)]
            for number, part in enumerate(parts, 1):
                found[f"{name} {title}" + (f", {number} of {len(parts)}" if len(parts) > 1 else "")] = Section(task, part, _SUBSETS)
    return found | _counts(models, task)


def _counts(models: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Section]:
    if not any(task in m.get("coverage", {}) for m in models.values()):
        return {}
    title, legend = f"{task.capitalize()}: unparsed answers and skipped regions", _COUNTS
    if task != "distortion":
        title, legend = f"{task.capitalize()}: unparsed answers, skipped regions and ties", f"{_COUNTS} {_TIES} {_BOUNDS} {_WITHIN}"
    return {title: Section(task, count_columns(task), legend)}


def rows_of(models: Mapping[str, Mapping[str, Any]], section: Section) -> dict[str, Mapping[str, Any]]:
    """The models of a table: of one that is about a task, those that were asked."""
    return {n: m for n, m in models.items() if not section.about or section.about in m.get("coverage", {})}


def explained(models: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
    """What the dashes of `sections` stand for, a line for each reason that occurs, and which intervals are hints."""
    return [*dashes(models, scores), *hints(models, scores)]


def dashes(models: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
    """What the dashes of `sections` stand for, a line for each reason that occurs."""
    return missing([(rows_of(models, s), s.columns) for s in sections(models, scores).values()])


def hints(models: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
    """Which intervals sources are too few for, a line for each number of them."""
    few = {
        t: {k for m in models.values() for k, i in m.get(t, {}).get("intervals", {}).items() if i.get("few")} for t in (*scores, *_CLASSED)
    }
    every = [task for task, keys in few.items() if keys - {"within_image_srcc"}]
    within = [task for task, keys in few.items() if keys == {"within_image_srcc"}]
    out = []
    if every:
        out.append(f"{', '.join(every)}: intervals are hints, since sources count as fewer than {FEW_SOURCES} of equal size")
    if within:
        out.append(
            f"{', '.join(within)}: the interval within images is a hint, since sources count as fewer than {FEW_WITHIN} of equal size"
        )
    return out


def missing(tables: Sequence[tuple[Mapping[str, Mapping[str, Any]], Sequence[Column]]]) -> list[str]:
    """Why cells of tables (models and columns, as `cells` takes them) have no number, a line for each reason."""
    lacks: dict[tuple[str, str], dict[str, dict[str, None]]] = {}  # a reason's beginning and end -> model -> what it lacks
    for models, columns in tables:
        for column in columns:
            for name, model in models.items():
                if _text(model, column, _number(model, column)) in (DASH, NO_FIT):
                    about, what, since = _reason(model, column.path)
                    lacks.setdefault((about, since), {}).setdefault(name, {})[what] = None
    out = []
    for (about, since), by_model in lacks.items():
        alike: dict[str, list[str]] = {}
        for name, whats in by_model.items():
            alike.setdefault(", ".join(w for w in whats if w), []).append(name)
        for what, names in alike.items():
            out += _line(f"{about}{f' no {what} for' if what else ''} {{}}{since}", names)
    return out


def _reason(model: Mapping[str, Any], path: Sequence[str]) -> tuple[str, str, str]:
    """Why there is no number at a path: what it is about, which number is missing ("" for all of the task), and the cause."""
    task, key = path[0], path[-1]
    if len(path) == 1:
        return _no_cost(model, key)
    asked = "distortion" if task == "severity" else task
    counted = model.get("coverage", {}).get(asked)
    if counted is None:
        return f"{asked}: not asked of", "", ""
    if not counted["judged"]:
        if not counted["labelled"]:
            return f"{asked}: not judged for", "", ", since no region has a label"
        since = ", see the notes" if counted["left_out"] else ", none of whose answers can be used"
        return f"{asked}: all is left out of", "", since
    if task == "severity" and not value(model, (task, "n")):
        return "severity: not judged for", "", ", since no region is labelled with a distortion and its severity"
    about = f"{task}:"
    if path[1] == "splits":
        return about, f"median {NUMBERS[key]} over splits", ", since no split has one"
    if path[1] in _GROUPS:
        return about, f"SRCC of a group {_GROUPS[path[1]]}", ", since it has fewer than ten regions, or predictions or labels all equal"
    if path[1] == "intervals":
        if value(model, (task, key)) is None:
            return _reason(model, (task, key))
        return about, f"interval of {NUMBERS[key]}", f", since {_flat(model[task]) if model[task].get('distinct') == 1 else _UNSURE}"
    if key == "over_whole_image" and value(model, (task, "srcc")) is None:
        return about, NUMBERS[key], f", since {_flat(model[task])}"
    if key == "over_whole_image" and value(model, (task, "whole_image")) is None:
        return about, NUMBERS[key], f", since {model[task]['whole_image_reason']}"
    told = model[task].get(_TOLD.get(key, ""))
    return about, NUMBERS[key], f", since {told or _SINCE.get(key) or _flat(model[task])}"


def _no_cost(model: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    if model.get("file"):
        about = "training" if key in _TRAINED else "cost"
        return f"{about}: not known of", "", ", which came as a file"
    if key in _TRAINED:
        return f"training: {_TRAINED[key]} not known of", "", ", whose folder does not tell"
    again = "python eval.py <run> measures it"
    told = {
        "parameters": ("parameters: not known of", ", whose run.json does not tell them"),
        "peak_gib": ("peak memory: not measured for", f", since the process that scored had also trained: {again}"),
        "ms_per_region": ("time: not measured for", f": {again}"),
    }
    about, since = told[key]
    return about, "", since


_TRAINED = {"trained_on": "data", "steps": "steps", "seed": "seed", "commit": "commit"}
NUMBERS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "within_image_srcc": "SRCC within images",
    "pair_accuracy": "share of pairs",
    "plcc_fitted": "PLCC after four parameters",
    "plcc_fitted_5": "PLCC after five parameters",
    "rmse": "RMSE",
    "rmse_fitted": "RMSE after four parameters",
    "at_bounds": "number at 0 or 1",
    "whole_image": "whole-image control",
    "over_whole_image": "difference from the control",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
}
_TOLD = {  # where the reason is kept
    **dict.fromkeys(("plcc_fitted", "rmse_fitted"), "fit_reason"),
    "plcc_fitted_5": "fit_5_reason",
    "whole_image": "whole_image_reason",
}
_GROUPS = {"by_type": "by distortion", "by_area": "by share of the image"}
_UNSURE = "there is one source, or no number without one of them or in more than 1 % of the draws"
_SINCE = {
    "within_image_srcc": "no image has three regions whose labels differ",
    "pair_accuracy": "no image has two regions whose labels differ",
    **dict.fromkeys(("rmse", "at_bounds"), "predictions leave [0, 1]"),
    "over_whole_image": "not all regions have a control",
}


def _flat(found: Mapping[str, Any]) -> str:
    """Why a score task has no correlation."""
    if found["n"] < MIN_POINTS:
        return f"{found['n']} regions are judged, and at least {MIN_POINTS} are needed"
    return f"all {found['n']:,} {'predictions' if found['distinct'] == 1 else 'labels'} are the same"


def _line(text: str, names: Sequence[str]) -> list[str]:
    """The line about these models, of many the first; none where there are none."""
    told = [*names[:_NAMED], f"{len(names) - _NAMED} more"] if len(names) > _NAMED + 1 else names
    return [text.format(", ".join(told))] if names else []


def value(model: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at a path, None where there is none."""
    found = _at(model, path)
    return None if found is None or (isinstance(found, float) and math.isnan(found)) else float(found)


def _number(model: Mapping[str, Any], column: Column) -> float | None:
    return None if column.interval or column.words else value(model, column.path)


def _at(model: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = model
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def cells(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> list[list[tuple[str, int]]]:
    """Each model's cells: the text, and 1 for the best of a column, 2 for the second, else 0. Equal texts share a place, and numbers of
    different `within` have none."""
    out: list[list[tuple[str, int]]] = [[] for _ in models]
    for column in columns:
        numbers = [_number(m, column) for m in models.values()]
        texts = [_text(m, column, n) for m, n in zip(models.values(), numbers, strict=True)]
        known = sorted({round(n, column.digits) for n in numbers if n is not None}, reverse=column.best == "high")
        places = (
            {_at(m, column.within) for m, n in zip(models.values(), numbers, strict=True) if n is not None} if column.within else {None}
        )
        ranked = column.best and len(known) > 1 and len(places) == 1
        for row, number, text in zip(out, numbers, texts, strict=True):
            place = known.index(round(number, column.digits)) + 1 if ranked and number is not None else 0
            row.append((text, place if place <= 2 else 0))
    return out


def _text(model: Mapping[str, Any], column: Column, number: float | None) -> str:
    if column.words:
        found = _at(model, column.path)
        return DASH if found is None else str(found)
    if column.interval:
        low, high = (value(model, (*column.path, end)) for end in ("low", "high"))
        return (
            DASH if low is None or high is None else " to ".join(f"{round(v, column.digits) + 0.0:.{column.digits}f}" for v in (low, high))
        )
    if number is None:
        return NO_FIT if column.failed and _at(model, column.failed) else DASH
    return f"{round(number, column.digits) + 0.0:,.{column.digits}f}"  # which turns -0.0 into 0.0


LEGEND = "* is the best of a column, ' the second; a dash is explained below"


def console(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Aligned for a terminal, with the marks of `LEGEND`."""
    rows = [[f"{t}{('', '*', chr(39))[p]}" for t, p in row] for row in cells(models, columns)]
    names = ["", *models]
    grid = [[c.title for c in columns], *rows]
    widths = [max(len(r[k]) for r in grid) for k in range(len(columns))]
    left = max(len(n) for n in names)
    return "\n".join(
        f"{n:{left}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(r, widths, strict=True)) for n, r in zip(names, grid, strict=True)
    )


def markdown(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """A Markdown table; the second is underlined by HTML, since Markdown has no underline."""
    marks = ("{}", "**{}**", "<u>{}</u>")
    lines = ["| Model | " + " | ".join(c.title for c in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in zip(models, cells(models, columns), strict=True):
        lines.append(
            f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(marks[p].format(t.replace("|", chr(92) + "|")) for t, p in row) + " |"
        )
    return "\n".join(lines) + "\n"


def latex(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """A LaTeX tabular, for the package booktabs."""
    marks = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    lines += ["Model & " + " & ".join(_tex(c.title) for c in columns) + r" \\", r"\midrule"]
    for name, row in zip(models, cells(models, columns), strict=True):
        lines.append(f"{_tex(name)} & " + " & ".join(marks[p].format(_tex(t).replace(DASH, "--")) for t, p in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(named.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
