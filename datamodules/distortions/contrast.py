"""Contrast: flattened or stretched about the mean, by a straight line or by an S-curve."""

from __future__ import annotations

import numpy as np

from datamodules.distortions.base import DISTORTIONS, Distortion, Float, Image, encoded, to_uint8


@DISTORTIONS.register("contrast")
class Contrast(Distortion):
    """Strengths: slope at the image's mean luma; below 1 flattens, above 1 stretches (and clips)."""

    variants = ("flat", "stretched", "soft", "hard")
    strengths = (
        (0.5, 0.38, 0.28, 0.2, 0.13),
        (1.8, 2.4, 3.2, 4.5, 6.5),
        (0.52, 0.4, 0.3, 0.22, 0.14),
        (2.0, 2.8, 3.8, 5.2, 7.5),
    )
    develops = True

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """The line pivots about the mean; the S-curve (soft, hard) has that slope there and keeps black and white apart."""
        return to_uint8(_curve(image.astype(np.float32), variant, strength))

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """As a curve of the development."""
        return _curve(encoded(light), variant, strength)


def _curve(x: Float, variant: int, strength: float) -> Float:
    middle = float(x.mean())
    if variant == 3:
        half = 127.5
        return middle + half * np.tanh(strength * (x - middle) / half)
    if variant == 2:  # mid-tones are pulled together more than shadows and highlights
        away = np.abs(x - middle) / 255
        return middle + (x - middle) * (strength + (1 - strength) * 0.35 * away)
    return middle + strength * (x - middle)
