"""The figures of a report. Each function returns a Figure and touches no global state; `png` renders it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from evaluation.correlations import LogisticFit, Vector, fit_logistic, plcc, srcc
from evaluation.protocols import CLEAN, SCORES, Score, type_names, usable

DPI = 100  # of the page; files are rendered at twice that


@dataclass(frozen=True)
class Theme:
    """Colours of a page: its surface, three strengths of ink, the grid, and the categories in fixed order, apart for colour-blind eyes."""

    surface: str
    ink: str
    muted: str
    faint: str
    grid: str
    neutral: str
    series: tuple[str, ...]
    ramp: tuple[str, str]


LIGHT = Theme(
    surface="#ffffff",
    ink="#1b1c1f",
    muted="#5d6069",
    faint="#9a9da6",
    grid="#e9eaee",
    neutral="#a3a7b0",
    series=("#2a78d6", "#1baf7a", "#eda100", "#4a3aa7", "#e34948", "#e87ba4", "#eb6834"),
    ramp=("#f4f7fc", "#174f96"),
)
DARK = Theme(
    surface="#1c1d21",
    ink="#f1f1f4",
    muted="#a9acb6",
    faint="#71747e",
    grid="#2d2f35",
    neutral="#797d87",
    series=("#3987e5", "#199e70", "#c98500", "#9085e9", "#e66767", "#d55181", "#d95926"),
    ramp=("#23262d", "#6aa9f5"),
)


def png(figure: Figure, scale: float = 2) -> bytes:
    """The figure as PNG bytes, `scale` pixels for each pixel of the page."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DPI * scale, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def webp(drawn: bytes) -> bytes:
    """A PNG as lossless WebP, which is half as large."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").save(buffer, "WEBP", lossless=True, quality=60, method=3)
    return buffer.getvalue()


def scatter(table: pd.DataFrame, task: Score, theme: Theme = LIGHT, bars: bool = False) -> Figure:
    """Labels over predictions, both in [0, 1], coloured by labelled distortion, with the logistic fit where there is one.

    Args:
        bars: one predicted standard deviation to each side, where the table has it.
    """
    rows = usable(table, task)
    pred, label = rows[f"{task}_pred"].to_numpy(np.float64), rows[task].to_numpy(np.float64)
    figure, axes = _figure(theme, 5.2, 5.5)
    axes.plot([0, 1], [0, 1], color=theme.faint, lw=1, ls=(0, (1, 3)), zorder=1)
    if bars and f"{task}_std" in rows:
        axes.errorbar(pred, label, xerr=rows[f"{task}_std"], fmt="none", ecolor=theme.neutral, elinewidth=0.7, alpha=0.22, zorder=1.5)
    size = float(np.clip(9000 / max(len(rows), 1), 5, 26))
    names = type_names(rows)
    for name, colour in colours(type_names(table), theme).items():
        own = np.array([n == name for n in names], np.bool_)
        axes.scatter(pred[own], label[own], s=size, color=colour, alpha=0.75, lw=0.4, edgecolor=theme.surface, label=name, zorder=2)
    _draw_fit(axes, fit_logistic(pred, label), pred, theme)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"predicted {task}", ylabel=f"labelled {task}", aspect="equal")
    _title(axes, task.capitalize(), f"SRCC {_number(srcc(pred, label))}   PLCC {_number(plcc(pred, label))}   n = {len(rows):,}", theme)
    _legend(figure, axes, theme)
    return figure


def confusion_shares(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> tuple[NDArray[np.int64], Vector]:
    """(K, K) counts, row = label, without the empty rows at the end; and what share of its row each is.

    Raises:
        ValueError: nothing was counted.
    """
    matrix = np.asarray(counts, np.int64).reshape(len(labels), len(labels))
    if not matrix.any():
        raise ValueError(f"the confusion matrix of {list(labels)} is empty: no region has a label")
    matrix = matrix[: int(np.flatnonzero(matrix.any(1))[-1]) + 1]
    return matrix, matrix / np.maximum(matrix.sum(1, keepdims=True), 1)


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str], title: str, theme: Theme = LIGHT) -> Figure:
    """(K, K) counts, row = label: colour and percentage are shares of the row, the count stands below. Empty rows at the end are left out.

    Raises:
        ValueError: nothing was counted.
    """
    matrix, share = confusion_shares(counts, labels)
    width = float(np.clip(0.6 * len(labels) + 1.1, 3.9, 10))
    figure, axes = _figure(theme, width, width * len(matrix) / len(labels) + 0.75)
    axes.grid(False)
    ramp = LinearSegmentedColormap.from_list("ramp", theme.ramp)
    axes.pcolormesh(share, cmap=ramp, vmin=0, vmax=1, edgecolors=theme.surface, linewidth=2)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            _cell(axes, column + 0.5, row + 0.5, float(share[row, column]), int(count), theme)
    axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(matrix)) + 0.5, labels[: len(matrix)])
    axes.set(xlabel="predicted", ylabel="labelled", aspect="equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    _title(axes, title, f"share of each row, count below   n = {int(matrix.sum()):,}", theme)
    return figure


def control_bars(metrics: Mapping[str, Any], theme: Theme = LIGHT) -> Figure:
    """SRCC of the model against that of the same model shown the whole image, for each score task."""
    figure, axes = _figure(theme, 10.6, 3.0)
    pairs = [(metrics[task]["srcc"], metrics["control"]["whole_image"][task]["srcc"]) for task in SCORES]
    for offset, name, colour, side in ((-0.19, "shown the region", theme.series[0], 0), (0.19, "shown the whole image", theme.neutral, 1)):
        values = [pair[side] for pair in pairs]
        places = np.arange(len(SCORES)) + offset
        axes.barh(places, [0 if v is None else v for v in values], 0.34, color=colour, label=name, zorder=2)
        for place, value in zip(places, values, strict=True):
            end = max(value or 0.0, 0.0)
            axes.annotate(
                _number(value), (end, float(place)), (6, 0), textcoords="offset points", va="center", color=theme.ink, fontsize=10.5
            )
    axes.axvline(0, color=theme.faint, lw=1, zorder=3)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(SCORES)), SCORES)
    axes.tick_params(axis="y", labelsize=11.5, labelcolor=theme.ink)
    axes.spines[["left"]].set_visible(False)
    low = min((v for pair in pairs for v in pair if v is not None), default=0)
    axes.set(xlim=(min(0, low * 1.2), 1.05), ylim=(len(SCORES) - 0.5, -0.5), xlabel="SRCC")
    _title(axes, "Does it look at the region?", "the same model, shown the region or the whole image in its place", theme)
    _legend(figure, axes, theme)
    return figure


def calibration(table: pd.DataFrame, task: Score, theme: Theme = LIGHT, bins: int = 8) -> Figure:
    """Error against predicted standard deviation, in bins of equally many regions: on the diagonal, the uncertainty is honest.

    Raises:
        ValueError: no region has a label, an answer and a standard deviation.
    """
    rows = usable(table, task)
    rows = rows[rows[f"{task}_std"].notna()] if f"{task}_std" in rows else rows.iloc[:0]
    if rows.empty:
        raise ValueError(
            f"no region has a labelled and a predicted {task} with `{task}_std`: this read-out gives no uncertainty to calibrate"
        )
    order = rows.sort_values(f"{task}_std")
    error = (order[f"{task}_pred"] - order[task]).abs().to_numpy(np.float64)
    std = order[f"{task}_std"].to_numpy(np.float64)
    parts = [p for p in np.array_split(np.arange(len(order)), bins) if len(p)]
    expected, found = ([float(np.sqrt(np.mean(v[p] ** 2))) for p in parts] for v in (std, error))
    figure, axes = _figure(theme, 5.2, 4.4)
    right, top = 1.1 * float(std.max()) + 1e-3, 1.1 * max(*found, float(np.quantile(error, 0.98))) + 1e-3
    axes.plot([0, 1], [0, 1], color=theme.faint, lw=1, ls=(0, (1, 3)))
    axes.scatter(std, error, s=9, color=theme.neutral, alpha=0.3, lw=0, label="a region")
    axes.plot(expected, found, "o-", color=theme.series[0], ms=7, lw=2, mec=theme.surface, mew=1.2, label="root mean square of a bin")
    axes.set(xlim=(0, right), ylim=(0, top), xlabel="predicted standard deviation", ylabel="|error|")
    _title(axes, f"Uncertainty of {task}", f"{len(parts)} bins of equally many regions   n = {len(rows):,}", theme)
    _legend(figure, axes, theme)
    return figure


def learning_curves(csv: Path, theme: Theme = LIGHT) -> Figure:
    """The losses, the correlations and the learning rates that a Lightning `metrics.csv` holds, one panel each.

    Raises:
        ValueError: there is none of them, or no column `step`.
    """
    curves = pd.read_csv(csv)
    panels = curve_columns(curves)
    if not panels or "step" not in curves:
        raise ValueError(
            f"{csv} has the columns {list(curves.columns)}: expected `step` and at least one loss, correlation or learning rate"
        )
    figure = Figure(figsize=(10.6, 3.7), dpi=DPI, facecolor=theme.surface, layout="constrained")
    for place, (title, columns) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place)
        _style(axes, theme)
        for column, colour in zip(columns, _cycle(theme, len(columns)), strict=True):
            _curve(axes, curves[["step", column]].dropna(), column, colour, smooth=title == "Loss")
        axes.set_xlabel("step")
        if title == "Loss" and _spans_decades(curves[columns]):
            axes.set_yscale("log")
        if title == "Learning rate":
            axes.yaxis.set_major_formatter("{x:g}")
        _title(axes, title, "", theme)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.muted, loc="best")
    return figure


def curve_columns(curves: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of a metrics table that are drawn, by the title of their panel; a panel without columns is left out."""
    names = [str(c) for c in curves.columns if curves[c].notna().any()]
    panels = {
        "Loss": [n for n in names if "loss" in n],
        "Correlation": [n for n in names if "srcc" in n or "plcc" in n],
        "Learning rate": [n for n in names if n == "lr" or n.startswith(("lr-", "lr/"))],
    }
    return {title: columns for title, columns in panels.items() if columns}


