"""The whole-image baseline: the model is told where the region is, by a drawn box, and must look for itself.

The paper's whole-image models are given the picture with a rectangle drawn into it, so the image is encoded once for each region. Here an
image is encoded once and all regions are asked behind it; so the rectangle is drawn on an empty sheet of the image's layout, and that
drawing becomes the region's token: a place, and nothing of what is there, which the language model can have from the image's tokens alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.pooling import overlap
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor


def draw_boxes(boxes: Tensor, size: int, line: float) -> Tensor:
    """The outline of each box on a sheet of size x size cells, as the share of each cell that is ink: places finer than a cell show.

    Args:
        boxes: (B, R, 4) left, top, width, height as fractions of the image.
        line: width of the line, in cells, inward from the box's edge; a box that is not twice as wide is filled.

    Returns:
        (B, R, size, size) float32 in [0, 1].
    """
    low = boxes.float()[..., :2] * size
    high = low + boxes.float()[..., 2:] * size
    outer, inner = overlap(low, high, size), overlap(low + line, high - line, size)  # (B, R, 2, size): across, down
    return outer[..., 1, :, None] * outer[..., 0, None, :] - inner[..., 1, :, None] * inner[..., 0, None, :]


@REGION_EXTRACTORS.register("drawn_box")
class DrawnBox(RegionExtractor):
    """One token: the drawing of the region's box through an MLP. No feature of the region, no mask."""

    tokens = 1

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        size: int = 32,
        line: float = 1.0,
        hidden: int = 512,
    ) -> None:
        """
        Args:
            size: side of the sheet, cells. line: width of the drawn line, cells. hidden: width of the MLP.

        Raises:
            ValueError: a sheet or a line of nothing.
        """
        super().__init__(channels, sizes, width)
        if size < 1 or line <= 0:
            raise ValueError(f"size and line are cells, above 0; got size {size}, line {line}")
        self.size, self.line = size, line
        self.mlp = nn.Sequential(nn.Linear(size**2, hidden), nn.GELU(), nn.Linear(hidden, width))

    def prepare(self, pyramid: Pyramid) -> None:
        """Nothing: it does not look at the image."""

    def forward(self, prepared: None, regions: Regions) -> Tensor:
        """See the contract; K is 1."""
        sheets = draw_boxes(regions.boxes, self.size, self.line).flatten(2)  # (B, R, size ** 2)
        return self.mlp(sheets.to(next(self.mlp.parameters()).dtype))[:, :, None]  # (B, R, 1, D)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"size": 8, "hidden": 16}
