"""Luma and colour differences of an image, and the same at half the size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.distortions.base import to_ycc
from datamodules.quality_labels.base import Image

Float = NDArray[np.float32]


def to_planes(image: Image) -> Float:
    """(H, W, 3) RGB -> (3, H, W) Y, Cb, Cr."""
    return np.ascontiguousarray(np.moveaxis(to_ycc(image), 2, 0))


def halve(planes: Float) -> Float:
    """(3, h, w) -> (3, h // 2, w // 2), the means of 2 x 2 pixels."""
    h, w = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    rows = planes[:, :h, 0:w:2] + planes[:, :h, 1:w:2]
    return np.float32(0.25) * (rows[:, 0::2] + rows[:, 1::2])
