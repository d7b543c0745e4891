"""The whole-image baseline: the model is told where the region is by a rectangle, and must look for itself.

The paper's whole-image models are shown the picture with a rectangle drawn on it. So is the image's encoder here, once for each region,
and what it sees becomes the region's tokens, behind the tokens of the image without ink. Or the rectangle stands on an empty sheet, which
needs no encoder: a place, and nothing of what is there, which the language model can have from the image's tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from PIL import ImageColor
from torch import Tensor, nn

from components.batch import Pyramid, Regions
from components.outline import Outline, draw_boxes
from components.region_extractors._seen_crops import tokens_of_crops
from components.region_extractors.base import REGION_EXTRACTORS, RegionExtractor

_LINE = 0.01  # of the picture's side: five pixels of 512
_CELLS, _CELLS_LINE = 32, 1.0


@REGION_EXTRACTORS.register("drawn_box")
class DrawnBox(RegionExtractor):
    """The picture with the region's box drawn on it, as a grid of tokens, row by row; or one token, the box on an empty sheet. No mask.

    On the picture: the image's encoder sees it as it sees images, and each of its levels is averaged over each part of the grid, as `crop`
    does with `encoder=shared`; a step takes longer by one such picture for each region. On the sheet: the drawing through an MLP.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        width: int,
        /,
        *,
        on: Literal["image", "sheet"] = "image",
        size: int | None = None,
        line: float | None = None,
        colour: str = "red",
        hidden: int = 512,
        grid: int = 4,
    ) -> None:
        """
        Args:
            on: what the box is drawn on: "image", the whole picture, or "sheet", nothing.
            size: side of the picture, pixels, which the encoder must be able to see, None for its own; or of the sheet, cells, None for 32.
            line: width of the line, inward from the box's edge: on the picture as a fraction of its side, None for 0.01; on the sheet in
                cells, None for 1. A box that is not twice as wide is filled.
            colour: of the line on the picture: a name or "#rrggbb", as Pillow's ImageColor reads it.
            hidden: width of the MLP, or of the encoder's levels' sum.
            grid: of the picture, tokens along each side; K is its square.

        Raises:
            ValueError: a picture, a sheet, a line or a grid of nothing, a line as wide as half the picture, no colour.
        """
        super().__init__(channels, sizes, width)
        self.shares_encoder = on == "image"
        if self.shares_encoder:
            if grid < 1 or (size is not None and size < 1):
                raise ValueError(f"grid and size must be at least 1, got grid {grid}, size {size}")
            self.outline = Outline(_rgb(colour), _fraction(_LINE if line is None else line))
            self.crop_size, self.grid, self.tokens = size or 0, grid, grid**2
            self.levels = nn.ModuleList(nn.Linear(c, hidden) for c in channels)
            self.out = nn.Linear(hidden, width)
        else:
            self.size, self.line, self.tokens = _CELLS if size is None else size, _CELLS_LINE if line is None else line, 1
            if self.size < 1 or self.line <= 0:
                raise ValueError(f"on a sheet size and line are cells, above 0; got size {size}, line {line}")
            self.mlp = nn.Sequential(nn.Linear(self.size**2, hidden), nn.GELU(), nn.Linear(hidden, width))

    def prepare(self, pyramid: Pyramid) -> None:
        """Nothing: of the image without ink it makes no use."""

    def forward(self, prepared: Pyramid | None, regions: Regions) -> Tensor:
        """See the contract; K is grid ** 2 on the picture, 1 on the sheet.

        Raises:
            ValueError: a pyramid that is not that of the image's encoder, of the pictures of these regions.
        """
        if self.shares_encoder:
            return tokens_of_crops(prepared, regions.valid, self.grid, self.levels, self.out)
        sheets = draw_boxes(regions.boxes, self.size, self.line).flatten(2)  # (B, R, size ** 2)
        tokens: Tensor = self.mlp(sheets.to(next(self.mlp.parameters()).dtype))
        return tokens[:, :, None]  # (B, R, 1, D)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """See the contract: once there was the sheet alone, and no option."""
        if self.shares_encoder and any(name.startswith("mlp.") for name in state):
            raise ValueError(
                "these weights are of a drawn_box that drew on an empty sheet, which was the only one until `on` was an option: "
                "set model.region_extractor.on to sheet (in the config.yaml of the run), or train it again"
            )

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """See the contract."""
        return {"on": "sheet", "size": 8, "hidden": 16}


def _rgb(colour: str) -> tuple[float, float, float]:
    try:
        red, green, blue = ImageColor.getrgb(colour)[:3]
    except ValueError as error:
        raise ValueError(f"colour: got {colour!r}, expected a name such as red, or #rrggbb, as Pillow's ImageColor reads them") from error
    return red / 255, green / 255, blue / 255


def _fraction(line: float) -> float:
    if not 0 < line < 0.5:
        told = "expected a fraction of the picture's side, above 0 and below 0.5 (of an empty sheet it is in cells: on=sheet)"
        raise ValueError(f"line: got {line}, {told}")
    return line
