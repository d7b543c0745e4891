"""Exposure: too much or too little light, before the sensor clips or after."""

from __future__ import annotations

import numpy as np

from datamodules.distortions.base import DISTORTIONS, Distortion, Image, from_linear, to_linear, to_uint8


@DISTORTIONS.register("exposure")
class Exposure(Distortion):
    """Strengths: stops (factors of two of linear light) for over and under, 8-bit levels for bright and dark."""

    variants = ("over", "under", "bright", "dark")
    strengths = (
        (0.6, 1.0, 1.5, 2.1, 2.9),
        (-0.8, -1.3, -1.9, -2.6, -3.5),
        (28.0, 46.0, 66.0, 90.0, 120.0),
        (-28.0, -46.0, -66.0, -90.0, -120.0),
    )

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Over and under multiply linear light; bright and dark add to the coded values."""
        if variant < 2:
            return from_linear(to_linear(image) * np.float32(2.0**strength))
        return to_uint8(image.astype(np.float32) + strength)
