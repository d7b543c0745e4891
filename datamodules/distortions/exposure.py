"""Exposure: too much or too little light, before the sensor clips or after."""

from __future__ import annotations

import numpy as np

from datamodules.distortions.base import DISTORTIONS, Distortion, Float, Image, encoded, from_linear, to_linear, to_uint8


@DISTORTIONS.register("exposure")
class Exposure(Distortion):
    """Strengths: stops (factors of two of linear light) for over and under, 8-bit levels for bright and dark."""

    variants = ("over", "under", "bright", "dark")
    strengths = (
        (1.2, 1.7, 2.2, 2.8, 3.5),
        (-1.5, -2.2, -2.9, -3.6, -4.4),
        (50.0, 70.0, 92.0, 115.0, 140.0),
        (-50.0, -70.0, -92.0, -115.0, -140.0),
    )
    stage = "exposure"
    develops = True

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Over and under multiply linear light; bright and dark add to the coded values."""
        levels = np.arange(256, dtype=np.uint8)
        if variant < 2:
            return from_linear(to_linear(levels) * np.float32(2.0**strength))[image]
        return to_uint8(levels.astype(np.float32) + strength)[image]

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """Over and under are the development's brightness; bright and dark an offset of its curve."""
        return encoded(light * np.float32(2.0**strength)) if variant < 2 else encoded(light) + np.float32(strength)
