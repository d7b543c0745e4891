"""Colorfulness: too little of it, too much of it, a colour cast, and bleached colours."""

from __future__ import annotations

import numpy as np

from datamodules.distortions.base import DISTORTIONS, Distortion, Float, Image, coded_rgb, encoded, to_uint8, to_ycc


@DISTORTIONS.register("colorfulness")
class Colorfulness(Distortion):
    """Strengths: factor on both colour differences (faded, vivid), shift of them in 8-bit levels (cast), cap on chroma (bleached)."""

    variants = ("faded", "vivid", "cast", "bleached")
    strengths = (
        (0.35, 0.22, 0.12, 0.05, 0.0),
        (2.2, 3.0, 4.0, 5.5, 8.0),
        (22.0, 31.0, 42.0, 55.0, 72.0),
        (12.0, 8.0, 5.0, 3.0, 1.0),
    )
    seeded = ("cast",)  # its hue
    develops = True

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Luma is kept, up to clipping."""
        return to_uint8(self._recoloured(to_ycc(image), variant, strength, rng))

    def develop(self, light: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        """As the development's saturation and white balance."""
        return self._recoloured(to_ycc(encoded(light)), variant, strength, rng)

    @staticmethod
    def _recoloured(ycc: Float, variant: int, strength: float, rng: np.random.Generator) -> Float:
        if variant == 2:
            angle = rng.uniform(0, 2 * np.pi)
            ycc[..., 1:] += strength * np.array([np.cos(angle), np.sin(angle)], np.float32)
        elif variant == 3:
            chroma = np.hypot(ycc[..., 1], ycc[..., 2])[..., None]
            ycc[..., 1:] *= strength / (strength + chroma)
        else:
            ycc[..., 1:] *= strength
        return coded_rgb(ycc)
