"""A page that shows data: images with their regions and labels, and how the labels are distributed. It needs nothing but a browser."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray

from components.prompts import DISTORTION_TYPES, SEVERITIES
from datamodules.records import ImageRecord, RegionRecord
from evaluation.plots import LIGHT, Theme, _figure, _legend, _title, png

BINS = 30


def histogram(
    values: Sequence[float], title: str, label: str, theme: Theme = LIGHT, limits: tuple[float, float] | None = (0, 1), bins: int = BINS
) -> Figure:
    """Counts of `values` in bins; NaN is left out, and counted in the caption."""
    found = np.asarray(values, np.float64)
    known = found[np.isfinite(found)]
    figure, axes = _figure(theme, 5.2, 3.6)
    axes.hist(known, bins=bins, range=limits, color=theme.series[0], edgecolor=theme.surface, linewidth=0.6)
    axes.set(xlabel=label, ylabel="count")
    detail = f"n = {known.size:,}" + (f", {found.size - known.size:,} unknown" if known.size < found.size else "")
    _title(axes, title, detail + (f"   mean {known.mean():.3g}" if known.size else ""), theme)
    return figure


def distortion_counts(regions: Sequence[RegionRecord], theme: Theme = LIGHT) -> Figure:
    """Regions by type and severity of their distortions, stacked; clean ones beside them."""
    counts = np.zeros((len(DISTORTION_TYPES), len(SEVERITIES)), np.int64)
    for kind, severity in (pair for r in regions for pair in r.distortions or ()):
        if kind in DISTORTION_TYPES and severity in SEVERITIES:
            counts[DISTORTION_TYPES.index(kind), SEVERITIES.index(severity)] += 1
    clean = sum(r.distortions == () for r in regions)
    figure, axes = _figure(theme, 5.2, 3.6)
    left: NDArray[np.int64] = np.zeros(len(DISTORTION_TYPES), np.int64)
    for step, severity in enumerate(SEVERITIES):
        alpha = 0.25 + 0.75 * step / (len(SEVERITIES) - 1)
        axes.barh(DISTORTION_TYPES, counts[:, step], left=left, color=theme.series[0], alpha=alpha, label=severity)
        left = left + counts[:, step]
    axes.barh(["clean"], [clean], color=theme.neutral)
    axes.invert_yaxis()
    axes.set_xlabel("regions")
    _legend(figure, axes, theme)
    _title(axes, "Distortions", f"{sum(r.distortions is None for r in regions):,} of {len(regions):,} regions unknown", theme)
    return figure


def figures(records: Sequence[ImageRecord]) -> dict[str, Figure]:
    """By name: scores, standard deviations, distortions, sizes of regions and their number. What nobody labelled is left out."""
    regions = [r for record in records for r in record.regions]
    shares = [(r.measured(i.height, i.width).area or 0) / (i.height * i.width) for i in records for r in i.regions]
    found = {}
    for task in ("quality", "importance"):
        for name, title in ((task, task.capitalize()), (f"{task}_std", f"Standard deviation of {task}")):
            values = [np.nan if getattr(r, name) is None else getattr(r, name) for r in regions]
            if np.isfinite(values).any():
                limits = (0.0, 1.0) if name == task else (0.0, float(np.nanmax(values)) or 1.0)
                found[name] = histogram(values, title, f"{name} on [0, 1]", limits=limits)
    if any(r.distortions is not None for r in regions):
        found["distortions"] = distortion_counts(regions)
    found["area"] = histogram(
        np.log10(np.maximum(shares, 1e-6)).tolist(), "Size of regions", "log10 of the share of the image", limits=None
    )
    most = max((len(r.regions) for r in records), default=0)
    each: dict[str, Any] = {"limits": (-0.5, most + 0.5), "bins": most + 1} if most < BINS else {"limits": None}
    found["regions"] = histogram([float(len(r.regions)) for r in records], "Regions of an image", "regions", **each)
    return found


def write_page(
    path: Path,
    title: str,
    coverage: str,
    drawn: str,
    pictures: Mapping[str, bytes],
    plots: Mapping[str, Figure],
    skipped: Sequence[str] = (),
) -> None:
    """Writes the page.

    Args:
        coverage: how much of the data can be used. drawn: of how many images the plots are.
        pictures: by image, encoded as JPEG.
        skipped: why images are not shown that were to be.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    shown = {name: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for name, data in pictures.items()}
    plotted = {name: f"data:image/png;base64,{base64.b64encode(png(figure)).decode()}" for name, figure in plots.items()}
    page = environment.get_template("data_report.html.j2").render(
        title=title, coverage=coverage, drawn=drawn, pictures=shown, plots=plotted, skipped=skipped
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