def colours(names: Sequence[str], theme: Theme) -> dict[str, str]:
    """A colour for each name that occurs; "clean" and the names beyond the palette are neutral, never a repeated hue."""
    present = sorted(set(names) - {CLEAN})
    assigned = {name: theme.series[i] if i < len(theme.series) else theme.faint for i, name in enumerate(present)}
    return assigned | ({CLEAN: theme.neutral} if CLEAN in names else {})


def _figure(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=theme.surface, layout="constrained")
    axes = figure.add_subplot()
    _style(axes, theme)
    return figure, axes


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.surface)
    axes.grid(True, color=theme.grid, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=9.5, length=0)
    axes.xaxis.label.set(color=theme.muted, fontsize=10.5)
    axes.yaxis.label.set(color=theme.muted, fontsize=10.5)


def _title(axes: Axes, title: str, detail: str, theme: Theme) -> None:
    axes.set_title(title, loc="left", color=theme.ink, fontsize=13, fontweight="bold", pad=24 if detail else 10)
    axes.annotate(detail, (0, 1), xytext=(0, 8), xycoords="axes fraction", textcoords="offset points", color=theme.muted, fontsize=10)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5, labelcolor=theme.muted)


def _draw_fit(axes: Axes, fit: LogisticFit, pred: np.ndarray[Any, np.dtype[np.float64]], theme: Theme) -> None:
    if fit.converged:
        x = np.linspace(pred.min(), pred.max(), 200)
        axes.plot(x, fit.predict(x), color=theme.surface, lw=4.5, zorder=3)
        axes.plot(x, fit.predict(x), color=theme.ink, lw=2, zorder=4, label="logistic fit")


