"""Noise: Gaussian, photon, impulse, and coloured grain."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from datamodules.distortions.base import DISTORTIONS, Distortion, Float, Image, coded_rgb, encoded, to_uint8, to_ycc


@DISTORTIONS.register("noise")
class Noise(Distortion):
    """Strengths: standard deviation in 8-bit levels (gaussian, photon at mid-grey, grain), share of pixels hit (impulse)."""

    variants = ("gaussian", "photon", "impulse", "grain")
    strengths = (
        (6.0, 10.0, 17.0, 28.0, 45.0),
        (6.0, 10.0, 17.0, 28.0, 45.0),
        (0.006, 0.014, 0.03, 0.07, 0.15),
        (9.0, 15.0, 24.0, 36.0, 54.0),
    )
    seeded = variants
    stage = "sensor"
    develops = True

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Independent per pixel, except grain, whose specks are about two pixels wide and mostly chromatic."""
        return to_uint8(_noisy(image.astype(np.float32), variant, strength, rng))

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """In coded values, of which its strengths are, as an editor adds grain; a sensor's is in the light."""
        return _noisy(encoded(light), variant, strength, rng)


def _noisy(x: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
    """(H, W, 3) in [0, 255]."""
    shape = x.shape
    if variant == 0:
        return x + strength * rng.standard_normal(shape, np.float32)
    if variant == 1:
        return x + strength * np.sqrt((x + 4) / 132).astype(np.float32) * rng.standard_normal(shape, np.float32)
    if variant == 2:
        draw = rng.random(shape, np.float32)
        return np.where(draw < strength / 2, np.float32(0), np.where(draw > 1 - strength / 2, np.float32(255), x))
    grain = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), (0.7, 0.7, 0)) * np.float32(2.5)
    ycc = to_ycc(x)
    ycc += strength * grain * np.array([0.45, 1.0, 1.0], np.float32)
    return coded_rgb(ycc)
