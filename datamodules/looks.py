"""Another look for a clean photograph: turned, and with other tones and colours, within what cameras and tastes differ by.

A few photographs teach a model their own colours by heart: it then knows a faded astronaut by her suit, and nothing about fading.
Looks take that away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datamodules.distortions.base import to_rgb, to_ycc

REPAINTED = 0.35  # share of looks whose hues are turned by any angle


def relook(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square (H, H, 3) uint8 image -> one of the same size: a quarter turn, a tone curve, a slope, a saturation, a hue."""
    ycc = to_ycc(np.rot90(image, int(rng.integers(4))))
    luma = 255 * np.clip(ycc[..., 0] / 255, 0, 1) ** np.exp(rng.normal(0, 0.28))
    ycc[..., 0] = luma.mean() + (luma - luma.mean()) * np.exp(rng.normal(0, 0.18))
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < REPAINTED else rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    ycc[..., 1:] = ycc[..., 1:] @ turn.T * np.float32(np.exp(rng.normal(0, 0.3))) + rng.normal(0, 2.5, 2).astype(np.float32)
    return to_rgb(ycc)