def _cell(axes: Axes, x: float, y: float, share: float, count: int, theme: Theme) -> None:
    strong = share > 0.5
    colour = theme.surface if strong else theme.ink
    axes.text(x, y - 0.1, f"{share:.0%}", ha="center", va="center", fontsize=9.5, color=colour, fontweight="bold" if strong else "normal")
    axes.text(x, y + 0.24, f"{count:,}", ha="center", va="center", fontsize=7.5, color=colour, alpha=0.75)


def _curve(axes: Axes, points: pd.DataFrame, name: str, colour: str, smooth: bool) -> None:
    """A long noisy curve is drawn faintly, with its running median on top."""
    step, value = points.iloc[:, 0].to_numpy(np.float64), points.iloc[:, 1]
    window = len(points) // 25
    if not smooth or window < 4:
        axes.plot(step, value.to_numpy(np.float64), color=colour, lw=1.8, label=name, marker="o" if len(points) < 12 else "", ms=4)
        return
    axes.plot(step, value.to_numpy(np.float64), color=colour, lw=0.8, alpha=0.3)
    axes.plot(step, value.rolling(window, center=True, min_periods=1).median().to_numpy(np.float64), color=colour, lw=2, label=name)


def _spans_decades(values: pd.DataFrame) -> bool:
    """Whether the losses are positive and the bulk of them spans more than a factor of thirty."""
    known = values.to_numpy(np.float64)
    low, high = np.nanquantile(known, (0.05, 0.95))
    return bool(np.nanmin(known) > 0 and high / low > 30)


def _cycle(theme: Theme, count: int) -> list[str]:
    return [theme.series[i % len(theme.series)] for i in range(count)]


def _number(value: float | None) -> str:
    return "none" if value is None or np.isnan(value) else f"{value:.3f}".replace("-", "−")
