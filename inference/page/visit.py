"""What one visitor has before him: an image, and the regions of it that were asked about."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.draw import shown_at
from inference.quality_map import QualityMap
from inference.rows import Row


@dataclass(frozen=True)
class Marked:
    """A region that was asked about.

    Attributes:
        code: its run-length code.
        rows: the answers of each model.
        reduced: how many times it was made smaller before each model looked.
    """

    code: Mapping[str, Any]
    rows: tuple[Row, ...]
    reduced: tuple[float, ...]

    @property
    def row(self) -> Row:
        """The first model's."""
        return self.rows[0]


@dataclass
class Visit:
    """An image and its regions. Several requests of one visitor may come at once: whoever changes its regions holds `turn`, whoever
    writes its files `filing`.

    Attributes:
        name: of the image's file.
        image: (H, W, 3) uint8 RGB; not to be written to from here on, so that it need not be read again to be known.
        regions: in the order in which they were asked about.
        corner: (x, y) of the first corner of a box that is being drawn.
        maps: each model's, once they were asked for.
        key: by which what models keep of the image is found.
        left: whether the visitor has gone on to another picture, or was away for too long.
    """

    name: str
    image: NDArray[np.uint8]
    regions: list[Marked] = field(default_factory=list)
    corner: tuple[float, float] | None = None
    maps: tuple[QualityMap, ...] = ()
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    left: bool = False
    turn: threading.RLock = field(default_factory=threading.RLock)
    filing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.image.flags.writeable = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def shown(self) -> NDArray[np.uint8]:
        """The image at the size of the picture that shows it."""
        return shown_at(self.image)

    def as_json(self, models: Sequence[str]) -> str:
        """All that was answered, with the regions themselves as COCO's run-length codes."""
        regions = []
        for region in tuple(self.regions):
            told = region.row.nested()
            regions.append(
                {
                    **{key: told[key] for key in ("region", "kind", "box", "area")},
                    "rle": region.code,
                    "answers": {
                        model: {task: row.nested()[task] for task in row.scores} for model, row in zip(models, region.rows, strict=True)
                    },
                }
            )
        height, width = self.size
        return json.dumps({"image": self.name, "width": width, "height": height, "models": list(models), "regions": regions}, indent=1)
