"""The scores of a map as colours over the photograph's own light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from components import rle
from components.prompts import LEVELS
from inference import draw
from inference.page.answers import RANKED
from inference.quality_map import COLOURS, SCORES, QualityMap, Score, reduced_size
from inference.rows import Row

_SHARE = 0.66  # of the colour
_LONGEST = 1000  # pixels of the picture's longer side


def panels(maps: Sequence[QualityMap], models: Sequence[str]) -> str:
    """The maps of each model beside each other as HTML, with what their colours mean."""
    told = ""
    for found, model in zip(maps, models, strict=True):
        light = _light(found.image)
        told += "".join(_panel(found, light, task, model if len(models) > 1 else "") for task in SCORES)
    return f'<div class="roi-maps">{told}</div>'


def _light(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """image (H, W, 3) uint8 -> (h, w) in [0, 1]: its light and dark at the size in which it is shown."""
    height, width = reduced_size(image, _LONGEST)
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX), np.float32)
    return (small @ np.array([0.299, 0.587, 0.114], np.float32) / 255).astype(np.float32)


def _panel(found: QualityMap, light: NDArray[np.float32], task: Score, model: str) -> str:
    values = found.values(task)
    if np.isnan(values).all():
        return ""
    shaded = shade(light, found.map(task, (light.shape[0], light.shape[1])), COLOURS[task])
    picture = _numbered(shaded, found, found.worst()[:RANKED])
    said = f"{np.nanmin(values):.2f} to {np.nanmax(values):.2f}"
    title = " · ".join(escape(part) for part in (task.capitalize(), model) if part)
    return (
        f'<figure data-map="{task}"><figcaption><b>{title}</b><span class="roi-muted">{said}</span></figcaption>'
        f'<img src="{_embedded(picture)}" alt="{title} of every region, {said}">{legend(task)}</figure>'
    )


def shade(light: NDArray[np.float32], values: NDArray[np.float32], colours: str) -> NDArray[np.uint8]:
    """light (h, w) in [0, 1] under values (h, w) in [0, 1], NaN where nothing is known, -> (h, w, 3) uint8: grey where nothing is."""
    known, light = ~np.isnan(values)[..., None], light[..., None]
    hue = colormaps[colours](np.nan_to_num(values))[..., :3]
    out = np.where(known, _SHARE * hue + (1 - _SHARE) * light, 0.3 + 0.5 * light)
    return (np.clip(out, 0, 1) * 255).round().astype(np.uint8)


def legend(task: Score) -> str:
    """A bar of the colours from 0 to 1, as HTML."""
    stops = ",".join("rgb({:.0f},{:.0f},{:.0f})".format(*(255 * c for c in colormaps[COLOURS[task]](n / 8)[:3])) for n in range(9))
    low, *_, high = LEVELS[task]
    return (
        f'<div class="roi-legend"><span>0 {low}</span><i style="background:linear-gradient(90deg,{stops})" aria-hidden="true"></i>'
        f"<span>{high} 1</span></div>"
    )


def _embedded(picture: NDArray[np.uint8]) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _numbered(picture: NDArray[np.uint8], found: QualityMap, worst: list[int]) -> NDArray[np.uint8]:
    """Outlines and numbers of the worst regions, as in the table."""
    height, width = found.image.shape[:2]
    if not worst:
        return picture
    masks = np.stack([found.mask(n, (picture.shape[0], picture.shape[1])) for n in worst])
    for mask, n in zip(masks, worst, strict=True):
        if not mask.any():  # too small for this picture, but it has its number
            left, top, *_ = rle.box(found.codes[n])
            mask[top * picture.shape[0] // height, left * picture.shape[1] // width] = True
    return draw.mark(picture, masks, [Row("", str(n), "proposed") for n in worst], ())
