"""What the page does for a visitor, without the page: opens images, asks the models about regions, draws, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from components import rle
from components.mask_encoders.base import Code, Prompt
from components.registry import ConfigError
from components.tasks import TASKS, Task
from inference import draw
from inference.engine import Engine
from inference.page.limits import Limits, Refusal
from inference.page.looks import Looks
from inference.page.uploads import read_bytes, read_image
from inference.page.visit import Marked, Visit
from inference.quality_map import QualityMap, check_mapped
from inference.reduced import FACTOR, note, times
from inference.rows import Row

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB


class Service:
    """One or several models that answer about the same regions.

    Args:
        models: what a model is called -> its engine, in the order in which their answers are shown. The first one's segmenter makes
            regions, and its answers colour them.

    Raises:
        ConfigError: a model in which an image's regions change each other's scores.
    """

    def __init__(self, models: Mapping[str, Engine], limits: Limits | None = None) -> None:
        for name, engine in models.items():
            if engine.scorer.coupled:
                raise ConfigError(
                    f"{name}: its regions change each other's scores (coupled: true), and the page asks about one after another, so that "
                    "it would show other scores than predict.py: use predict.py, or a model with coupled: false"
                )
        self.limits = limits or Limits()
        self.models, self.engines = tuple(models), tuple(models.values())
        self.looks = Looks(self.engines, self.limits.images)
        self.tasks: tuple[Task, ...] = tuple(task for task in TASKS if any(task in engine.tasks for engine in self.engines))

    def open(self, path: str | Path) -> Visit:
        """An image that was uploaded. Raises Refusal."""
        return Visit(Path(path).name, read_image(read_bytes(path, self.limits), self.limits))

    def look(self, visit: Visit) -> None:
        """Encodes the image, so that the first answer, too, comes at once."""
        self.looks.of(visit.key, visit.image)

    def place(self, visit: Visit, shown: Sequence[float]) -> tuple[float, float]:
        """(x, y) of the pixel shown in `picture` -> the place in the image that it shows, which lies inside."""
        (height, width), (tall, wide) = visit.size, draw.shown_size(visit.size)
        x, y = ((shown[0] + 0.5) * width / wide, (shown[1] + 0.5) * height / tall)
        return min(max(x, 0.0), width - 0.5), min(max(y, 0.0), height - 0.5)

    def point(self, visit: Visit, x: float, y: float) -> Marked:
        """The region around a point, in pixels of the image. Raises RegionError."""
        (code,) = self.engines[0].segment(visit.image, [Prompt(point=(x, y))])
        return self.ask(visit, code, "point", f"around {x:.0f}, {y:.0f}")

    def corner(self, visit: Visit, x: float, y: float) -> Marked | None:
        """The first click is a box's corner, the second, anywhere else, the opposite one. Raises Refusal."""
        with visit.turn:
            if visit.corner is None:
                visit.corner = (x, y)
                return None
            (left, right), (top, bottom) = sorted((visit.corner[0], x)), sorted((visit.corner[1], y))
            if right - left < 1 or bottom - top < 1:
                raise Refusal("The two corners lie in one line: click the corner opposite to the first.")
            visit.corner = None
        box = (round(left), round(top), round(right - left), round(bottom - top))
        return self._box(visit, box, "box", f"box {', '.join(map(str, box))}")

    def whole(self, visit: Visit) -> Marked:
        """The whole image as one region."""
        return self._box(visit, (0, 0, visit.size[1], visit.size[0]), "image", "whole image")

    def _box(self, visit: Visit, box: tuple[int, int, int, int], kind: str, name: str) -> Marked:
        return self.ask(visit, rle.encode_rectangle(visit.size, box[0], box[1], box[0] + box[2], box[1] + box[3]), kind, name)

    def mark(self, visit: Visit, mask: NDArray[np.bool_], kind: str, name: str) -> Marked:
        """As `ask`, about a region (H, W) bool, not empty."""
        return self.ask(visit, rle.encode(mask), kind, name)

    def ask(self, visit: Visit, code: Code, kind: str, name: str) -> Marked:
        """Asks every model about a region, by its run-length code, and adds it to the visit.

        Raises:
            Refusal: there are as many regions as are allowed.
        """
        with visit.turn:
            if len(visit.regions) >= self.limits.regions:
                raise Refusal(f"There are {len(visit.regions)} regions, as many as the page keeps of an image: remove some first.")
            looks = self.looks.of(visit.key, visit.image)
            answers = [engine.score(look, [code])[0] for engine, look in zip(self.engines, looks, strict=True)]
            box, area = rle.measure(code)
            share = area / visit.image[..., 0].size
            reduced = tuple(times(engine.scorer, visit.size, box) for engine in self.engines)
            marked = Marked(code, tuple(Row(visit.name, name, kind, box, share, scores) for scores in answers), reduced)
            visit.regions.append(marked)
            return marked

    def picture(self, visit: Visit) -> Pixels:
        """The image with outlined and numbered regions, and a cross where a box was begun."""
        regions, corner = tuple(visit.regions), visit.corner
        picture = draw.mark(visit.image, [r.code for r in regions], [r.row for r in regions], self.tasks, visit.shown)
        return picture if corner is None else _cross(picture, corner, visit.size)

    def overlay(self, visit: Visit) -> Pixels:
        """The picture with its legend, of the first model's answers."""
        regions = tuple(visit.regions)
        return draw.draw(visit.image, [r.code for r in regions], [r.row for r in regions], self.tasks)

    def map(self, visit: Visit) -> tuple[QualityMap, ...]:
        """Every region that the segmenter finds, once, scored by each model. Raises RegionError, ConfigError."""
        for engine in self.engines:
            check_mapped(engine.tasks)
        codes = self.engines[0].propose(visit.image)
        looks = self.looks.of(visit.key, visit.image)
        return tuple(
            QualityMap(visit.image, codes, tuple(engine.score(look, codes))) for engine, look in zip(self.engines, looks, strict=True)
        )

    def notes(self, maps: Sequence[QualityMap]) -> tuple[str, ...]:
        """What is said of each model's map where regions were reduced until fine distortions vanish; "" where none was."""
        told = []
        for engine, found in zip(self.engines, maps, strict=True):
            size = (found.image.shape[0], found.image.shape[1])
            count = sum(times(engine.scorer, size, rle.box(code)) > FACTOR for code in found.codes)
            told.append(note(count, engine.scorer))
        return tuple(told)


def _cross(picture: Pixels, corner: tuple[float, float], size: tuple[int, int]) -> Pixels:
    scale = draw.shown_size(size)[1] / size[1]
    x, y = (value * scale for value in corner)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    reach = max(12, picture.shape[1] // 60)
    for colour, width in (((20, 20, 22), 7), ((255, 255, 255), 3)):
        pen.line((x - reach, y, x + reach, y), fill=colour, width=width)
        pen.line((x, y - reach, x, y + reach), fill=colour, width=width)
    return np.asarray(canvas)
