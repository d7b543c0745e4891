"""An image segmented, every region scored, and the scores drawn over it: where it looks good, and where that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from components import rle
from components.prompts import LEVELS
from components.registry import ConfigError
from components.tasks import RegionScores, Task
from inference.draw import said

if TYPE_CHECKING:
    from inference.engine import Engine, ImageLike, Looked

Score = Literal["quality", "importance"]
SCORES: tuple[Score, ...] = ("quality", "importance")
RANKED = 8  # regions in the table below a map

COLOURS = {"quality": "viridis", "importance": "plasma"}  # perceptually uniform, ordered also without colours
_TITLES = {"quality": "Quality", "importance": "Importance"}
_SHARE = 0.68  # of the colour, over the photograph's own light and dark
_LONGEST = 900  # pixels of a panel's longer side
_INK, _MUTED, _RULE = "#1b1c1f", "#5d6069", "#e2e4e9"


@dataclass(frozen=True)
class QualityMap:
    """What is known of an image's regions.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        codes: R run-length codes.
        scores: R answers.
    """

    image: NDArray[np.uint8]
    codes: tuple[Mapping[str, Any], ...]
    scores: tuple[RegionScores, ...]

    def values(self, task: Score) -> NDArray[np.float64]:
        """(R,) in [0, 1]; NaN where the answer was not asked for or did not parse."""
        found = [scores.get(task) for scores in self.scores]
        return np.array([np.nan if s is None or s.value is None else s.value for s in found], np.float64)

    def map(self, task: Score, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: the score of the region that a pixel lies in, of the smallest one where several do; NaN where none does.

        Args:
            size: (height, width) to which the map is reduced, by nearest neighbour; None for the image's own. What is not shown is never
                made, so that the map of a large photograph takes as long as that of a small one.
        """
        size = size or (self.image.shape[0], self.image.shape[1])
        out = np.full(size, np.nan, np.float32)
        values = self.values(task)
        for n in np.argsort([-rle.area(code) for code in self.codes], kind="stable"):
            if not np.isnan(values[n]):
                out[self.mask(n, size)] = values[n]
        return out

    def mask(self, n: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Region number `n`, reduced to `size` (height, width) by nearest neighbour; a small one may vanish."""
        rows, columns = (np.arange(shown) * side // shown for shown, side in zip(size, self.image.shape[:2], strict=True))
        return rle.sample(self.codes[n], rows, columns)

    def worst(self) -> list[int]:
        """The regions by how much they spoil the image, the worst first: (1 - quality) x importance. One of which a
        single score is known counts as the mean of the image in the other; one of which nothing is known is left out."""
        quality, importance = self.values("quality"), self.values("importance")
        harm = _filled(1 - quality) * _filled(importance)
        known = ~(np.isnan(quality) & np.isnan(importance))
        return [int(n) for n in np.argsort(-harm, kind="stable") if known[n]]


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) with the mean of the known ones in place of NaN; 1 throughout where none is known, as a factor that plays no part."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), known.mean() if known.size else 1.0, values)


def quality_map(engine: Engine, image: ImageLike | Looked, tasks: Sequence[Task] | None = None) -> QualityMap:
    """Segments an image by the engine's segmenter, and scores all that it finds.

    Raises:
        ConfigError: the segmenter finds nothing by itself, or no score is among `tasks`.
        ValueError: a task that the model cannot answer, or an image that another model has looked at.
    """
    asked = engine.tasks if tasks is None else tasks
    engine.scorer.check_tasks(asked)
    check_mapped(asked)
    looked = engine.look(image)
    codes = engine.propose(looked.image)
    return QualityMap(looked.image, codes, tuple(engine.score(looked, codes, asked)))


def check_mapped(tasks: Sequence[Task]) -> None:
    """Raises ConfigError where there is no score to make a map of."""
    if not set(SCORES) & set(tasks):
        raise ConfigError(f"a map shows quality or importance, and only {', '.join(tasks) or 'nothing'} is asked for")


def draw_map(found: QualityMap, ranked: int = RANKED) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8: the photograph with the worst regions numbered, a map of each score over it, and a table of the
    worst regions."""
    shown = [task for task in SCORES if not np.isnan(found.values(task)).all()]
    order = found.worst()[:ranked]
    picture, parts = _reduced(found)
    across = picture.shape[1] / picture.shape[0]
    panel = 4.6  # inches of a panel's height
    width = min(max(panel * across, 3.4), 6.4)
    panel = width / across
    rows = len(order) + 1
    columns, table = 1 + len(shown), 0.3 * rows + 0.35
    figure = Figure(figsize=(columns * width + 0.5 + 0.25 * columns, panel + 0.85 + table), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[panel + 0.85, table])[:, 0]
    axes = upper.subplots(1, columns, squeeze=False)[0]
    _show(axes[0], picture, "Photograph", f"{len(found.codes)} regions; the worst are numbered" if order else f"{len(found.codes)} regions")
    for number, n in enumerate(order, 1):
        _number(axes[0], parts[n], number)
    for place, task in zip(axes[1:], shown, strict=True):
        _panel(place, picture, parts, found.values(task), task)
    _table(lower.subplots(), found, order)
    figure.draw_without_rendering()  # the layout settles in two passes
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(150)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@dataclass(frozen=True)
class _Part:
    """A region in a panel.

    Attributes:
        place: the smallest box around it in the panel and a pixel more to each side. inside: its pixels there. edge: those at its edge.
        area: in pixels of the panel.
    """

    place: tuple[slice, slice]
    inside: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    area: int


def _part(mask: NDArray[np.bool_]) -> _Part:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    ends = [(max(0, int(found[0]) - 1), int(found[-1]) + 2) if found.size else (0, 0) for found in (rows, columns)]
    place = (slice(*ends[0]), slice(*ends[1]))
    inside = mask[place].copy()
    return _Part(place, inside, inside & ~_core(inside), int(np.count_nonzero(inside)))


def _reduced(found: QualityMap) -> tuple[NDArray[np.uint8], list[_Part]]:
    """The image and its regions, no longer than a panel."""
    size = reduced_size(found.image, _LONGEST)
    picture = np.asarray(Image.fromarray(found.image).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    return picture, [_part(found.mask(n, size)) for n in range(len(found.codes))]


def reduced_size(image: NDArray[np.uint8], longest: int) -> tuple[int, int]:
    """(height, width) of an image (H, W, 3) whose longer side is `longest` pixels, or its own where it is smaller."""
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _show(axes: Axes, picture: NDArray[Any], title: str, detail: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=12, color=_INK, fontweight="bold", pad=19)
    axes.annotate(detail, (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=_MUTED)


def _panel(axes: Axes, picture: NDArray[np.uint8], parts: Sequence[_Part], values: NDArray[np.float64], task: Score) -> None:
    """A score in colour over the photograph's light and dark; grey where nothing is known."""
    colours = colormaps[COLOURS[task]]
    light = 0.2 + 0.8 * (picture.astype(np.float64) @ [0.299, 0.587, 0.114])[..., None] / 255
    out = np.repeat(0.3 + 0.5 * light, 3, axis=2)
    edges = np.zeros(picture.shape[:2], np.bool_)
    for n in np.argsort([-part.area for part in parts], kind="stable"):
        place, inside = parts[n].place, parts[n].inside
        if not np.isnan(values[n]):
            out[place][inside] = _SHARE * np.array(colours(values[n])[:3]) + (1 - _SHARE) * light[place][inside]
        edges[place][inside] = parts[n].edge[inside]
    out[edges] = 0.5 * out[edges] + 0.5
    known = values[~np.isnan(values)]
    _show(
        axes,
        (255 * np.clip(out, 0, 1)).astype(np.uint8),
        _TITLES[task],
        f"{known.min():.2f} to {known.max():.2f}, mean {known.mean():.2f} over regions",
    )
    bar = axes.figure.colorbar(ScalarMappable(cmap=colours), ax=axes, location="bottom", fraction=0.05, pad=0.02, aspect=40)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=_RULE, labelcolor=_MUTED)
    bar.set_ticks([0, 0.5, 1], labels=[f"0  {LEVELS[task][0]}", "0.5", f"{LEVELS[task][-1]}  1"])
    left, _, right = bar.ax.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")


def _core(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask whose four neighbours are in it."""
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _number(axes: Axes, part: _Part, number: int) -> None:
    if not part.area:
        return
    depth = distance_transform_edt(np.pad(part.inside, 1))[1:-1, 1:-1]
    top, left = (int(side.start) for side in part.place)
    y, x = (at + first for at, first in zip(np.unravel_index(int(depth.argmax()), depth.shape), (top, left), strict=True))
    ys, xs = top + np.arange(part.inside.shape[0]), left + np.arange(part.inside.shape[1])
    axes.contour(xs, ys, part.inside, levels=[0.5], colors="white", linewidths=2.2)
    axes.contour(xs, ys, part.inside, levels=[0.5], colors=_INK, linewidths=0.9)
    around = [withStroke(linewidth=3, foreground="white")]
    axes.text(float(x), float(y), str(number), ha="center", va="center", fontsize=12, fontweight="bold", color=_INK, path_effects=around)


def _table(axes: Axes, found: QualityMap, order: Sequence[int]) -> None:
    """The worst regions, one in a line."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(order) + 1, 0))
    area = found.image[..., 0].size
    heads = ["", "worst first", "share of image", "quality", "importance", "distortion"]
    stops = [0.005, 0.03, 0.19, 0.33, 0.49, 0.65]
    for x, head in zip(stops, heads, strict=True):
        axes.text(x, 0.5, head, fontsize=9, color=_MUTED, va="center")
    for line, n in enumerate(order, 1):
        axes.plot([0, 1], [line, line], color=_RULE, lw=0.8)
        scores = found.scores[n]
        cells = [str(line), f"region {n + 1}", f"{rle.area(found.codes[n]) / area:.1%}"]
        cells += [said(scores.get("quality")), said(scores.get("importance")), said(scores.get("distortion"))]
        for x, cell in zip(stops, cells, strict=True):
            axes.text(x, line + 0.5, cell, fontsize=10, color=_INK, va="center", fontweight="bold" if x == stops[0] else "normal")
