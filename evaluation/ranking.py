"""The table of a comparison as text: for a terminal, as CSV, Markdown and LaTeX; best bold, second underlined, a dash for no answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DASH = "–"


@dataclass(frozen=True)
class Column:
    """One column: the path of its number within a model's results, and which end is better ("" for no ranking).

    Attributes:
        within: the path of what must be the same for all models that have a number, or none is marked.
    """

    title: str
    path: tuple[str, ...]
    best: Literal["high", "low", ""] = "high"
    digits: int = 3
    within: tuple[str, ...] = ()


def score_columns(task: str) -> list[Column]:
    """The columns of a score task."""
    return [
        Column("SRCC", (task, "srcc")),
        Column("PLCC", (task, "plcc")),
        Column("PLCC fitted", (task, "plcc_fitted")),
        Column("KRCC", (task, "krcc")),
        Column("RMSE", (task, "rmse"), "low"),
        Column("In image", (task, "within_image_srcc")),
        Column("Pairs", (task, "pair_accuracy")),
        Column("Whole image", (task, "whole_image"), ""),
    ]


HEADLINE = [
    Column("Quality SRCC", ("quality", "srcc")),
    Column("in image", ("quality", "within_image_srcc")),
    Column("whole image", ("quality", "whole_image"), ""),
    Column("Importance SRCC", ("importance", "srcc")),
    Column("in image", ("importance", "within_image_srcc")),
    Column("Type macro-F1", ("distortion", "macro_f1")),
    Column("Severity macro-F1", ("severity", "macro_f1")),
]
SPLITS = [
    Column(f"{task.capitalize()} {title}" if title == "SRCC" else title, (task, "splits", key))
    for task in ("quality", "importance")
    for title, key in (("SRCC", "srcc"), ("PLCC", "plcc"), ("PLCC fitted", "plcc_fitted"))
]
COST = [
    Column("Parameters", ("parameters",), "low", 0),
    Column("ms/region", ("ms_per_region",), "low", 2, ("device",)),
    Column("Peak GiB", ("peak_gib",), "low", 2, ("device",)),
    Column("Unparsed", ("failures",), "low", 0),
    Column("Regions quality", ("quality", "n"), "", 0),
    Column("Distinct quality", ("quality", "distinct"), "", 0),
    Column("Regions importance", ("importance", "n"), "", 0),
    Column("Distinct importance", ("importance", "distinct"), "", 0),
]


def sections(models: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> dict[str, list[Column]]:
    """The tables of a comparison by their titles, each narrow enough for a page; a score task that no model was asked has none."""
    judged = {task.capitalize(): score_columns(task) for task in scores if any(task in m for m in models.values())}
    dealt = {"Medians over splits": SPLITS} if any(value(m, c.path) is not None for m in models.values() for c in SPLITS) else {}
    return {"Overview": HEADLINE, **judged, **dealt, "Cost, failures and ties": COST}


def value(model: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at a path, None where there is none."""
    found = _at(model, path)
    return None if found is None or (isinstance(found, float) and math.isnan(found)) else float(found)


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
        numbers = [value(m, column.path) for m in models.values()]
        texts = [DASH if n is None else f"{n:,.{column.digits}f}" for n in numbers]
        known = sorted({round(n, column.digits) for n in numbers if n is not None}, reverse=column.best == "high")
        places = (
            {_at(m, column.within) for m, n in zip(models.values(), numbers, strict=True) if n is not None} if column.within else {None}
        )
        ranked = column.best and len(known) > 1 and len(places) == 1
        for row, number, text in zip(out, numbers, texts, strict=True):
            place = known.index(round(number, column.digits)) + 1 if ranked and number is not None else 0
            row.append((text, place if place <= 2 else 0))
    return out


def console(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Aligned for a terminal; * marks the best, ' the second."""
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
        lines.append(f"| {name.replace('|', chr(92) + '|')} | " + " | ".join(marks[p].format(t) for t, p in row) + " |")
    return "\n".join(lines) + "\n"


def latex(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """A LaTeX tabular, for the package booktabs."""
    marks = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule"]
    lines += ["Model & " + " & ".join(_tex(c.title) for c in columns) + r" \\", r"\midrule"]
    for name, row in zip(models, cells(models, columns), strict=True):
        lines.append(f"{_tex(name)} & " + " & ".join(marks[p].format(t.replace(DASH, "--")) for t, p in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(named.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
