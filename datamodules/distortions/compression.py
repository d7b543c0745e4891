"""Compression: JPEG with and without chroma subsampling, WebP, JPEG 2000."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

from datamodules.distortions.base import DISTORTIONS, Distortion, Image


@DISTORTIONS.register("compression")
class Compression(Distortion):
    """Strengths: encoder quality in [0, 100] (JPEG, WebP), compression ratio (JPEG 2000)."""

    variants = ("jpeg 4:2:0", "jpeg 4:4:4", "webp", "jpeg 2000")
    strengths = (
        (38.0, 24.0, 15.0, 9.0, 5.0),
        (34.0, 21.0, 13.0, 8.0, 4.0),
        (32.0, 18.0, 9.0, 4.0, 0.0),
        (24.0, 40.0, 64.0, 100.0, 160.0),
    )
    stage = "file"

    def apply(self, image: Image, variant: int, strength: float, rng: np.random.Generator) -> Image:
        """Encodes and decodes with Pillow's codecs."""
        options: dict[str, Any] = (
            {"format": "JPEG", "quality": int(strength), "subsampling": 2},
            {"format": "JPEG", "quality": int(strength), "subsampling": 0},
            {"format": "WEBP", "quality": int(strength), "method": 2},
            {"format": "JPEG2000", "quality_mode": "rates", "quality_layers": [strength], "irreversible": True},
        )[variant]
        buffer = io.BytesIO()
        PIL.Image.fromarray(image).save(buffer, **options)
        buffer.seek(0)
        with PIL.Image.open(buffer) as decoded:
            return np.array(decoded.convert("RGB"))
