"""RAW photographs: from the sensor's values to linear light, so that distortions happen while the picture is developed, as in the making of
SEAGULL-100w (reference facts 3.1), and not to its 8-bit result (`datamodules.synthesis.Chains`)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from datamodules.distortions.base import Float, Image, from_linear
from datamodules.images import ImageError

SUFFIXES = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")

# LibRaw's parameters; recorded with the data. Linear, 16 bits, the camera's white balance, no brightening by the picture's content.
PARAMETERS: Mapping[str, Any] = {
    "demosaic_algorithm": "AHD",
    "use_camera_wb": True,
    "output_color": "sRGB",
    "output_bps": 16,
    "gamma": (1.0, 1.0),
    "no_auto_bright": True,
    "highlight_mode": "Clip",
    "adjust_maximum_thr": 0.0,
}


def is_raw(path: str | Path) -> bool:
    """Whether the name says that this is a RAW photograph."""
    return Path(path).suffix.lower() in SUFFIXES


def describe() -> dict[str, Any]:
    """What RAW photographs are developed with, for the record. Raises ImportError where rawpy is missing."""
    rawpy = _rawpy()
    return {"rawpy": rawpy.__version__, "libraw": ".".join(map(str, rawpy.libraw_version)), "parameters": dict(PARAMETERS)}


def develop(path: Path) -> Float:
    """A RAW file -> (H, W, 3) float32, linear, sRGB primaries, in [0, 1], 1 = the sensor's white; upright.

    Raises:
        ImageError: LibRaw cannot read it.
        ImportError: rawpy is missing.
    """
    rawpy = _rawpy()
    named = {"demosaic_algorithm": rawpy.DemosaicAlgorithm, "output_color": rawpy.ColorSpace, "highlight_mode": rawpy.HighlightMode}
    parameters = {k: named[k][v] if k in named else v for k, v in PARAMETERS.items()}
    try:
        with rawpy.imread(str(path)) as raw, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values: NDArray[np.uint16] = raw.postprocess(**parameters)
    except rawpy.LibRawError as error:
        said = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise ImageError(f"{path} cannot be developed ({said}): it is damaged, or of a camera that this LibRaw does not know") from error
    return values.astype(np.float32) / np.float32(65535)


def reduced(light: Float, size: tuple[int, int]) -> Float:
    """(H, W, 3) linear light -> `size` (height, width), each channel resampled as light adds up; what overshoots is clipped."""
    height, width = size
    planes = [PIL.Image.fromarray(plane).resize((width, height), PIL.Image.Resampling.LANCZOS) for plane in np.moveaxis(light, 2, 0)]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)


def picture(light: Float) -> Image:
    """Linear light -> the clean picture, (H, W, 3) uint8 sRGB."""
    return from_linear(light)


def _rawpy() -> Any:
    try:
        import rawpy
    except ModuleNotFoundError as error:
        raise ImportError("RAW photographs need the package rawpy: pip install 'roi-iqa[raw]'") from error
    return rawpy
