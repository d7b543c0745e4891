"""The figures of a comparison; names of models stand on the left, in full, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from evaluation.bootstrap import FEW_SOURCES, SIGNIFICANT
from evaluation.correlations import srcc
from evaluation.plots import DPI, LIGHT, Theme, _figure, _number, _style, _title
from evaluation.protocols import Score
from evaluation.ranking import DASH

_WIDE = 10.6
_LONGEST = 34  # letters of a name, before it is cut in the middle


@dataclass(frozen=True)
class Line:
    """An estimate with its interval.

    Attributes:
        told: whether it is a finding, and coloured.
        hint: whether its interval is one, and dashed.
    """

    name: str
    estimate: float
    low: float
    high: float
    told: bool = True
    hint: bool = False


def forest(rows: Sequence[Line], title: str, detail: str, theme: Theme = LIGHT, zero: bool = False) -> Figure:
    """Estimates with their intervals, one line each, the first on top; below stands what blue and dashes mean, where they occur.

    Args:
        zero: these are differences: draw the line of none.
    """
    figure, axes = _figure(theme, _WIDE, 1.4 + 0.34 * len(rows))
    for place, row in enumerate(rows):
        colour = theme.series[0] if row.told else theme.neutral
        style: dict[str, Any] = {"ls": (0, (2, 2)), "lw": 1.4} if row.hint else {"lw": 2.2, "solid_capstyle": "round"}
        axes.plot([row.low, row.high], [place, place], color=colour, zorder=2, **style)
        axes.plot(row.estimate, place, "o", color=colour, ms=7, mec=theme.surface, mew=1.2, zorder=3)
        axes.annotate(
            _number(row.estimate),
            (1, place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=theme.ink,
            fontsize=9.5,
        )
    if zero:
        axes.axvline(0, color=theme.faint, lw=1, zorder=1)
    marks = [f"blue: told from chance, p < {SIGNIFICANT} after Holm's correction"] if zero and any(r.told for r in rows) else []
    marks += ["grey: not told from chance"] if zero and not all(r.told for r in rows) else []
    marks += [f"dashed: a hint, since sources count as fewer than {FEW_SOURCES}"] if any(r.hint for r in rows) else []
    axes.set_xlabel("; ".join(marks), color=theme.muted, fontsize=10, loc="left")
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(rows)), [short(row.name) for row in rows])
    axes.tick_params(axis="y", labelcolor=theme.ink)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _title(axes, title, detail, theme)
    return figure


def scatters(tables: Mapping[str, pd.DataFrame], task: Score, theme: Theme = LIGHT) -> Figure:
    """Labels over predictions, one small panel a model, from 0 to 1; on its own scale where predictions leave that."""
    columns = min(4, len(tables))
    lines = -(-len(tables) // columns)
    figure = Figure(figsize=(2.65 * columns, 2.75 * lines), dpi=DPI, facecolor=theme.surface, layout="constrained")
    for place, (name, rows) in enumerate(tables.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        _style(axes, theme)
        size = float(np.clip(3000 / max(len(rows), 1), 2, 14))
        axes.scatter(rows[f"{task}_pred"], rows[task], s=size, color=theme.series[0], alpha=0.45, lw=0)
        if rows[f"{task}_pred"].between(0, 1).all():
            axes.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1))
        axes.set_title(short(name, 26), loc="left", color=theme.ink, fontsize=10, fontweight="bold", pad=17)
        told = f"SRCC {_number(srcc(rows[f'{task}_pred'], rows[task]))}"
        axes.annotate(told, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=theme.muted, fontsize=9)
    figure.supxlabel(f"predicted {task}", color=theme.muted, fontsize=10.5)
    figure.supylabel(f"labelled {task}", color=theme.muted, fontsize=10.5)
    return figure


def group_map(models: Mapping[str, Mapping[str, Any]], task: Score, group: str, title: str, theme: Theme = LIGHT) -> Figure:
    """SRCC within each group of regions: groups side by side, a bar for each model, or a dash where it has none."""
    asked = {name: m[task][group] for name, m in models.items() if task in m and m[task][group]}
    groups = {g: v["n"] for own in asked.values() for g, v in own.items()}
    columns = len(groups) if len(groups) <= 5 else min(4, -(-len(groups) // 2))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(_WIDE, (1.0 + 0.24 * len(asked)) * lines), dpi=DPI, facecolor=theme.surface, layout="constrained")
    names = [short(n, 24) for n in asked]
    lowest = min([0.0, *(v["srcc"] for own in asked.values() for v in own.values() if v["srcc"] is not None)])
    for place, (key, n) in enumerate(groups.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        _style(axes, theme)
        values = [own.get(key, {}).get("srcc") for own in asked.values()]
        known = {k: v for k, v in enumerate(values) if v is not None}
        axes.barh(list(known), list(known.values()), 0.62, color=theme.series[0])
        for k in (k for k in range(len(names)) if k not in known):
            axes.annotate(DASH, (0, k), (4, 0), textcoords="offset points", va="center", color=theme.muted, fontsize=9.5)
        axes.axvline(0, color=theme.faint, lw=1)
        axes.set_yticks(range(len(names)), names if (place - 1) % columns == 0 else [""] * len(names))
        axes.set(xlim=(1.1 * lowest, 1), xticks=(0, 0.5, 1), ylim=(len(names) - 0.5, -0.5))
        axes.set_title(f"{key}  n = {n:,}", loc="left", color=theme.ink, fontsize=9.5)
        axes.grid(False, axis="y")
    figure.suptitle(title, x=0.01, ha="left", color=theme.ink, fontsize=13, fontweight="bold")
    return figure


def short(name: str, longest: int = _LONGEST) -> str:
    """A name that fits, cut in the middle: variants often differ at both ends."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
