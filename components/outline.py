"""A rectangle that shows where a region is: its ink on a sheet, and on a picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.pooling import overlap


@dataclass(frozen=True)
class Outline:
    """How the box of a region is drawn on the picture.

    Attributes:
        colour: red, green, blue in [0, 1].
        line: width of the line as a fraction of the picture's side, inward from the box's edge.
    """

    colour: tuple[float, float, float]
    line: float

    def draw(self, picture: Tensor, boxes: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        """The picture once for each box, with that box's outline; what the line does not cover stays to the bit.

        Args:
            picture: (3, S, S), normalised by `mean` and `std`, as the colour then is.
            boxes: (R, 4), see `draw_boxes`.

        Returns:
            (R, 3, S, S).
        """
        size = picture.shape[-1]
        ink = draw_boxes(boxes[None], size, self.line * size)[0]
        colour = (torch.tensor(self.colour) - torch.tensor(mean)) / torch.tensor(std)
        return torch.lerp(picture, colour[:, None, None], ink[:, None])


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
