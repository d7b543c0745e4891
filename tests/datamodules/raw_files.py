"""RAW photographs for tests: an uncompressed DNG of a Bayer sensor, which LibRaw reads like any camera's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

BLACK, WHITE = 512, 15000


def write_dng(path: Path, light: np.ndarray, orientation: int = 1) -> None:
    """light (H, W, 3), linear, sRGB primaries, in [0, 1] -> what a sensor of these primaries would hold, RGGB."""
    values = BLACK + np.clip(light, 0, 1) * (WHITE - BLACK)
    cfa = np.empty(light.shape[:2], np.uint16)
    for (y, x), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        cfa[y::2, x::2] = np.rint(values[y::2, x::2, channel])
    to_camera = [3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570]  # XYZ (D65) -> linear sRGB
    rational = [n for m in to_camera for n in (round(m * 10000), 10000)]
    tags = [
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "Test RGGB", True),  # UniqueCameraModel
        (50714, "H", 1, BLACK, True),
        (50717, "H", 1, WHITE, True),
        (50721, "2i", 9, rational, True),  # ColorMatrix1
        (50728, "2I", 3, (1, 1) * 3, True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    tifffile.imwrite(path, cfa, photometric=32803, extratags=tags, metadata=None, software=False)
