"""Scored regions drawn on their image, with a legend below, for people to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_cdt

from components import rle
from components.mask_encoders.base import Masks
from components.tasks import TASKS, RoiScore, Task
from datamodules.records import ImageRecord, RegionRecord, first_malformed
from inference.rows import Row

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Drawn = Masks | Sequence[Mapping[str, Any]]  # (R, H, W) bool, or R run-length codes
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # what RGB pictures are written as

_SHORTEST, _LONGEST = 720, 1600  # of the picture's longer side; a smaller image is enlarged
_LISTED = 24  # regions in the legend
_RAMP = ((178, 24, 43), (239, 132, 84), (247, 206, 88), (88, 172, 210), (30, 96, 170))  # worst to best, apart for colour-blind eyes
_NEUTRAL = (120, 120, 128)
_PAPER, _INK, _MUTED, _RULE = (255, 255, 255), (27, 28, 31), (93, 96, 105), (226, 228, 233)


def draw(image: Pixels, regions: Drawn, rows: Sequence[Row], tasks: Sequence[Task]) -> Pixels:
    """image (H, W, 3) uint8, its regions and their scored rows -> a picture with outlines, numbers and a legend.

    Of run-length codes one mask at a time is made, in the picture's size: thousands of them take no more than one. Outlines have the
    colour of the first score among `tasks`, red for 0 and blue for 1. With more regions than the legend has room for, it lists those of
    the lowest score.
    """
    shown = shown_task(tasks)
    canvas, colours = _marked(image, regions, rows, shown)
    return np.asarray(_with_legend(canvas, rows, colours, tasks, shown))


def mark(image: Pixels, regions: Drawn, rows: Sequence[Row], tasks: Sequence[Task], picture: Pixels | None = None) -> Pixels:
    """As `draw`, without the legend: the image at the picture's size, with outlines and numbers.

    Args:
        picture: `shown_at` of the image, where that was made before.
    """
    return np.asarray(_marked(image, regions, rows, shown_task(tasks), picture)[0])


def shown_at(image: Pixels) -> Pixels:
    """The image at the size of the picture that shows it."""
    height, width = shown_size((image.shape[0], image.shape[1]))
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def shown_task(tasks: Sequence[Task]) -> Task | None:
    """The score whose value is the colour of a region."""
    return next((task for task in tasks if task != "distortion"), None)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image -> of the picture that shows it, without a legend."""
    scale = min(max(*size, _SHORTEST), _LONGEST) / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _marked(
    image: Pixels, regions: Drawn, rows: Sequence[Row], shown: Task | None, picture: Pixels | None = None
) -> tuple[Image.Image, list[tuple[int, int, int]]]:
    if len(regions) != len(rows):
        raise ValueError(f"{len(regions)} regions and {len(rows)} rows: each region drawn has one of each")
    colours = [colour(row.scores.get(shown) if shown else None) for row in rows]
    picture = shown_at(image) if picture is None else picture
    stroke = max(3, max(picture.shape) // 260)
    forms = _Forms(regions, (image.shape[0], image.shape[1]), stroke)
    picture = picture.copy()
    for n in np.argsort([-form.area for form in forms], kind="stable"):  # large ones first, so that none is buried
        forms[n].outline(picture, colours[n])
    canvas = Image.fromarray(picture)
    _number(canvas, forms, colours, stroke)
    return canvas, colours


def encode_labelled(pixels: Pixels, record: ImageRecord) -> bytes:
    """An image with its regions and what is known of them -> JPEG.

    Raises:
        RegionError: names the region that does not belong to an image of this size, or covers no pixel.
    """
    rows = [Row(record.id, region.id, "rle", scores=_labels(region)) for region in record.regions]
    codes = [{"size": [record.height, record.width], "counts": region.counts} for region in record.regions]
    try:
        picture = draw(pixels, codes, rows, TASKS)
    except rle.RegionError as error:
        raise rle.RegionError(f"image {record.id}, region {first_malformed(record)}: {error}") from error
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _labels(region: RegionRecord) -> dict[Task, RoiScore]:
    found: dict[Task, RoiScore] = {}
    if region.quality is not None:
        found["quality"] = RoiScore("quality", region.quality, region.quality_std)
    if region.importance is not None:
        found["importance"] = RoiScore("importance", region.importance, region.importance_std)
    if region.distortions is not None:
        found["distortion"] = RoiScore("distortion", distortions=region.distortions)
    return found


def save(picture: Pixels, path: Path) -> None:
    """Writes a picture atomically, in the form that its ending, one of `SUFFIXES`, says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    forms: dict[str, dict[str, Any]] = {ending: {"quality": 92, "subsampling": 0} for ending in (".jpg", ".jpeg")}
    forms[".png"] = {"compress_level": 1}  # the usual 6 takes longer than all the drawing
    options = forms.get(path.suffix.lower(), {})
    form = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(picture).save(draft, form, **options)
    draft.replace(path)


def colour(score: RoiScore | None) -> tuple[int, int, int]:
    """Red, green and blue of a score: red for 0, blue for 1, grey where there is none."""
    return _NEUTRAL if score is None or score.value is None else _ramp(score.value)


def _ramp(value: float) -> tuple[int, int, int]:
    """The colour of a score in [0, 1]."""
    place = value * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return red, green, blue


@dataclass(frozen=True)
class _Form:
    """A region at the size of the picture that shows its image, and its outline.

    Attributes:
        area: in pixels.
        bounds: first and last row, first and last column.
        deepest: (x, y) of the pixel that is farthest inside. depth: half the side of the largest square around it there.
        part: of the picture, where the outline lies; dark, white, line: rows and columns there of its three bands, which are few.
    """

    area: int
    bounds: tuple[int, int, int, int]
    deepest: tuple[float, float]
    depth: float
    part: tuple[slice, slice]
    dark: tuple[NDArray[np.intp], ...]
    white: tuple[NDArray[np.intp], ...]
    line: tuple[NDArray[np.intp], ...]

    def outline(self, picture: Pixels, colour: tuple[int, int, int]) -> None:
        """A coloured line inside the region's edge, between a white and a dark one, so that it is seen on any ground."""
        view = picture[self.part]
        view[self.dark], view[self.white], view[self.line] = (20, 20, 22), (255, 255, 255), colour


class _Forms(Sequence[_Form]):
    """Regions at the size of the picture that shows their image, each made when it is asked for. Those of run-length codes that were drawn
    last are kept: a page draws its regions again with each that is added.

    Args:
        size: (height, width) of the image.
        stroke: width of an outline.
    """

    def __init__(self, regions: Drawn, size: tuple[int, int], stroke: int) -> None:
        self.regions, self.size, self.stroke = regions, size, stroke

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, n: Any) -> Any:
        region = self.regions[n]
        if not isinstance(region, Mapping):
            rows, columns = _shown_pixels(self.size)
            return _form(_kept(region[rows[:, None], columns], region, self.size), self.stroke)
        if not isinstance(region["counts"], str):
            return _form_of_code(region, self.size, self.stroke)
        return _known_form(region["counts"], self.size, self.stroke)


