"""Photographs to begin with: those that ship inside scikit-image, some of them damaged in places, made when the page starts."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from datamodules.distortions.base import DISTORTIONS
from datamodules.images import decode_image

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB

# photograph -> what is done to it: distortion, setting, and left, top, width, height as shares of the image
EXAMPLES: dict[str, tuple[tuple[str, int, tuple[float, float, float, float]], ...]] = {
    "coffee": (("blur", 16, (0.05, 0.08, 0.36, 0.42)), ("noise", 16, (0.58, 0.52, 0.36, 0.4))),
    "chelsea": (("blur", 17, (0.48, 0.1, 0.36, 0.5)),),
    "rocket": (("compression", 16, (0.25, 0.3, 0.5, 0.6)),),
    "astronaut": (),
}
_SUFFIXES = {"rocket": "jpg"}


def examples() -> dict[str, Pixels]:
    """Name -> (H, W, 3) uint8; "damaged" in a name says that part of it was."""
    out = {}
    for name, damages in EXAMPLES.items():
        file = f"{name}.{_SUFFIXES.get(name, 'png')}"
        image = decode_image(files("skimage").joinpath("data", file).read_bytes(), file)
        out[f"{name}, damaged in {len(damages)} place{'s' * (len(damages) > 1)}" if damages else name] = _damaged(image, damages)
    return out


def _damaged(image: Pixels, damages: tuple[tuple[str, int, tuple[float, float, float, float]], ...]) -> Pixels:
    out = image.copy()
    height, width = image.shape[:2]
    for kind, setting, (left, top, across, down) in damages:
        part = np.s_[int(top * height) : int((top + down) * height), int(left * width) : int((left + across) * width)]
        out[part] = DISTORTIONS.build({"plugin": kind})(image, setting)[part]
    return out