@lru_cache(maxsize=64)
def _known_form(counts: str, size: tuple[int, int], stroke: int) -> _Form:
    return _form_of_code({"size": list(size), "counts": counts}, size, stroke)


def _form_of_code(code: Mapping[str, Any], size: tuple[int, int], stroke: int) -> _Form:
    return _form(_kept(rle.sample(code, *_shown_pixels(size)), code, size), stroke)


def _shown_pixels(size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns of an image that its picture shows."""
    rows, columns = (np.arange(shown) * side // shown for shown, side in zip(shown_size(size), size, strict=True))
    return rows, columns


def _kept(shape: NDArray[np.bool_], region: Mapping[str, Any] | NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A region that would vanish in the picture keeps a pixel."""
    if not shape.any():
        left, top, *_ = rle.box(region if isinstance(region, Mapping) else rle.encode(region))
        shape[tuple(at * shown // side for at, shown, side in zip((top, left), shown_size(size), size, strict=True))] = True
    return shape


def _form(mask: NDArray[np.bool_], stroke: int) -> _Form:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    reach = 2 * stroke + 4
    part = np.s_[max(0, top - reach) : bottom + reach + 1, max(0, left - reach) : right + reach + 1]
    inside = mask[part]
    padded = np.pad(inside, 1)  # the image's edge is an edge of the region
    core = ~_grown(~padded, stroke)[1:-1, 1:-1]
    white = _grown(inside, 1 + stroke // 3) & ~inside
    dark = _grown(inside | white, 1 + stroke // 3) & ~inside & ~white
    depth = distance_transform_cdt(np.pad(mask[top : bottom + 1, left : right + 1], 1), "chessboard")[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    deepest = (float(left + column), float(top + row))
    bands = [np.nonzero(band) for band in (dark, white, inside & ~core)]
    return _Form(int(np.count_nonzero(mask)), (top, bottom, left, right), deepest, float(depth.max()), part, *bands)


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A mask with all that is at most so many steps up, down, left or right from it: whole rows at a time, a fraction of SciPy's time."""
    out = mask.copy()
    for _ in range(steps):
        before = out.copy()
        out[1:] |= before[:-1]
        out[:-1] |= before[1:]
        out[:, 1:] |= before[:, :-1]
        out[:, :-1] |= before[:, 1:]
    return out


def _number(canvas: Image.Image, forms: _Forms, colours: Sequence[tuple[int, int, int]], stroke: int) -> None:
    """A numbered disc in each region, or beside it where it is small; away from discs that are there already where there is room."""
    pen = ImageDraw.Draw(canvas)
    size = 5 * stroke + 6
    font = ImageFont.load_default(size)
    taken: list[tuple[float, float]] = []
    for number, (form, colour) in enumerate(zip(forms, colours, strict=True), 1):
        text = str(number)
        radius = size * (0.62 + 0.2 * (len(text) - 1))
        spots = _spots(form, radius, canvas.size)
        x, y = next((s for s in spots if all(abs(s[0] - a) + abs(s[1] - b) > 2.2 * radius for a, b in taken)), spots[0])
        taken.append((x, y))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=_PAPER, width=max(2, stroke // 2))
        pen.text((x, y), text, fill=ink_on(colour), font=font, anchor="mm")


def _spots(form: _Form, radius: float, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Places for a disc, best first: deepest inside the region, its corners, beside it."""
    (top, bottom, left, right), inside = form.bounds, form.deepest
    edge = 1.4 * radius
    corners = [(left + edge, top + edge), (right - edge, top + edge), (left + edge, bottom - edge), (right - edge, bottom - edge)]
    beside = [
        (right + edge, (top + bottom) / 2),
        (left - edge, (top + bottom) / 2),
        ((left + right) / 2, top - edge),
        ((left + right) / 2, bottom + edge),
    ]
    roomy = form.depth > 1.6 * radius
    spots = [inside, *corners, *beside] if roomy else [*beside, inside]
    fitting = [s for s in spots if radius <= s[0] <= size[0] - radius and radius <= s[1] <= size[1] - radius]
    return fitting or [(min(max(inside[0], radius), size[0] - radius), min(max(inside[1], radius), size[1] - radius))]


def _with_legend(
    picture: Image.Image, rows: Sequence[Row], colours: Sequence[tuple[int, int, int]], tasks: Sequence[Task], shown: Task | None
) -> Image.Image:
    """The picture on paper, a line for each region below it."""
    width = max(picture.width, 640)
    text = max(15, width // 62)
    font, line, margin = ImageFont.load_default(text), round(text * 1.75), round(text * 1.1)
    order = list(range(len(rows)))
    if len(order) > _LISTED:
        order = sorted(order, key=lambda i: _value(rows[i], shown))[:_LISTED]
    lines = len(order) + 1 + (len(rows) > len(order))
    paper = Image.new("RGB", (width, picture.height + 2 * margin + lines * line), _PAPER)
    paper.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(paper)
    table = {i: [rows[i].region, *(said(rows[i].scores.get(task)) for task in tasks)] for i in order}
    heads = ("region", *tasks)
    needed = [max(map(font.getlength, column)) for column in zip(heads, *table.values(), strict=True)]
    needed = [max(n, font.getlength(head) + 6.5 * text) if head == shown else n for n, head in zip(needed, heads, strict=True)]
    first = margin + 2.6 * text
    stops = [margin, *accumulate(_shared([n + text for n in needed], width - margin - first), initial=first)][:-1]
    y = float(picture.height + margin)
    for x, head in zip(stops[1:], heads, strict=True):
        pen.text((x, y + line / 2), head, fill=_MUTED, font=font, anchor="lm")
        if head == shown:
            _key(pen, (x + font.getlength(head) + text, y + line / 2), 3 * text, text, font)
    for i in order:
        y += line
        pen.line((margin, y, width - margin, y), fill=_RULE)
        centre, radius = (stops[0] + text * 0.9, y + line / 2), text * 0.72
        pen.ellipse((centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius), fill=colours[i])
        pen.text(centre, str(i + 1), fill=ink_on(colours[i]), font=ImageFont.load_default(text * 0.8), anchor="mm")
        for x, end, cell in zip(stops[1:], [*stops[2:], width - margin + text / 2], table[i], strict=True):
            pen.text((x, y + line / 2), _fitted(cell, font, end - x - text / 2), fill=_INK, font=font, anchor="lm")
    if len(rows) > len(order):
        pen.text((stops[1], y + 1.5 * line), f"and {len(rows) - len(order)} more, all scored higher", fill=_MUTED, font=font, anchor="lm")
    return paper


def _shared(needed: Sequence[float], room: float) -> list[float]:
    """Widths of columns that need `needed`. What is over goes to all alike; where there is too little, the longest are cut alike."""
    over = room - sum(needed)
    if over >= 0:
        return [n + over / len(needed) for n in needed]
    left, longest = room, 0.0
    for count, n in zip(range(len(needed), 0, -1), sorted(needed), strict=True):
        longest = left / count
        if n > longest:
            break
        left -= n
    return [min(n, longest) for n in needed]


def _key(pen: ImageDraw.ImageDraw, start: tuple[float, float], width: int, height: int, font: Any) -> None:
    """What the colours mean: a bar from 0 to 1, to the right of `start`."""
    x, y = start
    pen.text((x, y), "0", fill=_MUTED, font=font, anchor="lm")
    left = x + font.getlength("0") + height / 3
    for step in range(width):
        pen.line((left + step, y - height / 3, left + step, y + height / 3), fill=_ramp(step / (width - 1)))
    pen.text((left + width + height / 3, y), "1", fill=_MUTED, font=font, anchor="lm")


def said(score: RoiScore | None) -> str:
    """An answer as a cell of a table; empty where nothing was asked."""
    if score is None:
        return ""
    if not score.parsed:
        return "not understood"
    if score.task == "distortion":
        return ", ".join(f"{severity} {kind}" for kind, severity in score.distortions) or "none"
    return f"{score.value:.2f}" + ("" if score.std is None else f" ± {score.std:.2f}")


def _fitted(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _value(row: Row, task: Task | None) -> float:
    score = row.scores.get(task) if task else None
    return 2.0 if score is None or score.value is None else score.value


def ink_on(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour for text that can be read on `ground`."""
    red, green, blue = ground
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else _PAPER
